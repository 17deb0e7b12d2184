"""Random and randomly damaged input: the readers say no in words, or give something sound. Nothing else may
come out of them.

The slow test goes on for VLTAXON_FUZZ_SECONDS, 60 where not set: `pytest -m slow
tests/unit/data/test_fuzz.py`.
"""

import contextlib
import gzip
import io
import json
import tarfile
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data import fuzz
from tests.unit.data.test_images import profile_of
from vltaxon.config.datasets import Dataset, Split
from vltaxon.data.archives import Archive, Folder, unpack
from vltaxon.data.images import BrokenImage, decode, examine
from vltaxon.data.sources import cub200, folder, inat21
from vltaxon.errors import UserError

WORDS: dict[str, Any] = {"word": "plant", "questions": "inat21", "licence": "-", "scored_levels": (1,)}
RANKS = ("kingdom", "genus", "species")


def _tar(form: int, *names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 300 * number
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


_NAMES = ("val/a.jpg", "val/b.jpg", "val/" + "long" * 40 + "/ü.jpg")
_FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
TARS = [_tar(form, *_NAMES[: 2 if form == tarfile.USTAR_FORMAT else 3]) for form in _FORMS]
# what a header holds at these places is what tarfile believes: name, size, checksum, type, magic
_HEADER = st.sampled_from([*range(0, 4), *range(124, 136), *range(148, 157), *range(257, 265)])
_PLACES = st.one_of(
    _HEADER,
    st.builds(lambda block, at: 512 * block + at, st.integers(0, 12), _HEADER),
    st.integers(0, 12_000),
)
_BYTES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"\xff" * 12, b"\x80" + b"\0" * 10 + b"\xff", b"x", b"g", b"L", b"K", b"S"]),
)


@st.composite
def damaged(draw: st.DrawFn, data: bytes, places: st.SearchStrategy[int]) -> bytes:
    """The bytes with some overwritten, put in or taken out, or cut."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at, new, kind = (
            draw(places) % (len(out) + 1),
            draw(_BYTES),
            draw(st.sampled_from(["over", "over", "in", "out", "cut"])),
        )
        if kind == "cut":
            del out[at:]
        else:
            out[at : at + (0 if kind == "in" else len(new))] = b"" if kind == "out" else new
    return bytes(out)


def _summed(data: bytes) -> bytes:
    """Headers made right again where they were damaged, or no damage would get past the checksum."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


archives = st.one_of(
    st.sampled_from(TARS)
    .flatmap(lambda tar: damaged(tar, _PLACES))
    .map(_summed)
    .map(lambda tar: gzip.compress(tar, 1)),
    st.sampled_from(TARS).flatmap(lambda tar: damaged(tar, _PLACES)).map(lambda tar: gzip.compress(tar, 1)),
    damaged(gzip.compress(TARS[2]), st.integers(0, 600)),
    st.binary(max_size=100),
)


def check_tar(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "x.tar.gz").write_bytes(data)
        archive = Archive(root / "out" / "x.tar", root / "out" / "x.parquet")
        try:
            unpack(root / "x.tar.gz", archive.tar, archive.index)
        except UserError:
            assert list((root / "out").iterdir()) == []
            return
        for row in archive.members.to_dicts():
            assert len(archive.read(row["member"])) == row["size"]
            assert not row["member"].startswith("/") and ".." not in row["member"].split("/")


_cells = st.one_of(st.sampled_from(["G", "G x", "H", "", "train", "test", "a.jpg"]), st.text(max_size=6))
_lines = st.lists(st.lists(_cells, max_size=6).map(",".join), max_size=6)
_heads = st.sampled_from(
    ["path,kingdom,genus,species", "path,kingdom,genus,species,split", "class_name,kingdom,genus,species", ""]
)
texts = st.one_of(
    st.builds(lambda head, lines: "\n".join([head, *lines]).encode(errors="surrogatepass"), _heads, _lines),
    st.sampled_from(
        [b'path,kingdom,genus,species,split\na.jpg,K,G,G x,test\n"b,c.jpg",K,G,,train\n']
    ).flatmap(lambda text: damaged(text, st.integers(0, 90))),
    st.binary(max_size=60),
)


def check_csv(data: bytes, both: bool) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        table = Path(temporary) / "t.csv"
        table.write_bytes(data)
        split = Split(table=table)
        dataset = Dataset(source="folder", ranks=RANKS, test=split, train=split if both else None, **WORDS)
        try:
            lineages, images = folder.read(dataset, ["train", "test"] if both else ["test"])
        except UserError:
            pass
        else:
            assert all(image.leaf in lineages and image.member for image in images)
        with contextlib.suppress(UserError):
            cub200._classes(
                Dataset(source="cub200", classes=table, ranks=RANKS, test=Split(archive=table), **WORDS)
            )


_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["\ud800", "P", "G x"]),
)
_any = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
)
DOCUMENT: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "val/0/a.jpg"}, {"id": 2, "file_name": "val/0/b.jpg"}],
    "categories": [{"id": n, "name": f"G {n}", "kingdom": "P", "genus": "G"} for n in range(2)],
    "annotations": [{"id": 5 + n, "image_id": n, "category_id": n - 1} for n in (1, 2)],
}


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Anything; or the right document with something in it replaced or left out, or its text damaged."""
    if draw(st.integers(0, 3)) == 0:
        return json.dumps(draw(_any)).encode()
    document = json.loads(json.dumps(DOCUMENT))
    for _ in range(draw(st.integers(1, 3))):
        node: Any = document
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and draw(st.integers(0, 3)):
                node = node[key]
                continue
            if draw(st.booleans()):
                node[key] = draw(_any)
            else:
                del node[key]
            break
    text = json.dumps(document).encode()
    return draw(damaged(text, st.integers(0, len(text)))) if draw(st.integers(0, 3)) == 0 else text


def check_json(data: bytes, kingdom: str | None) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "val.json.tar.gz"
        with tarfile.open(path, "w:gz", compresslevel=1) as tar:
            info = tarfile.TarInfo("val.json")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        split = Split(archive=path.with_name("val.tar.gz"), annotations=path)
        dataset = Dataset(source="inat21", ranks=RANKS, kingdom=kingdom, test=split, **WORDS)
        try:
            lineages, images = inat21.read(dataset, {"test": Archive(path, path)})
        except UserError:
            return
        assert all(image.leaf in lineages for image in images)
        "".join(name or "" for taxa in lineages.values() for name in taxa).encode()  # a table can hold it


def _saved(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((24, 16)).convert("RGB").save(buffer, form)
    return buffer.getvalue()


def _deep(form: str) -> bytes:
    """10 bits in 16, with a profile of other colours."""
    buffer, values = io.BytesIO(), np.arange(24 * 16, dtype=np.uint16).reshape(16, 24)
    Image.fromarray(values).save(buffer, form, icc_profile=profile_of((), 1.8, b"GRAY"))
    return buffer.getvalue()


PICTURES = [_saved(form) for form in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")]
PICTURES += [_deep("PNG"), _deep("TIFF")]


def check_image(data: bytes, bits: int | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for how in (lambda: "", lambda: examine(data, bits).how):
            try:
                assert decode(data, how()).mode == "RGB"
            except BrokenImage as error:
                assert str(error)


def check_member(member: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "a.jpg").write_bytes(b"")
        (Path(temporary) / "d").mkdir()
        place = Folder(Path(temporary))
        found = place.find([member])
        assert found["size"].null_count() == 0 or place.absent(member).startswith("no such file (")


PICTURE = st.sampled_from(PICTURES).flatmap(lambda data: damaged(data, st.integers(0, len(data))))
CHECKS: dict[Callable[..., None], tuple[st.SearchStrategy[Any], ...]] = {
    check_tar: (archives,),
    check_csv: (texts, st.booleans()),
    check_json: (documents(), st.sampled_from([None, "P"])),
    check_image: (PICTURE, st.sampled_from([None, 10, 12])),
    check_member: (
        st.one_of(st.text(max_size=8), st.sampled_from(["A.JPG", "a", "d", "d/x", "../a", "\0", "x" * 300])),
    ),
}
QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
LONG = settings(QUICK, max_examples=1000, derandomize=False)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_nothing_but_words(check: Callable[..., None]) -> None:
    QUICK(given(*CHECKS[check])(check))()


@pytest.mark.slow
def test_nothing_but_words_for_long() -> None:
    for _ in fuzz.rounds(f"rounds of {LONG.max_examples} examples for each of {len(CHECKS)} readers"):
        for check, strategies in CHECKS.items():
            LONG(given(*strategies)(check))()
