"""What recipes learn from, to tell test images of species that were seen in training, in any data set."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vltaxon import schemas
from vltaxon.partition import allowed_parts, training_images
from vltaxon.provenance import read_frame
from vltaxon.tasks.scoring import Sources
from vltaxon.taxonomy import normalise

_HEX = 64  # digits of the digest of an image's bytes; marks of how it is read may follow


@dataclass(frozen=True)
class Learnt:
    """The training images of a data set: their leaves, the keys of these, and digests of their bytes."""

    dataset: str
    leaves: frozenset[str]
    keys: frozenset[str]
    digests: frozenset[str]

    @classmethod
    def read(cls, sources: Sources) -> "Learnt | None":
        """Return what recipes may learn from, None where nothing is trained."""
        for name, parts in sources.partition.items():
            images = sources.trained[name]
            rows = training_images(images, parts, allowed_parts("all"))
            digest = dict(read_frame(images, schemas.IMAGES, ["image_id", "sha256"]).iter_rows())
            part_of = read_frame(parts, schemas.PARTS)
            leaves = part_of.filter(pl.col("part").is_in(allowed_parts("all")))["leaf"].to_list()
            digests = frozenset(digest[image][:_HEX] for image, _ in rows)
            return cls(name, frozenset(leaves), frozenset(map(_key, leaves)), digests)
        return None

    def saw(self, dataset: str, images: pl.DataFrame) -> NDArray[np.bool_]:
        """Return which test images show what training showed: a species by its name, or the very photo.

        Args:
            dataset: of the images.
            images: their leaf and sha256.
        """

        def known(leaf: str) -> bool:
            return leaf in self.leaves if dataset == self.dataset else _key(leaf) in self.keys

        leaves = images["leaf"].map_elements(known, pl.Boolean)
        return (leaves | self._same(images)).to_numpy().astype(bool)

    def copies(self, dataset: str, images: pl.DataFrame) -> int:
        """Return how many test images are byte for byte training images of another data set.

        Args:
            dataset: of the images; within one, ingest takes copies out of the training split.
            images: sha256 of test images.
        """
        return 0 if dataset == self.dataset else int(self._same(images).sum())

    def told(self, number: int) -> str:
        """Return in words that test images were trained on.

        Args:
            number: how many.
        """
        return (
            f"{number} of the test images are byte for byte training images of {self.dataset}, which recipes "
            "learn from; they count as seen"
        )

    def _same(self, images: pl.DataFrame) -> pl.Series:
        return images["sha256"].str.slice(0, _HEX).is_in(sorted(self.digests)).fill_null(False)


def _key(leaf: str) -> str:
    """Return what a leaf is compared by across data sets: its most specific taxon, however it is written."""
    return normalise(leaf.rpartition(" > ")[2].replace("_", " "))
