"""Decoding hostile and odd images, scaling to a budget, and the store's forks and pickles."""

import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms, features

from vltaxon import schemas
from vltaxon.data.images import BrokenImage, ImageStore, Look, decode, examine, fit
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


def _fixed(number: float) -> bytes:
    return struct.pack(">i", round(number * 65536))


def profile_of(
    primaries: Sequence[Sequence[float]], gamma: float | None = None, space: bytes = b"RGB "
) -> bytes:
    """An ICC profile: XYZ (D50) of red, green and blue, and sRGB's curve or a gamma."""
    if gamma is None:
        x = np.arange(1024) / 1023
        curve = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
        tone = b"curv\0\0\0\0" + struct.pack(">I", 1024) + (curve * 65535).round().astype(">u2").tobytes()
    else:
        tone = b"para\0\0\0\0\0\0\0\0" + _fixed(gamma)
    white = (0.9642, 1, 0.8249)
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"p\0" + bytes(78),
        b"cprt": b"text\0\0\0\0-\0",
        b"wtpt": b"XYZ \0\0\0\0" + b"".join(map(_fixed, white)),
    }
    tags |= {b"kTRC": tone} if space == b"GRAY" else {}
    for name, primary in zip((b"r", b"g", b"b"), primaries, strict=False):
        tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + b"".join(map(_fixed, primary))
        tags[name + b"TRC"] = tone
    listed, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        listed += name + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    size = struct.pack(">I", 128 + len(listed) + len(body))
    head = size + b"lcms\x02\x40\0\0mntr" + space + b"XYZ " + bytes(12) + b"acsp" + bytes(28)
    return head + b"".join(map(_fixed, white)) + bytes(48) + listed + body


SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))
DISPLAY_P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))


def test_colours_of_another_space_become_srgb() -> None:
    """The value is that of CSS: color(display-p3 0.784 0.235 0.157) is rgb(217 42 23)."""
    phone = _encoded(Image.new("RGB", (4, 3), (200, 60, 40)), icc_profile=profile_of(DISPLAY_P3))
    seen = examine(phone)
    assert (seen.how, seen.unread) == ("+srgb", False)
    image = decode(phone, seen.how)
    assert (image.getpixel((0, 0)), image.info) == ((217, 42, 23), {}), "its profile is not applied twice"
    assert decode(phone).getpixel((0, 0)) == (200, 60, 40), "as it was read where it was ingested before"
    grey = _encoded(Image.new("L", (4, 3), 40), icc_profile=profile_of((), 1.8, b"GRAY"))
    linear = (40 / 255) ** 1.8
    assert (
        decode(grey, examine(grey).how).getpixel((0, 0))
        == (round(255 * (1.055 * linear ** (1 / 2.4) - 0.055)),) * 3
    )


@pytest.mark.parametrize(
    ("profile", "unread"),
    [
        (profile_of(SRGB), False),
        (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), False),
        (profile_of((), 1.8, b"GRAY"), True),
        (b"no profile", True),
    ],
    ids=["sRGB", "sRGB of lcms", "for grey images", "damaged"],
)
def test_srgb_and_what_is_no_profile_of_the_image_change_nothing(profile: bytes, unread: bool) -> None:
    data = _encoded(_NOISE, icc_profile=profile)
    assert examine(data) == Look("", None, unread)
    assert decode(data).tobytes() == _NOISE.tobytes()
    assert decode(data).info == {"icc_profile": profile}


def _sixteen(values: NDArray[Any], form: str) -> bytes:
    """16-bit values as PNG, TIFF, or TIFF whose first byte is the high one."""
    if form == "big":
        data = _encoded(Image.fromarray(values.astype(np.uint16)), "TIFF")
        count = struct.unpack_from("<H", data, at := struct.unpack_from("<I", data, 4)[0])[0]
        head, first = b"MM\0*" + struct.pack(">I", 8), 8 + 2 + 12 * count + 4
        tags = [struct.unpack_from("<HHI4s", data, at + 2 + 12 * i) for i in range(count)]
        order = b""
        for tag, kind, number, value in tags:
            wide = "H" if kind == 3 else "I"
            text = struct.pack(f">{wide}", struct.unpack_from(f"<{wide}", value)[0]).ljust(4, b"\0")
            text = struct.pack(">I", first) if tag == 273 else text
            order += struct.pack(">HHI", tag, kind, number) + text
        return head + struct.pack(">H", count) + order + bytes(4) + values.astype(">u2").tobytes()
    return _encoded(Image.fromarray(values.astype(np.uint16)), form)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "big"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_values_of_16_bits_are_scaled_from_those_in_use(form: str, bits: int) -> None:
    steps = np.linspace(0, 2**bits - 1, 64).astype(np.uint16).reshape(8, 8)
    data = _sixteen(steps, form)
    assert examine(data).peak == 2**bits - 1
    seen = examine(data, bits)
    assert seen == Look("" if bits == 16 else f"+{bits}bit", None, False)
    assert (np.asarray(decode(data, seen.how))[..., 1] == steps >> (bits - 8)).all()
    if bits > 8:
        with pytest.raises(
            BrokenImage, match=rf"beyond 8 bits, which `bits` says it has \({2**bits - 1:,}\)"
        ):
            examine(data, 8)


def _coloured(values: NDArray[Any], form: str) -> bytes:
    """Colours of 16 bits as PNG, TIFF or packed TIFF, which Pillow does not write."""
    high, wide, bands = values.shape
    if form == "PNG":
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        head = struct.pack(">IIBBBBB", wide, high, 16, {2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
        chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
        parts = (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in chunks
        )
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    data = values.astype("<u2").tobytes()
    data = zlib.compress(data) if form == "packed" else data
    start = 8 + 2 + 12 * 11 + 4
    tags = [  # number, type, count, value; 274: turned by 180 degrees
        *(
            (256, 4, 1, wide),
            (257, 4, 1, high),
            (258, 3, 3, start),
            (259, 4, 1, 8 if form == "packed" else 1),
        ),
        *((262, 4, 1, 2), (273, 4, 1, start + 6), (274, 4, 1, 3), (277, 4, 1, 3), (278, 4, 1, high)),
        *((279, 4, 1, len(data)), (284, 4, 1, 1)),
    ]
    listed = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", 11)
        + listed
        + bytes(4)
        + struct.pack("<HHH", 16, 16, 16)
        + data
    )


@pytest.mark.parametrize(("form", "bands"), [("PNG", 3), ("PNG", 4), ("PNG", 2), ("TIFF", 3), ("packed", 3)])
def test_colours_of_16_bits_are_scaled_with_the_bits_that_pillow_leaves_out(form: str, bands: int) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (6, 8, bands))
    values[0, 0] = 4095
    if bands != 3:
        values[..., -1] = 65_535
    data = _coloured(values, form)
    assert examine(data).peak == 4095
    if bands == 2:
        with pytest.raises(BrokenImage, match=r"grey with transparency in 16 bits.* save it without"):
            examine(data, 12)
        return
    seen = examine(data, 12)
    assert seen == Look("+12bit", None, False)
    wanted = values[..., :3] if form == "PNG" else values[::-1, ::-1]
    assert (np.asarray(decode(data, seen.how)) == wanted >> 4).all()
    assert (np.asarray(decode(data)) == wanted >> 8).all(), "as Pillow gives it"


def test_limits_say_what_is_too_much() -> None:
    for width, height in ((2000, 4), (4, 2000), (1010, 10)):
        with pytest.raises(BrokenImage, match=rf"100:1, which models refuse \({width} x {height}\)"):
            examine(_encoded(Image.new("L", (width, height))))
    assert examine(_encoded(Image.new("L", (1000, 10)))) == Look("", None, False)
    with pytest.raises(BrokenImage, match="has 144 megapixels, more than the 134 that are read"):
        examine(_encoded(Image.new("1", (12_000, 12_000))))


def test_a_large_image_takes_little_more_than_its_pixels(tmp_path: Path) -> None:
    """The largest that is read, of few bytes and with transparent parts, which were copied four times."""
    small = Image.new("P", (11_585, 11_585), 0)
    small.putpalette([9, 8, 7])
    (tmp_path / "a.png").write_bytes(_encoded(small, transparency=1))
    code = (
        "import resource, sys; from pathlib import Path; from vltaxon.data.images import decode, examine;"
        "data = Path(sys.argv[1]).read_bytes(); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "image = decode(data, examine(data).how); assert image.getpixel((11_584, 11_584)) == (9, 8, 7);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, tmp_path / "a.png"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 7 * 11_585**2


def test_a_preview_of_a_raw_file_is_not_the_picture() -> None:
    preview = _encoded(Image.new("RGB", (16, 12)), "TIFF", tiffinfo={254: 1})
    for read in (examine, decode):
        with pytest.raises(BrokenImage, match="camera's raw file with a small preview"):
            read(preview)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is HEIC, damaged or without pillow-heif to read it"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "is a camera's raw file"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isommp41", "is a video"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "is JPEG XL"),
        (b"8BPS\0\1", "is a file of Photoshop"),
        (b"PK\3\4", "is a zip archive"),
        (b"%PDF-1.7", "is a PDF"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_read_is_named_by_its_bytes(head: bytes, words: str) -> None:
    with pytest.raises(BrokenImage, match=words):
        decode(head + bytes(100))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read_whatever_its_name() -> None:
    image = decode(_encoded(Image.new("RGB", (16, 12), (200, 30, 30)), "AVIF", quality=100))
    assert np.abs(np.asarray(image).astype(int) - (200, 30, 30)).max() <= 3


def test_heic_is_read_where_its_library_is() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    image = decode(_encoded(Image.new("RGB", (64, 48), (200, 30, 30)), "HEIF", quality=100))
    assert image.size == (64, 48)
    assert np.abs(np.asarray(image).astype(int) - (200, 30, 30)).max() <= 4


def _kept(folder: Path) -> pa.Table:
    """Two images of equal size in a tar, and one in a folder, with their digests."""
    both = [_encoded(Image.new("RGB", (8, 6), colour), "BMP") for colour in ("red", "blue")]
    (folder / "a.tar").write_bytes(b"head" + both[0] + both[1])
    (folder / "b.bmp").write_bytes(both[0])
    size, digest = len(both[0]), [hashlib.sha256(data).hexdigest() for data in both]
    rows = [
        {"image_id": "red", "archive": str(folder / "a.tar"), "offset": 4, "sha256": digest[0]},
        {"image_id": "blue", "archive": str(folder / "a.tar"), "offset": 4 + size, "sha256": digest[1]},
        {"image_id": "file", "archive": str(folder / "b.bmp"), "offset": 0, "sha256": digest[0]},
    ]
    return pa.Table.from_pylist([row | {"size": size} for row in rows], schema=schemas.IMAGES)


def test_other_bytes_of_the_same_size_are_not_the_image(tmp_path: Path) -> None:
    table = _kept(tmp_path)
    store = ImageStore(table)
    assert store.open("red").getpixel((0, 0)) == store.open("file").getpixel((0, 0)) == (255, 0, 0)
    tar, size = (tmp_path / "a.tar").read_bytes(), table["size"][0].as_py()
    (tmp_path / "a.tar").write_bytes(tar[:4] + tar[4 + size :] + tar[4 : 4 + size])
    with pytest.raises(
        UserError, match=r"a\.tar: red in it has changed since it was ingested.* make it again"
    ):
        ImageStore(table).open("red")
    (tmp_path / "b.bmp").unlink()
    (tmp_path / "other.bmp").write_bytes(tar[4 + size :])
    (tmp_path / "b.bmp").symlink_to("other.bmp")
    with pytest.raises(
        UserError, match=r"b\.bmp: has changed.* put the file of then back, or .*--forcerun ingest"
    ):
        store.open("file")


def test_an_image_that_this_machine_cannot_read_is_said(tmp_path: Path) -> None:
    table = _kept(tmp_path)
    (tmp_path / "b.bmp").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    row = table.slice(2, 1).to_pylist()[0] | {"size": 62, "sha256": None}
    with pytest.raises(UserError, match=r"b\.bmp: file could be read when .*is HEIC, .* without pillow-heif"):
        ImageStore(pa.Table.from_pylist([row], schema=schemas.IMAGES)).open("file")
