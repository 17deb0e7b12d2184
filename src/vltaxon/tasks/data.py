"""Tasks that bring raw data in: downloads, archives, images and taxa, and the files of the embedded demo."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

from vltaxon.code_versions import code_version
from vltaxon.config.base import HOW, RawFile
from vltaxon.config.datasets import RawDataset
from vltaxon.config.experiment import Demo
from vltaxon.tasks.base import Read, ReadMany, Task, Write, WriteMany


class DownloadTask(Task):
    """A raw file, identified by its checksum alone: a mirror or a moved local copy runs nothing again."""

    module: ClassVar = None  # a verified file is the same, whatever code got it
    md5: str | None
    sha256: str | None
    file: Annotated[RawFile, HOW]
    licence: Annotated[str, HOW]
    unpacked: Annotated[Path | None, HOW]  # folder that it will be unpacked to, if it will
    state: Annotated[Path, HOW]
    target: Write


class UnpackTask(Task):
    """An archive of images, to be unpacked into a tar with an index of its members."""

    module: ClassVar = "vltaxon.data.archives"
    archive: Read
    tar: Write
    index: Write


class IngestTask(Task):
    """A data set: its raw files in, its taxa and images out.

    Of the readers in `vltaxon.data.sources` only its own counts as its code: an edit of another one does not
    read the data set anew.
    """

    module: ClassVar = "vltaxon.data.ingest"
    dataset: RawDataset
    seed: int
    archives: Annotated[Path, HOW]  # folder of the unpacked archives
    threads: Annotated[int, HOW] = 1
    tars: ReadMany
    indexes: ReadMany
    tables: ReadMany
    taxa: Write
    images: Write
    rejected: Write

    def shaping(self) -> dict[str, Any]:
        """Return the values that run it again when they change, with the code of its reader."""
        shaping = super().shaping()
        shaping["code"] += f" {code_version(self.dataset.reader.__name__)}"
        return shaping


class DemoArchivesTask(Task):
    """The synthetic clades, drawn into archives like those of iNat21 and CUB-200."""

    module: ClassVar = "vltaxon.demo.archives"
    sizes: Demo
    seed: int
    archives: WriteMany
    cub: Write
    classes: Write


class DemoSiglipTask(Task):
    """The tiny dual encoder, trained from nothing."""

    module: ClassVar = "vltaxon.demo.tiny_siglip"
    config: Write
    weights: Write


class DemoBaseTask(Task):
    """The tiny vision-language model, pre-trained from its seed: made once, and shipped with the package."""

    module: ClassVar = None
    weights: Write
