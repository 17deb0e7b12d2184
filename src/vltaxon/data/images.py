"""Pixels: byte ranges of tars or whole files, decoded once, upright, in RGB, and scaled to a pixel budget."""

import io
import os
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from vltaxon import schemas
from vltaxon.errors import UserError
from vltaxon.provenance import read_frame

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

# What cameras and the web give. Pillow knows more, among them PostScript, which it would have another program
# execute.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")


class BrokenImage(Exception):
    """Bytes that are no whole image; the message is the reason."""


def decode(data: bytes) -> Image.Image:
    """Decode an image to RGB, turned upright by its EXIF orientation.

    Transparent parts become white, and of an animation the first picture counts. Of what else the file holds,
    only the profile of its colours stays with the image.

    Raises:
        BrokenImage: the bytes are no image, are cut short, claim more pixels than Pillow deems safe (those
            are not decoded), or have 32 bits a pixel without saying what is black and what white.
    """
    try:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data), formats=_FORMATS))
        if image.mode in ("I", "F"):
            raise ValueError(f"pixels of 32 bits (mode {image.mode}), of unknown range")
        if image.mode.startswith("I;16"):
            image = image.point(lambda value: value / 256, "L")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
        # Pillow would write comments and other words of the file, of persons and places, into its copies.
        image.info = {name: value for name, value in image.info.items() if name == "icc_profile"}
        return image
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        raise BrokenImage(f"{type(error).__name__}: {error}".split(" <_io")[0]) from error


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
        places = zip(archives, table["offset"].to_list(), table["size"].to_list(), strict=True)
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
            UserError: its archive is gone or not readable, or has another size than when it was indexed.
        """
        archive, offset, size = self._places[image_id]
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
            again = "put it back" if offset == 0 else f"make it again by `snakemake --cores all {archive}`"
            raise UserError(
                f"{archive}: {error.strerror}, but {image_id} lies in it; {again}, then run the workflow "
                "again"
            ) from error
        if len(data) != size and offset == 0:
            raise UserError(
                f"{archive}: has changed since it was ingested; run the workflow again with --forcerun ingest"
            )
        if len(data) != size:
            raise UserError(
                f"{archive}: ends before {image_id}; delete it, make it again by `snakemake --cores all "
                f"{archive}`, then run the workflow again"
            )
        return data

    def open(self, image_id: str) -> Image.Image:
        """Return the image in RGB, upright, at full size."""
        return decode(self.read(image_id))

    def resized(self, image_id: str, pixels: int, min_pixels: int) -> Image.Image:
        """Return the image within a pixel budget, as `fit` has it."""
        return fit(self.open(image_id), pixels, min_pixels)


def digests(images: "pa.Table") -> dict[str, str]:
    """Return the digest of each image's bytes, as ingest took it, by image_id."""
    found = dict(zip(images["image_id"].to_pylist(), images["sha256"].to_pylist(), strict=True))
    assert all(found.values()), "images without a digest cannot be told apart"
    return found
