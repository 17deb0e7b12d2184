"""Readers of raw data: one file per source, with all that is peculiar to its layout.

A new source is a new file here, whose name is what `source:` says in the data set's file. It has what
`Reader` has. It is imported while the Snakefile is parsed, so heavy imports (pyarrow, polars) stand inside
its functions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from vltaxon.config.datasets import RawDataset
from vltaxon.data.labels import Labelled, Tree

if TYPE_CHECKING:
    from vltaxon.data.archives import Archive, Folder


class Reader(Protocol):
    """What a module of this folder has.

    Attributes:
        TAKES: the key under which each split names its images.
        NEEDS: keys of the data set's file that it needs and that other sources refuse, each with what is said
            where a file has it otherwise.
    """

    TAKES: Literal["archive", "folder", "table"]
    NEEDS: Mapping[str, str]

    def check(self, dataset: RawDataset) -> None:
        """Refuse a data set's file that the reader cannot use, by a ValueError that begins with the key."""

    def tables(self, dataset: RawDataset) -> list[Path]:
        """Return the files of labels that it reads beside the images."""

    def read(
        self, dataset: RawDataset, places: "Mapping[str, Archive | Folder]"
    ) -> tuple[Tree, list[Labelled]]:
        """Read the labels of a data set's splits.

        Args:
            dataset: its file, checked.
            places: where the images of each split lie.

        Returns:
            Lineage of every leaf, and the labelled images of the splits.

        Raises:
            UserError: a file is missing or damaged, a label is no sound one, or the taxa form no tree.
        """
