"""What bad archives, images, JSON and CSV get: read right, rejected with a reason, or one clear error. One
row each.
"""

import gzip
import io
import json
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.unit.data.conftest import ingest_into
from vltaxon import schemas
from vltaxon.config.datasets import Dataset, Split
from vltaxon.data.archives import Archive, Folder, unpack
from vltaxon.data.images import ImageStore
from vltaxon.data.sources import folder as folder_source
from vltaxon.data.sources import inat21
from vltaxon.errors import UserError
from vltaxon.provenance import read_parquet

WORDS: dict[str, Any] = {"word": "plant", "questions": "inat21", "licence": "-", "scored_levels": (1,)}

# -- archives: what unpacking says ---------------------------------------------------------------------------------------------


def _tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _member(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content if kind == tarfile.REGTYPE else b""


FIRST, LAST = _member("a/first", b"1" * 600), _member("a/last", b"2" * 600)


def _with(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    return gzip.compress(_tar(FIRST, *members, LAST, form=form), 1)


def _resized(at: int, size: bytes, kind: bytes = b"0") -> bytes:
    """A good tar whose header at `at` has another size field and type, with the checksum made right."""
    data = bytearray(_tar(FIRST, _member("a/second", b"3" * 700), LAST))
    data[at + 124 : at + 136], data[at + 156 : at + 157], data[at + 148 : at + 156] = size, kind, b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return gzip.compress(bytes(data), 1)


def _base256(number: int) -> bytes:
    return (number % 2**95 + 2**95).to_bytes(12, "big")


def _chained() -> bytes:
    """Ten thousand headers that each say: the next one has a long name."""
    header = _member("x", kind=tarfile.GNUTYPE_LONGNAME)[0].tobuf(tarfile.GNU_FORMAT)
    return gzip.compress(header * 10_000 + bytes(1024), 1)


def _zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("a/first", "x")
    return buffer.getvalue()


GOOD = _with()
SECOND = 512 + 1024  # where the second header lies
NOT_TRUSTED = "data sets have none, so it is not trusted"
AGAIN = "damaged, after .*download it again"
SPARSE = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1"}

ARCHIVES: list[tuple[str, bytes | Callable[[], bytes], str]] = [
    ("absolute path", _with(_member("/etc/passwd")), rf"'/etc/passwd': has a path that leads out.*{NOT_TRUSTED}"),
    ("path with ..", _with(_member("a/../../b")), "'a/../../b': has a path that leads out"),
    ("folder with ..", _with(_member("../b", kind=tarfile.DIRTYPE)), "'../b': has a path that leads out"),
    ("symbolic link", _with(_member("l", kind=tarfile.SYMTYPE, linkname="/etc/passwd")), "'l': is a link"),
    ("hard link", _with(_member("l", kind=tarfile.LNKTYPE, linkname="a/first")), "'l': is a link"),
    ("character device", _with(_member("d", kind=tarfile.CHRTYPE)), "'d': is a link, a device"),
    ("block device", _with(_member("d", kind=tarfile.BLKTYPE)), "'d': is a link, a device"),
    ("fifo", _with(_member("d", kind=tarfile.FIFOTYPE)), "'d': is a link, a device"),
    ("member of an unknown type", _with(_member("d", kind=b"Z")), "'d': is a link, a device"),
    ("sparse, PAX", _with(_member("s", pax_headers=SPARSE), form=tarfile.PAX_FORMAT), "'s': .*sparse"),
    ("sparse, GNU", _resized(SECOND, b"%011o\0" % 0, b"S"), "'a/second': .*sparse"),
    ("two members of one name", _with(_member("a/first")), "'a/first': occurs twice"),
    ("the same, written otherwise", _with(_member("./a//first")), "occurs twice"),
    ("name not UTF-8", _with(_member("a/\udcff")), "not UTF-8"),
    ("cut in half", gzip.compress(_tar(_member("a", np.random.default_rng(0).bytes(9000))))[:5000], AGAIN),
    ("cut before the checksum", GOOD[:-6], AGAIN),
    ("wrong checksum", GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], AGAIN),
    ("zero bytes", b"", AGAIN),
    ("a web page", b"<html>Not found</html>", AGAIN),
    ("a zip", _zipped, AGAIN),
    ("an xz", lzma.compress(_tar(FIRST)), AGAIN),
    ("a tar that is not packed", _tar(FIRST), AGAIN),
    ("no tar inside", gzip.compress(b"no tar" * 1000), AGAIN),
    ("bytes after the gzip", GOOD + b"more", AGAIN),
    ("bytes after the tar", gzip.compress(_tar(FIRST) + b"more"), AGAIN),
    ("member larger than its header says", _resized(SECOND, b"%011o\0" % 100), "after member 'a/second': a header is unreadable"),
    ("header larger than the archive", _resized(SECOND, b"%011o\0" % 10**6), "after member 'a/second': unexpected end of data"),
    ("header of an exabyte", _resized(SECOND, _base256(2**60)), "'a/second': claims 1152921504606846976 bytes"),
    ("negative size", _resized(SECOND, b"\xff" * 12), AGAIN),
    ("long name of an exabyte", _resized(SECOND, _base256(2**60), b"L"), "after member 'a/first': a header is unreadable"),
    ("PAX size of an exabyte", _with(_member("p", pax_headers={"size": str(2**60)}), form=tarfile.PAX_FORMAT), "'p': claims"),
    ("PAX size no number", _with(_member("p", pax_headers={"size": "many"}), form=tarfile.PAX_FORMAT), "after member 'p': "),
    ("ten thousand nested headers", _chained, AGAIN),
    ("gzip bomb", lambda: gzip.compress(_tar(_member("a/bomb", bytes(100 << 20))), 9), "'a/bomb': claims 104857600 bytes"),
    ("gzip bomb after the tar", lambda: gzip.compress(_tar(FIRST) + bytes(100 << 20)), "after member 'a/first': unpacks to more"),
]  # fmt: skip


def _unpacked(folder: Path, data: bytes) -> str:
    raw, out = folder / "x.tar.gz", folder / "out"
    raw.write_bytes(data)
    archive = Archive(out / "x.tar", out / "x.parquet")
    try:
        unpack(raw, archive.tar, archive.index)
    except UserError as error:
        assert str(error).startswith(str(raw))
        assert list(out.iterdir()) == []
        return str(error)
    return f"unpacked fine: {archive.members['member'].to_list()}"


# -- images: what ingest makes of a folder that holds one ----------------------------------------------------------------------

RNG = np.random.default_rng(0)
RED = Image.new("RGB", (30, 20), (200, 30, 30))
NOISE = Image.fromarray(RNG.integers(0, 255, (90, 120, 3), dtype=np.uint8))


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _png(width: int, height: int) -> bytes:
    """A PNG that claims a size and brings a single row."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(9))),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _deep(values: Any, kind: str) -> bytes:
    """A 16-bit PNG, grey (0) or RGB (2), of one row."""
    rows = b"\0" + struct.pack(f">{len(values)}H", *values)
    width = len(values) // (3 if kind == "RGB" else 1)
    head = struct.pack(">IIBBBBB", width, 1, 16, 2 if kind == "RGB" else 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


JPEG, NOISY = _saved(RED, "JPEG"), _saved(NOISE, "JPEG")
SWEPT = _saved(NOISE, "JPEG", progressive=True)
OTHERS = [Image.new("RGB", (30, 20), "blue")]
FINE = r"read 30x20, (19[89]|20[0-2]),(2[89]|3[01]),(2[89]|3[01])$"
NO_IMAGE = "rejected: UnidentifiedImageError: cannot identify image file"
CUT = "rejected: .*(truncated|Truncated|broken|not enough|incomplete)"

IMAGES: list[tuple[str, bytes | Callable[[], bytes], str]] = [
    ("JPEG, cut in half", NOISY[: len(NOISY) // 2], CUT),
    ("JPEG, cut near the end", NOISY[:-200], CUT),
    ("JPEG, cut in its header", NOISY[:100], "rejected: "),
    ("progressive JPEG, whole", _saved(RED, "JPEG", progressive=True), FINE),
    ("progressive JPEG, cut in half", SWEPT[: len(SWEPT) // 2], CUT),
    ("progressive JPEG, cut in its last scan", SWEPT[:-30], CUT),
    ("JPEG with bytes before it", b"junk" + JPEG, NO_IMAGE),
    ("JPEG with bytes after it", JPEG + b"junk" * 100, FINE),
    ("JPEG with its middle zeroed", NOISY[:300] + bytes(len(NOISY) - 300), "rejected: "),
    ("PNG called .jpg", _saved(RED, "PNG"), FINE),
    ("PNG, cut in half", _saved(NOISE, "PNG")[:5000], CUT),
    ("PNG with a wrong checksum", _saved(NOISE, "PNG")[:-40] + b"\0" * 40, "rejected: "),
    ("GIF called .jpg", _saved(RED.quantize(4), "GIF"), FINE),
    ("GIF, cut in half", _saved(NOISE, "GIF")[:3000], CUT),
    ("animated GIF", _saved(RED.quantize(4), "GIF", save_all=True, append_images=OTHERS), FINE),
    ("WebP called .jpg", _saved(RED, "WEBP", lossless=True), FINE),
    ("WebP, cut in half", _saved(NOISE, "WEBP", lossless=True)[:4000], "rejected: "),
    ("animated WebP", _saved(RED, "WEBP", lossless=True, save_all=True, append_images=OTHERS), FINE),
    ("BMP called .jpg", _saved(RED, "BMP"), FINE),
    ("TIFF called .jpg", _saved(RED, "TIFF"), FINE),
    ("CMYK JPEG", _saved(RED.convert("CMYK"), "JPEG"), FINE),
    ("grey JPEG", _saved(Image.new("L", (30, 20), 77), "JPEG"), "read 30x20, 77,77,77"),
    ("16-bit grey PNG", _deep([0x4D00] * 5, "L"), "read 5x1, 77,77,77"),
    ("16-bit colour PNG", _deep([0x4D00, 0x8000, 0xFFFF] * 4, "RGB"), "read 4x1, 77,128,255"),
    (
        "32-bit float TIFF",
        _saved(Image.new("F", (5, 5), 0.5), "TIFF"),
        "rejected: ValueError: pixels of 32 bits",
    ),
    ("one pixel", _saved(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), "read 1x1, 9,8,7"),
    (
        "30,000 x 30,000 pixels",
        _png(30_000, 30_000),
        r"rejected: DecompressionBombError: Image size \(900000000 pixels\)",
    ),
    ("PNG without any pixel", _png(0, 5), "rejected: "),
    ("turned by EXIF", _saved(Image.new("RGB", (20, 30), (200, 30, 30)), "JPEG", exif=_exif(6)), FINE),
    ("mirrored by EXIF", _saved(ImageOps.mirror(RED), "JPEG", exif=_exif(2)), FINE),
    ("EXIF of nonsense", _saved(RED, "JPEG", exif=_exif(77)), FINE),
    ("transparent PNG", _saved(Image.new("RGBA", (3, 3), (1, 2, 3, 0)), "PNG"), "read 3x3, 255,255,255"),
    ("zero bytes", b"", "rejected: is an empty file$"),
    ("a web page", b"<!doctype html><title>404 Not Found</title>", "rejected: is a web page; download"),
    ("an SVG", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "rejected: is an SVG"),
    (
        "PostScript, a program",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "rejected: is PostScript",
    ),
    (
        "a Git LFS pointer",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "rejected: is a pointer of Git LFS; get the file itself by git lfs pull",
    ),
    ("text", b"not an image", NO_IMAGE),
]


def _collection(folder: Path, **options: Any) -> Dataset:
    return Dataset(
        source="folder", ranks=("genus", "species"), test=Split(table=folder / "t.csv"), **(WORDS | options)
    )


def _ingested(folder: Path, data: bytes) -> str:
    (folder / "x.jpg").write_bytes(data)
    (folder / "good.jpg").write_bytes(JPEG)
    (folder / "t.csv").write_text("path,genus,species\nx.jpg,G,G x\ngood.jpg,G,G x\n")
    dataset = _collection(folder, max_rejected=1)
    paths = list(ingest_into(folder, dataset, folder).values())
    for row in read_parquet(paths[2], schemas.REJECTED).to_pylist():
        assert row["archive"] == str(folder / "x.jpg")
        return f"rejected: {row['reason']}"
    row = read_parquet(paths[1], schemas.IMAGES).to_pylist()[-1]
    image = ImageStore(paths[1]).open(row["image_id"])
    assert (image.mode, image.size) == ("RGB", (row["width"], row["height"]))
    pixel = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(pixel, tuple)
    return f"read {image.width}x{image.height}, {','.join(map(str, pixel))}"


# -- JSON: what the iNat21 reader says -----------------------------------------------------------------------------------------

PLANT = {"id": 0, "name": "G x", "kingdom": "P", "genus": "G"}
DOCUMENT: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "val/0/a.jpg"}],
    "categories": [PLANT],
    "annotations": [{"id": 5, "image_id": 1, "category_id": 0}],
}
NOT_IT = "is it the annotation file of iNat21"

JSONS: list[tuple[str, object, str]] = [
    ("cut", json.dumps(DOCUMENT)[:-9].encode(), "damaged: .*download it again"),
    ("not UTF-8", b'{"images": "\xff"}', "damaged: "),
    ("zero bytes", b"", "damaged: "),
    ("a list", [], "has no images"),
    ("a number", 7, "has no images"),
    ("nested a hundred thousand deep", b"[" * 100_000, "damaged: "),
    ("a number of ten thousand digits", b'{"images": ' + b"9" * 10_000 + b"}", "damaged: "),
    (
        "no annotations, as the public test",
        {k: v for k, v in DOCUMENT.items() if k != "annotations"},
        "the public test of iNat21",
    ),
    ("images no list", DOCUMENT | {"images": {"a": 1}}, f"images: .*list.*{NOT_IT}"),
    ("an image no object", DOCUMENT | {"images": [3]}, f"images.0: .*{NOT_IT}"),
    ("an image without file_name", DOCUMENT | {"images": [{"id": 1}]}, f"images.0.file_name: .*{NOT_IT}"),
    (
        "a file_name of a number",
        DOCUMENT | {"images": [{"id": 1, "file_name": 3}]},
        "images.0.file_name: .*string",
    ),
    (
        "a file_name of half a letter",
        DOCUMENT | {"images": [{"id": 1, "file_name": "val/\ud800/a.jpg"}]},
        "file_name: .*surrogates",
    ),
    (
        "an empty file_name",
        DOCUMENT | {"images": [{"id": 1, "file_name": ""}]},
        'file_name "", not split/folder/file',
    ),
    ("an image without label", DOCUMENT | {"annotations": []}, "val/0/a.jpg has no annotation"),
    (
        "an id of a list",
        DOCUMENT | {"images": [{"id": [], "file_name": "val/0/a.jpg"}]},
        "images.0.id: .*integer",
    ),
    ("a category without id", DOCUMENT | {"categories": [{"name": "G x"}]}, "category None .*no number"),
    (
        "two categories of one id",
        DOCUMENT | {"categories": [PLANT, PLANT | {"name": "G y"}]},
        "category 0 .*occurs twice",
    ),
    (
        "a category without name",
        DOCUMENT | {"categories": [PLANT | {"name": None}]},
        "category 0: the leaf has no name",
    ),
    ("a category without genus", DOCUMENT | {"categories": [{"id": 0, "name": "G x"}]}, 'no rank "genus"'),
    ("a genus of an object", DOCUMENT | {"categories": [PLANT | {"genus": {"x": 1}}]}, "categories.0.genus"),
    (
        "packed far too well",
        lambda: b" " * (30 << 20),
        "claims 31457280 bytes, far more than text is packed to",
    ),
]


def _json(folder: Path, content: object) -> str:
    path = folder / "val.json.tar.gz"
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("val.json")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    split = Split(archive=folder / "val.tar.gz", annotations=path)
    dataset = Dataset(source="inat21", ranks=("genus", "species"), test=split, **WORDS)
    try:
        inat21.read(dataset, {"test": Archive(folder / "val.tar", folder / "val.parquet")})
    except UserError as error:
        assert str(error).startswith(str(path))
        return str(error)
    return "read fine"


# -- CSV: what the reader of a user's collection says ---------------------------------------------------------------------------

HEAD = "path,genus,species\n"

CSVS: list[tuple[str, bytes, str]] = [
    ("zero bytes", b"", 'no column "path"; its columns are none'),
    ("header only", HEAD.encode(), "read fine"),
    ("byte order mark, CRLF, quotes", b'\xef\xbb\xbfpath,genus,species\r\n"a,b.jpg","G","G x"\r\n', "read fine"),
    ("semicolons", b"path;genus;species\na.jpg;G;G x\n", 'no column "path"; its columns are path;genus;species'),
    ("no path", b"file,genus,species\na.jpg,G,G x\n", 'no column "path"; its columns are file, genus, species'),
    ("no column of a rank", b"path,genus\na.jpg,G\n", 'no column "species"'),
    ("a column twice", b"path,genus,genus,species\n", 'twice a column "genus"'),
    ("a cell too few", f"{HEAD}a.jpg,G\n".encode(), "line 2: has 2 cells, but there are 3 columns"),
    ("a cell too many", f"{HEAD}a.jpg,G,G x,y\n".encode(), "line 2: has 4 cells"),
    ("a quote that never ends", f'{HEAD}"a.jpg,G,G x\n'.encode(), "not readable as CSV"),
    ("Latin 1", f"{HEAD}a.jpg,G,G \xe4\n".encode("latin-1"), "not readable as CSV in UTF-8"),
    ("UTF-16", f"{HEAD}a.jpg,G,G x\n".encode("utf-16"), "not readable as CSV in UTF-8"),
    ("a JPEG", JPEG, "not readable as CSV in UTF-8"),
    ("a cell of a megabyte", f"{HEAD}{'a' * 2**20},G,G x\n".encode(), "not readable as CSV.*field larger than field limit"),
    ("no path in a row", f"{HEAD},G,G x\n".encode(), "line 2: path is empty"),
    ("no taxon in a row", f"{HEAD}a.jpg,, \n".encode(), "line 2: names no taxon"),
    ("two parents", f"{HEAD}a.jpg,G,X\nb.jpg,H,X\n".encode(), 'species "X" has two lineages: G > X .*line 2.*and H > X .*line 3'),
    ("epithets", f"{HEAD}a.jpg,G,x\nb.jpg,H,x\n".encode(), r"species: all are single words in lower case \(x\)"),
    ("two that look the same", f"{HEAD}a.jpg,Gg,Gg x\nb.jpg,Gg,Gg_x\n".encode(), 'species "Gg x" .*line 2.* and "Gg_x" .*line 3.* look the same'),
    ("a species and its author", f"{HEAD}a.jpg,,Gg xx\nb.jpg,,Gg xx Smith\n".encode(), 'species "Gg xx" .*line 2.* and "Gg xx Smith" .*line 3'),
    ("nothing but words for nothing", f"{HEAD}a.jpg,NA,unknown\n".encode(), r'name no taxon: .*line 2 \("NA", "unknown"\)'),
    ("a filler that nobody sees", f"{HEAD}a.jpg,G,\u3164\nb.jpg,\u200b,\u3164\n".encode(), "name no taxon: .*line 3"),
]  # fmt: skip


def _csv(folder: Path, data: bytes) -> str:
    (folder / "t.csv").write_bytes(data)
    try:
        folder_source.read(_collection(folder), ["test"])
    except UserError as error:
        return str(error)
    return "read fine"


TABLE = [
    *(pytest.param(_unpacked, what, gets, id=f"archive: {name}") for name, what, gets in ARCHIVES),
    *(pytest.param(_ingested, what, gets, id=f"image: {name}") for name, what, gets in IMAGES),
    *(pytest.param(_json, what, gets, id=f"JSON: {name}") for name, what, gets in JSONS),
    *(pytest.param(_csv, what, gets, id=f"CSV: {name}") for name, what, gets in CSVS),
]


@pytest.mark.parametrize(("reader", "what", "gets"), TABLE)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_what_bad_input_gets(
    tmp_path: Path, reader: Callable[[Path, Any], str], what: Any, gets: str
) -> None:
    said = reader(tmp_path, what() if callable(what) else what)
    assert re.search(gets, said, re.DOTALL), said


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    (tmp_path / "d.jpg").mkdir()
    found = Folder(tmp_path).find(["d.jpg", "absent.jpg", "nul\0.jpg", "x" * 5000])
    assert found["size"].null_count() == 4
