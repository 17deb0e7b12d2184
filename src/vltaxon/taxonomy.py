"""Taxa, ranks and lineages: the tree that every question, answer and metric refers to."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_SPACES = re.compile(r"\s+")


def normalise(name: str) -> str:
    """Return the key under which two spellings of a taxon are the same.

    NFC, case-folded, single spaces, outer spaces and one final full stop dropped.
    """
    key = _SPACES.sub(" ", unicodedata.normalize("NFC", name).casefold()).strip()
    return key.removesuffix(".").rstrip()


@dataclass(frozen=True)
class Taxonomy:
    """A data set's tree: `lineages` maps each leaf to its taxa, root first; a missing rank is None."""

    ranks: tuple[str, ...]
    lineages: Mapping[str, tuple[str | None, ...]]

    @classmethod
    def from_table(cls, taxa: "pa.Table") -> "Taxonomy":
        """Build from a `taxa` table (one row per leaf and level, schema `vltaxon.schemas.TAXA`)."""
        import polars as pl

        table = pl.DataFrame(taxa).sort("level", maintain_order=True)
        ranks = table.unique("level", keep="last", maintain_order=True)["rank"]
        paths = table.pivot("level", index="leaf", values="taxon", aggregate_function="last")
        leaves = pl.DataFrame(taxa)["leaf"].unique(maintain_order=True)
        lineages = {leaf: path for leaf, *path in paths.iter_rows()}
        return cls(tuple(ranks), {leaf: tuple(lineages[leaf]) for leaf in leaves})

    @classmethod
    def read(cls, path: Path | str) -> "Taxonomy":
        """Read `results/data/{dataset}/taxa.parquet`."""
        from vltaxon import provenance, schemas

        return cls.from_table(provenance.read_parquet(path, schemas.TAXA))

    @property
    def leaves(self) -> Sequence[str]:
        """Return all leaves, sorted."""
        return sorted(self.lineages)

    def labels(self, level: int) -> list[str]:
        """Return the distinct taxa of a 1-based level, sorted by name."""
        return sorted({taxon for path in self.lineages.values() if (taxon := path[level - 1]) is not None})

    def taxon(self, leaf: str, level: int) -> str | None:
        """Return the taxon of a leaf's lineage at a level, None where the rank is missing.

        Args:
            leaf: name of the leaf.
            level: 1-based level, 1 is the root.
        """
        return self.lineages[leaf][level - 1]

    def name(self, leaf: str) -> str:
        """Return the displayed name of a leaf: the most specific taxon of its lineage."""
        return next(taxon for taxon in reversed(self.lineages[leaf]) if taxon is not None)

    @cached_property
    def _by_key(self) -> dict[str, str | None]:
        leaves: dict[str, str | None] = {}
        for leaf in self.lineages:
            key = normalise(self.name(leaf))
            leaves[key] = None if key in leaves else leaf  # a name shared by two leaves identifies neither
        return leaves

    def find(self, name: str) -> str | None:
        """Return the leaf that a written name means, by `normalise`; None where unknown or ambiguous."""
        return self._by_key.get(normalise(name))
