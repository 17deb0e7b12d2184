"""Decoding hostile and odd images, scaling to a budget, and the store's forks and pickles."""

import io
import os
import pickle
from math import log
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from vltaxon import schemas
from vltaxon.data.images import BrokenImage, ImageStore, decode, fit
from vltaxon.errors import UserError


def _encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "RGBA", "LA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = (
        Image.new("I;16", (6, 4), 128 * 256) if mode == "I;16" else Image.new("L", (6, 4), 128).convert(mode)
    )
    image = decode(_encoded(grey, "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"))
    assert (image.mode, image.size) == ("RGB", (6, 4))
    if mode != "1":
        assert np.abs(np.asarray(image).astype(int) - 128).max() <= 2


def test_transparent_is_white() -> None:
    assert decode(_encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 0)))).getpixel((0, 0)) == (255, 255, 255)
    indexed = Image.new("P", (2, 2), 0)
    indexed.putpalette([255, 0, 0])
    assert decode(_encoded(indexed, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """The red corner of a picture taken with a turned camera comes out where EXIF says."""
    corner = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}[
        orientation
    ]
    stored = Image.new("RGB", (40, 20), "white")
    stored.paste((255, 0, 0), (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(_encoded(stored, "JPEG", exif=exif))
    assert image.size == ((20, 40) if orientation > 4 else (40, 20))
    at = (corner[0] * (image.width - 7) + 3, corner[1] * (image.height - 7) + 3)
    assert image.getpixel(at)[1] < 60


def test_damaged_exif_is_no_reason_to_reject() -> None:
    plain = _encoded(Image.new("RGB", (5, 5), "red"), "JPEG")
    damaged = plain[:2] + b"\xff\xe1\x00\x14Exif\0\0" + b"MM\0*\xff\xff\xff\xff\0\0\0\0" + plain[2:]
    with pytest.warns(UserWarning, match="EXIF"):
        assert decode(damaged).size == (5, 5)


def test_one_pixel() -> None:
    assert decode(_encoded(Image.new("RGB", (1, 1), (9, 8, 7)))).getpixel((0, 0)) == (9, 8, 7)


_NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff",
        b"<html>404</html>",
        _encoded(_NOISE, "JPEG")[:2000],
        _encoded(_NOISE)[:5000],
        _encoded(_NOISE, "GIF")[:300],
        _encoded(Image.new("1", (20_000, 20_000))),
    ],
    ids=["empty", "marker only", "a web page", "cut JPEG", "cut PNG", "cut GIF", "a bomb"],
)
def test_broken_images_say_why(data: bytes) -> None:
    with pytest.raises(BrokenImage) as caught:
        decode(data)
    assert str(caught.value)
    assert "0x" not in str(caught.value)  # addresses differ from run to run


def test_fit_of_a_square_is_exact() -> None:
    assert fit(Image.new("RGB", (168, 168)), 3136, 3136).size == (56, 56)
    assert fit(Image.new("RGB", (28, 28)), 3136, 3136).size == (56, 56)


def test_fit_leaves_what_fits() -> None:
    image = Image.new("RGB", (60, 50))
    assert fit(image, 4000, 1000) is image


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 90_000), st.integers(1, 90_000))
def test_fit_keeps_budget_and_aspect(width: int, height: int, one: int, other: int) -> None:
    pixels, least = max(one, other), min(one, other)
    wide, high = fit(Image.new("L", (width, height)), pixels, least).size
    assert wide * high <= pixels
    if least * 2 < pixels and min(wide, high) > 1:  # room for whole numbers
        assert wide * high >= min(least, width * height)
    if min(wide, high) >= 8:
        assert abs(log(wide / high) - log(width / height)) < 0.3


def _store(folder: Path) -> pa.Table:
    data = [_encoded(Image.new("RGB", (8, 6), colour)) for colour in ("red", "blue")]
    (folder / "a.tar").write_bytes(b"head" + data[0] + b"gap" + data[1])
    offsets = [4, 7 + len(data[0])]
    rows = [
        {"image_id": name, "archive": str(folder / "a.tar"), "offset": offset, "size": len(content)}
        for name, offset, content in zip(("red", "blue"), offsets, data, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.IMAGES)


def test_store_reads_ranges(tmp_path: Path) -> None:
    store = ImageStore(_store(tmp_path))
    assert store.open("blue").getpixel((0, 0)) == (0, 0, 255)
    assert store.resized("red", 12, 1).size == (4, 3)
    assert ImageStore(_store(tmp_path)).read("red") == store.read("red")


def test_store_survives_pickle_and_fork(tmp_path: Path) -> None:
    store = ImageStore(_store(tmp_path))
    before = store.read("red")
    assert pickle.loads(pickle.dumps(store)).read("red") == before
    child = os.fork()
    if child == 0:
        os._exit(0 if store.read("blue") != before and store.read("red") == before else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.read("red") == before


def test_store_names_a_lost_or_short_archive(tmp_path: Path) -> None:
    table = _store(tmp_path)
    (tmp_path / "a.tar").write_bytes(b"short")
    with pytest.raises(UserError, match="ends before blue"):
        ImageStore(table).read("blue")
    (tmp_path / "a.tar").unlink()
    with pytest.raises(UserError, match="No such file"):
        ImageStore(table).read("blue")


def test_words_of_a_source_image_do_not_survive_into_copies() -> None:
    source, plain = (
        Image.new("RGB", (300, 300), "red"),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
    )
    exif = Image.Exif()
    exif[0x010E] = "SECRET"
    words = {"comment": b"SECRET", "xmp": b"<x>SECRET</x>", "exif": exif}
    data = io.BytesIO()
    source.save(data, "JPEG", icc_profile=plain.tobytes(), **words)
    assert data.getvalue().count(b"SECRET") == 3
    for form in ("JPEG", "PNG", "WEBP", "TIFF", "GIF"):
        copy = io.BytesIO()
        fit(decode(data.getvalue()), 240 * 240, 1).save(copy, form)
        assert b"SECRET" not in copy.getvalue(), form
    assert decode(data.getvalue()).info == {"icc_profile": plain.tobytes()}, "what its colours mean"
