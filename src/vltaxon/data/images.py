"""Pixels: byte ranges of tars or whole files, decoded once, upright, in RGB, and scaled to a pixel budget."""

import functools
import hashlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin, UnidentifiedImageError, features

from vltaxon import schemas
from vltaxon.errors import UserError
from vltaxon.provenance import read_frame

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

# What cameras and the web give. Pillow knows more, among them PostScript, which it would have another program
# execute.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")
_MOST = 1 << 27  # pixels, of 8 bytes while they are decoded
# times its width or height. Qwen's processors refuse 200; scaling a long image down to whole pixels can
# double the ratio.
_LONGEST = 100
_STRIP = 1 << 24  # pixels converted at once
_HEX = 64  # digits of a SHA-256
_SAME = 2  # of 255: what a profile may differ by from sRGB, which each of its makers rounds otherwise
_GREY = ("1", "L", "LA", "La")
_UNREAD = {  # what is met among images, by a pattern of its first bytes
    rb"$": "is an empty file",
    rb".{4}ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)": "is HEIC, damaged or without pillow-heif to "
    "read it (pip install 'pillow-heif>=1.1')",
    rb".{4}ftypavi[fs]": "is AVIF, damaged or not read by this build of Pillow; save it as JPEG or PNG",
    rb".{4}ftypcrx ": "is a camera's raw file; develop it to JPEG or TIFF",
    rb".{4}ftyp": "is a video",
    rb"\xff\x0a|\0\0\0\x0cJXL ": "is JPEG XL, which Pillow does not read; save it as JPEG or PNG",
    rb"\0\0\0\x0cjP|\xff\x4f\xff\x51": "is JPEG 2000; save it as JPEG or PNG",
    rb"8BPS": "is a file of Photoshop; save it as JPEG or PNG",
    rb"%PDF": "is a PDF; take the images out of it",
    rb"%!PS|\xc5\xd0\xd3\xc6": "is PostScript; save it as JPEG or PNG",
    rb"PK\x03\x04": "is a zip archive; unpack it",
    rb"version https://git-lfs": "is a pointer of Git LFS; get the file itself by git lfs pull",
    rb"(?is)\s*(<\?xml.*)?<svg": "is an SVG, a drawing; save it as PNG",
    rb"(?i)\s*<(!doctype|html|\?xml|head)": "is a web page; download the image itself",
}


class BrokenImage(Exception):
    """Bytes that are no whole image; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Look:
    """What an image is, before it is decoded.

    Attributes:
        how: marks of how its values are to be read, where that takes more than the bytes: `+12bit` (values of
            16 bits of which 12 are used), `+srgb` (of another space of colours, to be converted).
        peak: highest value of 16 bits where no more is known of them; None of any other image.
        unread: whether it has a profile of its colours that cannot be used.
    """

    how: str
    peak: int | None
    unread: bool


def examine(data: bytes, bits: int | None = None) -> Look:
    """Return how an image is to be read; refuse what models or memory could not take.

    Args:
        data: its bytes.
        bits: how many bits its values have, where they are written with 16; None where that is not known.

    Raises:
        BrokenImage: see `decode`; also an image of too many pixels, one far longer than wide, and one whose
            values do not fit `bits`.
    """
    with _in_words(data):
        image = _opened(data)
        width, height = image.size
        if width * height > _MOST:
            raise BrokenImage(
                f"has {width * height / 1e6:,.0f} megapixels, more than the {_MOST / 1e6:,.0f} that are "
                "read; scale it down"
            )
        if max(width, height) > _LONGEST * min(width, height):
            raise BrokenImage(
                f"is far longer than wide, more than {_LONGEST}:1, which models refuse ({width} x {height})"
            )
        raw, profile = _raw_mode(image), image.info.get("icc_profile")
        how, peak = "", None
        if raw == "I;12":
            how = "+12bit"
        elif ";16" in raw:
            peak = _peak(image)
            if bits is not None and peak >= 1 << bits:
                raise BrokenImage(f"holds values beyond {bits} bits, which `bits` says it has ({peak:,})")
            if bits not in (None, 16):
                if raw.startswith("LA"):  # no order of bytes that Pillow knows
                    raise BrokenImage(
                        "is grey with transparency in 16 bits, of which the upper 8 alone can be read; save "
                        "it without transparency"
                    )
                how = f"+{bits}bit"
        converter, usable = _to_srgb(profile or b"", image.mode)
        how += "+srgb" if converter else ""
        return Look(how, peak if bits is None else None, bool(profile) and not usable)


def decode(data: bytes, how: str = "") -> Image.Image:
    """Decode an image to RGB, turned upright by its EXIF orientation.

    Transparent parts become white, and of an animation the first picture counts. Of what else the file holds,
    only the profile of its colours stays with the image, and that only where they are not converted.

    Args:
        data: its bytes.
        how: marks, as `examine` gives them.

    Raises:
        BrokenImage: the bytes are no image, are cut short, claim more pixels than Pillow deems safe (those
            are not decoded), have 32 bits a pixel without saying what is black and what white, or are a
            camera's raw file with a small preview.
    """
    with _in_words(data):
        image = _opened(data)
        ImageOps.exif_transpose(image, in_place=True)
        image.load()
        if image.mode in ("I", "F"):
            raise ValueError(f"pixels of 32 bits (mode {image.mode}), of unknown range")
        profile = image.info.get("icc_profile")
        converter = _to_srgb(profile or b"", image.mode)[0] if "+srgb" in how else None
        used = re.search(r"\+(\d+)bit", how)
        if used or image.mode.startswith("I;16"):
            image = _of_eight_bits(image, data, int(used[1]) if used else 16)
        if image.width * image.height <= _STRIP:
            plain = _rgb(image, converter)
        else:  # not all at once, for several copies of it
            plain, rows = Image.new("RGB", image.size), max(1, _STRIP // image.width)
            for top in range(0, image.height, rows):
                strip = image.crop((0, top, image.width, min(top + rows, image.height)))
                plain.paste(_rgb(strip, converter), (0, top))
        # Pillow would write comments and other words of the file, of persons and places, into its copies.
        plain.info = {"icc_profile": profile} if profile is not None and converter is None else {}
        return plain


def _rgb(image: Image.Image, converter: ImageCms.ImageCmsTransform | None) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if converter is None:
        return image.convert("RGB")
    image = image if image.mode == converter.input_mode else image.convert(converter.input_mode)
    return converter.apply(image)


@contextmanager
def _in_words(data: bytes) -> Iterator[None]:
    """Have whatever damaged bytes make Pillow raise be a `BrokenImage`."""
    try:
        yield
    except (MemoryError, BrokenImage):
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}".split(" <_io")[0]
        if isinstance(error, UnidentifiedImageError):
            said = next((name for head, name in _UNREAD.items() if re.match(head, data[:1000], re.S)), said)
        raise BrokenImage(said) from error


def _opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=_formats())
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(254, 0) & 1:
        raise BrokenImage("is a camera's raw file with a small preview; develop it to JPEG or TIFF")
    return image


@functools.cache
def _formats() -> tuple[str, ...]:
    avif = ("AVIF",) if features.check("avif") else ()
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return _FORMATS + avif
    register_heif_opener()
    return (*_FORMATS, *avif, "HEIF")


def _raw_mode(image: Image.Image) -> str:
    """Return how the file writes its values, in Pillow's words: `RGB;16B`."""
    if not (tiles := getattr(image, "tile", None)):
        return image.mode
    args = tiles[0].args
    return str(args[0] if isinstance(args, tuple) else args)


def _of_eight_bits(image: Image.Image, data: bytes, bits: int) -> Image.Image:
    """Return an upright image of 16 bits, of which some are in use, scaled to 8.

    Of colours Pillow gives the upper 8 bits; the lower ones it gives where it takes each value's bytes in the
    other order.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    turned, other = _opened(data), {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    turned.tile = [  # type: ignore[attr-defined]  # of every file that Pillow opens
        tile._replace(args=_each(tile.args, lambda raw: raw[:-1] + other[raw[-1]]))
        for tile in turned.tile  # type: ignore[attr-defined]
    ]
    ImageOps.exif_transpose(turned, in_place=True)
    whole = values.astype(np.uint16) << 8 | np.asarray(turned)
    scaled = (whole >> (bits - 8)).astype(np.uint8)
    if image.mode.endswith("A"):
        scaled[..., -1] = values[..., -1]
    return Image.fromarray(scaled)


def _each(args: Any, change: Callable[[str], str]) -> Any:
    """Return the arguments of a decoder with another raw mode: the first, or all that there is."""
    return change(args) if isinstance(args, str) else (change(args[0]), *args[1:])


def _peak(image: Image.Image) -> int:
    """Return the highest value of an image of 16 bits; of colours Pillow tells the upper 8."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return int(values.max())
    shown = values[..., :-1] if image.mode.endswith("A") else values
    return int(shown.max()) << 8 | 255


@functools.lru_cache(maxsize=32)
def _to_srgb(profile: bytes, mode: str) -> tuple[ImageCms.ImageCmsTransform | None, bool]:
    """Return what converts an image with a profile of its colours to sRGB, and whether that is known.

    None where they are sRGB's already. If the profile is damaged, or not for images of this mode, the values
    are taken as they are, as browsers do.
    """
    grey, inks = mode in _GREY or mode.startswith("I;16"), mode == "CMYK"
    fitting = {"RGB ": ("RGB", not inks), "GRAY": ("L", grey), "CMYK": ("CMYK", inks)}
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        taken, fits = fitting[source.profile.xcolor_space]
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        converter = ImageCms.ImageCmsTransform(source, target, taken, "RGB")
    except (ImageCms.PyCMSError, OSError, KeyError):
        return None, False
    if not fits or inks:
        return converter if fits else None, fits
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(*[steps] * 3, indexing="ij"), -1).reshape(1, -1, 3)
    tried = np.repeat(steps, 3).reshape(1, -1, 3) if taken == "L" else cube
    shown = np.asarray(converter.apply(Image.fromarray(tried).convert(taken))).astype(int)
    return converter if np.abs(shown - tried).max() > _SAME else None, True


def fit(image: Image.Image, pixels: int, min_pixels: int) -> Image.Image:
    """Scale an image (bicubic, aspect kept) to at most `pixels`.

    Args:
        image: of any size.
        pixels: area at most.
        min_pixels: area at least, as far as whole numbers allow.
    """
    width, height = image.size
    area = min(max(width * height, min_pixels), pixels)
    if area == width * height:
        return image
    # isqrt is exact where a float root of 168 * 168 / 9 may come out just below 56.
    wide, high = isqrt(width * area // height), isqrt(height * area // width)
    if area > width * height:
        up = (isqrt((width * area - 1) // height) + 1, isqrt((height * area - 1) // width) + 1)
        wide, high = up if up[0] * up[1] <= pixels else (wide, high)
    wide = max(1, min(wide, pixels))
    high = max(1, min(high, pixels // wide))
    return image.resize((wide, min(high, pixels // wide)), Image.Resampling.BICUBIC)


class ImageStore:
    """The images of a table, read where they lie.

    Safe to fork and to pickle: files open on first use, and reads keep no position.
    """

    def __init__(self, images: "Path | pa.Table | pl.DataFrame") -> None:
        import polars as pl

        table = read_frame(images, schemas.IMAGES) if isinstance(images, Path) else pl.DataFrame(images)
        # Python's own values, each archive's name once: a forked child must not use polars, whose threads it
        # lacks
        once: dict[str, str] = {}
        archives = [once.setdefault(name, name) for name in table["archive"]]
        columns = (table[name].to_list() for name in ("offset", "size"))
        seen = table["sha256"].to_list() if "sha256" in table.columns else [None] * len(archives)
        places = zip(archives, *columns, seen, strict=True)
        self._places = dict(zip(table["image_id"].to_list(), places, strict=True))
        self._files: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            os.close(file)

    def read(self, image_id: str) -> bytes:
        """Return the encoded image.

        Raises:
            UserError: its archive is gone or not readable, or holds other bytes than when it was ingested.
        """
        archive, offset, size, digest = self._places[image_id]
        again = "put it back" if offset == 0 else f"make it again by `snakemake --cores all {archive}`"
        try:
            if offset == 0:  # a file of a folder: there may be a million, too many to keep open
                data = Path(archive).read_bytes()
            else:
                if archive not in self._files:
                    file = os.open(archive, os.O_RDONLY)
                    if self._files.setdefault(archive, file) != file:  # another thread was faster
                        os.close(file)
                data = os.pread(self._files[archive], size, offset)
        except OSError as error:
            raise UserError(
                f"{archive}: {error.strerror}, but {image_id} lies in it; {again}, then run the workflow "
                "again"
            ) from error
        if len(data) != size and offset != 0:
            raise UserError(
                f"{archive}: ends before {image_id}; delete it, {again}, then run the workflow again"
            )
        if len(data) != size or (digest and hashlib.sha256(data).hexdigest() != digest[:_HEX]):
            what = "has changed" if offset == 0 else f"{image_id} in it has changed"
            again = "put the file of then back" if offset == 0 else f"delete it and {again}"
            raise UserError(
                f"{archive}: {what} since it was ingested, so what is known of it is not of these bytes; "
                f"{again}, or run the workflow again with --forcerun ingest, which takes it as it is now"
            )
        return data

    def open(self, image_id: str) -> Image.Image:
        """Return the image in RGB, upright, at full size.

        Raises:
            UserError: see `read`; also an image that cannot be decoded here, though it could be at ingest.
        """
        data, (archive, *_, digest) = self.read(image_id), self._places[image_id]
        try:
            return decode(data, (digest or "")[_HEX:])
        except BrokenImage as error:
            raise UserError(
                f"{archive}: {image_id} could be read when it was ingested, and cannot be now: {error}"
            ) from error

    def resized(self, image_id: str, pixels: int, min_pixels: int) -> Image.Image:
        """Return the image within a pixel budget, as `fit` has it."""
        return fit(self.open(image_id), pixels, min_pixels)


def digests(images: "pa.Table") -> dict[str, str]:
    """Return what each image's pixels are known by, as ingest took it, by image_id.

    It is the digest of its bytes, with the marks of `examine` where the bytes alone do not say what is seen.
    """
    found = dict(zip(images["image_id"].to_pylist(), images["sha256"].to_pylist(), strict=True))
    assert all(found.values()), "images without a digest cannot be told apart"
    return found
