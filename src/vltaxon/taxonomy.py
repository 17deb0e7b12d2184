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

LONGEST = 200  # characters of a name
MARK = re.compile(r"<[^<>\s]+>")  # <think>, <|im_end|>, <image>: our marks, and the tokenizers'
_SPACES = re.compile(r"\s+")
_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # makes a text look like another
# An accented letter, a sign of a hybrid or an apostrophe of UTF-8, read as Latin-1 or Windows-1252
_MISREAD = re.compile("[\u00c2\u00c3][\u00a0-\u00bf]|\u00c3\u2014|\u00e2\u20ac[\u02dc\u201c\u201d\u2122]")
# Not seen, though Unicode calls them no characters of format: joiners, fillers, selectors of variants.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def normalise(name: str) -> str:
    """Return the key under which two spellings of a taxon are the same.

    NFC, case-folded, without characters that are not seen (soft hyphens, zero-width ones, marks of
    direction), single spaces, outer spaces and one final full stop dropped. The sign of a hybrid is an x.
    """
    if not name.isprintable():
        name = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    if not name.isascii():
        name = _UNSEEN.sub("", name).replace("\u00d7", " x ")
        if (
            len(name) <= 5 * LONGEST
        ):  # a longer text is no name, and takes NFC a time that grows as its square
            name = unicodedata.normalize("NFC", name)
    key = _SPACES.sub(" ", name.casefold()).strip()
    return key.removesuffix(".").rstrip()


def spell_out(name: str) -> str:
    """Return a name in quotes, with the code points of what is not plain in it, as `"Ros\u00e9" (U+00E9)`."""
    odd = dict.fromkeys(f"U+{ord(letter):04X}" for letter in name if not " " <= letter <= "~")
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)
    return f'"{shown}"' + (f" ({', '.join(odd)})" if odd else "")


def find_flaw(name: str) -> str | None:
    """Return why a text can name no taxon, None where it can."""
    if not normalise(name):
        return "is blank"
    if len(name) > LONGEST:
        return f"is longer than {LONGEST} characters"
    for letter in name:
        if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or _REORDERING.match(letter):
            return f"holds the control character U+{ord(letter):04X}"
    if "\ufffd" in name:
        return "holds U+FFFD, which stands for a letter that was lost"
    if (letters := _MISREAD.search(name)) is not None:
        return f"holds {spell_out(letters.group())}, as UTF-8 does that was read as Latin-1"
    if (mark := MARK.search(name)) is not None:
        return f"holds {mark.group()}, which is read as a mark of a prompt or an answer"
    return None


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
        """Return the taxon of a leaf's lineage at a 1-based level, None where the rank is missing."""
        return self.lineages[leaf][level - 1]

    def name(self, leaf: str) -> str:
        """Return the displayed name of a leaf: the most specific taxon of its lineage."""
        return next(taxon for taxon in reversed(self.lineages[leaf]) if taxon is not None)

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for leaf in self.lineages:
            found.setdefault(normalise(self.name(leaf)), []).append(leaf)
        return found

    def find(self, name: str) -> str | None:
        """Return the leaf that a written name means, by `normalise`; None where unknown or ambiguous."""
        leaves = self._by_key.get(normalise(name), [])
        return leaves[0] if len(leaves) == 1 else None  # a name shared by two leaves identifies neither

    def place(self, name: str) -> tuple[str | None, ...] | None:
        """Return the taxa that a written name of a leaf tells, root first; None where it is no leaf's.

        Of homonyms these are the taxa that they share: the name itself, and what is above both.
        """
        leaves = self._by_key.get(normalise(name))
        if leaves is None:
            return None
        levels = zip(*(self.lineages[leaf] for leaf in leaves), strict=True)
        return tuple(taxa[0] if len(set(taxa)) == 1 else None for taxa in levels)
