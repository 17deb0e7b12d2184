"""A user's own photos, as they come: labelled twice, there twice, of few bits, of other names than the table's."""

import hashlib
import io
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.data.conftest import ingest_into
from tests.unit.data.test_images import DISPLAY_P3, profile_of
from vltaxon import schemas
from vltaxon.config.datasets import Dataset, Split
from vltaxon.data.images import ImageStore, digests
from vltaxon.errors import UserError
from vltaxon.provenance import read_parquet

WORDS: dict[str, Any] = {"word": "moth", "questions": "inat21", "licence": "-", "scored_levels": (1,)}


def _photo(number: int, form: str = "PNG") -> bytes:
    """A picture that no other number has."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (number, 90, 255 - number)).save(buffer, form)
    return buffer.getvalue()


def _deep(values: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def _dataset(test: Path, train: Path | None = None, **options: Any) -> Dataset:
    splits = {"test": Split(table=test)} | ({"train": Split(table=train)} if train else {})
    return Dataset(source="folder", ranks=("genus", "species"), **splits, **(WORDS | options))


def _collection(folder: Path, rows: str, files: dict[str, bytes], table: str = "t.csv") -> Path:
    """A folder with a table of path, genus and species, and its files."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / table).write_text(f"path,genus,species\n{rows}", encoding="utf-8")
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(data)
    return folder / table


def _ingested(dataset: Dataset, out: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The rows of the images, and the reasons of what was rejected by its member."""
    paths = ingest_into(out, dataset, out)
    rejected = read_parquet(paths["rejected"], schemas.REJECTED).to_pylist()
    reasons = {row["member"]: row["reason"] for row in rejected}
    return read_parquet(paths["images"], schemas.IMAGES).to_pylist(), reasons


def test_one_picture_under_two_leaves_is_no_test_and_under_one_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """None of them counts as damage: max_rejected is what it is by default. Training images are left alone."""
    rows = "b.png,G,G x\na.png,G,G x\nc.png,G,G x\nd.png,G,G y\ne.png,G,G x\nf.png,H,H z\n"
    files = {
        name: _photo(number)
        for name, number in zip(("a", "b", "c", "d", "e", "f"), (1, 1, 2, 2, 3, 2), strict=True)
    }
    files = {f"{name}.png": data for name, data in files.items()}
    train = _collection(
        tmp_path / "train",
        "g.png,G,G x\nh.png,G,G y\ni.png,G,G y\n",
        {"g.png": _photo(4), "h.png": _photo(4), "i.png": _photo(2)},
    )
    test = _collection(tmp_path / "test", rows, files)
    images, reasons = _ingested(_dataset(test, train), tmp_path / "out")
    assert [row["image_id"] for row in images] == [f"folder/{name}.png" for name in "aegh"]
    assert reasons == {
        "b.png": "same bytes as a.png, which is kept",
        "c.png": "labelled G x, and G y in d.png of the same bytes",
        "d.png": "labelled G y, and G x in c.png of the same bytes",
        "f.png": "labelled H z, and G x in c.png of the same bytes",
        "i.png": "same bytes as a test image",
    }
    assert (
        "ingest: 4 test images are left out, whose bytes are another test image's" in capsys.readouterr().out
    )


def test_a_photo_in_two_rows_is_named_with_both(tmp_path: Path) -> None:
    test = _collection(tmp_path, "a.png,G,G x\nb.png,G,G y\n./a.png,H,\n", {})
    with pytest.raises(UserError) as caught:
        _ingested(_dataset(test), tmp_path / "out")
    assert str(caught.value) == (
        f"./a.png is labelled twice: G > G x ({test}, line 2), and H > ? ({test}, line 4); leave one row of "
        "each image"
    )
    train = _collection(tmp_path, "b.png,G,G x\n", {}, "train.csv")
    test = _collection(tmp_path, "b.png,G,G y\n", {})
    with pytest.raises(UserError, match=r"G > G [xy] \(.*line 2\), and G > G [xy] \(.*line 2\)"):
        _ingested(_dataset(test, train), tmp_path / "out")


def test_one_name_in_the_folders_of_both_splits_is_two_photos(tmp_path: Path) -> None:
    """What has a name of its own keeps its id."""
    train = _collection(
        tmp_path / "train", "1/a.png,G,G x\n1/c.png,G,G x\n", {"1/a.png": _photo(1), "1/c.png": _photo(2)}
    )
    test = _collection(
        tmp_path / "test", "1/a.png,G,G y\n1/b.png,G,G x\n", {"1/a.png": _photo(3), "1/b.png": _photo(4)}
    )
    images, reasons = _ingested(_dataset(test, train), tmp_path / "out")
    assert {row["image_id"]: (row["split"], row["leaf"]) for row in images} == {
        "folder/1/b.png": ("test", "G x"),
        "folder/1/c.png": ("train", "G x"),
        "folder:test/1/a.png": ("test", "G y"),
        "folder:train/1/a.png": ("train", "G x"),
    }
    assert not reasons


def test_bits_are_asked_for_and_belong_to_what_an_answer_is_kept_by(tmp_path: Path) -> None:
    steps = np.linspace(0, 1003, 48).reshape(6, 8)
    files = {"a.png": _deep(steps), "b.png": _deep(steps / 2), "c.png": _photo(1)}
    test = _collection(tmp_path, "a.png,G,G x\nb.png,G,G y\nc.png,G,G y\n", files)
    words = r"2 images have values of 16 bits, and none .* above 1,003 of 65,535: they seem to have 10 bits.*`bits: 10`, or `bits: 16`"
    with pytest.raises(UserError, match=words):
        _ingested(_dataset(test), tmp_path / "out")
    known = {}
    for bits in (10, 12, 16):
        _ingested(_dataset(test, bits=bits), tmp_path / f"{bits}")
        store = ImageStore(tmp_path / f"{bits}/images.parquet")
        assert (np.asarray(store.open("folder/a.png"))[..., 0] == steps.astype(int) >> (bits - 8)).all()
        known[bits] = digests(read_parquet(tmp_path / f"{bits}/images.parquet", schemas.IMAGES))
    assert {known[bits]["folder/c.png"] for bits in known} == {hashlib.sha256(files["c.png"]).hexdigest()}
    plain = hashlib.sha256(files["a.png"]).hexdigest()
    assert [known[bits]["folder/a.png"] for bits in known] == [f"{plain}+10bit", f"{plain}+12bit", plain]
    with pytest.raises(
        UserError,
        match=r"2 x holds values beyond 8 bits, which `bits` says it has: \S+a.png \(1,003\), \S+b.png \(501\)",
    ):
        _ingested(_dataset(test, bits=8), tmp_path / "out")


def test_one_image_with_a_high_value_says_that_16_bits_are_in_use(tmp_path: Path) -> None:
    files = {"a.png": _deep(np.full((6, 8), 900)), "b.png": _deep(np.full((6, 8), 17_000))}
    images, _ = _ingested(
        _dataset(_collection(tmp_path, "a.png,G,G x\nb.png,G,G y\n", files)), tmp_path / "out"
    )
    assert [len(row["sha256"]) for row in images] == [64, 64]


def test_a_phones_colours_are_converted_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    buffer, odd = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 6), (200, 60, 40)).save(
        buffer, "JPEG", quality=100, icc_profile=profile_of(DISPLAY_P3)
    )
    Image.new("RGB", (8, 6), (200, 60, 40)).save(odd, "JPEG", quality=100, icc_profile=b"none")
    test = _collection(
        tmp_path, "a.jpg,G,G x\nb.jpg,G,G y\n", {"a.jpg": buffer.getvalue(), "b.jpg": odd.getvalue()}
    )
    images, _ = _ingested(_dataset(test), tmp_path / "out")
    assert [row["sha256"][64:] for row in images] == ["+srgb", ""]
    shown = ImageStore(tmp_path / "out/images.parquet").open("folder/a.jpg").getpixel((3, 3))
    assert np.abs(np.subtract(shown, (217, 42, 23))).max() <= 2
    said = capsys.readouterr().out
    assert "ingest: 1 images are of another space of colours and are converted to sRGB" in said
    assert "ingest: 1 images have a profile of colours that cannot be used; read as sRGB" in said


def test_what_is_there_in_place_of_an_absent_file_is_said(tmp_path: Path) -> None:
    cafe = unicodedata.normalize("NFD", "café.png")
    files = {
        "Photo.JPG": _photo(1),
        "b.png": _photo(2),
        cafe: _photo(3),
        "one/c.png": _photo(4),
        "good.png": _photo(5),
    }
    rows = "".join(
        f"{name},G,G x\n"
        for name in ("photo.jpg", "b.jpg", "café.png", "two/c.png", "one", "zz.png", "good.png")
    )
    images, reasons = _ingested(
        _dataset(_collection(tmp_path / "my", rows, files), max_rejected=1), tmp_path / "out"
    )
    assert [row["image_id"] for row in images] == ["folder/good.png"]
    assert reasons == {
        "photo.jpg": 'no such file (there is "Photo.JPG")',
        "b.jpg": 'no such file (there is "b.png")',
        "café.png": f'no such file (there is "{cafe}", in another Unicode form (NFC, NFD))',
        "two/c.png": f"no such file (the folder {tmp_path}/my/two is not there; folders in {tmp_path}/my: one)",
        "one": "no such file (it is a folder)",
        "zz.png": f"no such file (its folder has Photo.JPG, b.png, {cafe} and 3 more)",
    }
    with pytest.raises(
        UserError,
        match=re.escape(
            f"6 x no such file: {tmp_path}/my/one (it is a folder), {tmp_path}/my/two/c.png (the folder"
        ),
    ):
        _ingested(_dataset(tmp_path / "my/t.csv"), tmp_path / "out")


def test_photos_that_models_or_memory_cannot_take_are_rejected_with_their_reason(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (2000, 4)).save(buffer, "PNG")
    files = {"a.png": buffer.getvalue(), "b.png": _photo(1), "c.jpg": b"\0\0\0\x18ftypheic" + bytes(50)}
    rows = "a.png,G,G x\nb.png,G,G x\nc.jpg,G,G x\n"
    images, reasons = _ingested(
        _dataset(_collection(tmp_path, rows, files), max_rejected=1), tmp_path / "out"
    )
    assert [row["image_id"] for row in images] == ["folder/b.png"]
    assert reasons["a.png"] == "is far longer than wide, more than 100:1, which models refuse (2000 x 4)"
    assert reasons["c.jpg"].startswith("is HEIC, damaged or without pillow-heif to read it (pip install")
