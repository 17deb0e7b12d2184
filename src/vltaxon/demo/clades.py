"""Synthetic clades: three trees of invented taxa, whose species inherit visible traits.

The trees stand in for the benchmarks: plants and animals (seven ranks, as in iNat21) and birds (four ranks,
as in CUB-200-2011, where the species is a common name). Every rank controls one visible trait, so that
relatives look alike and every species is distinct. The stems of the names (`Vlozim-`, `Jaxdop-`) belong to no
real taxon. The trees are the same whatever the seed of a run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

SEVEN_RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
BIRD_RANKS = ("order", "family", "genus", "species")

_STEM_HEADS = "bex dwi fro gla jax kwo lyx mub nop pwe qua rix sko tuv vlo wix yab zor".split()  # noqa: SIM905
_STEM_TAILS = "bam dop fiz gub hax jol kez lub moz nix pog quil rum tep vex wub yad zim".split()  # noqa: SIM905
_BIRD_NOUNS = """
    Tolwick Purrelet Dabbin Skerrow Chottle Fennick Grubbin Hossle
    Jibbet Klooter Mizzow Noddock Pibbler Rasket Yafflet Zebbow
""".split()  # noqa: SIM905
_BIRD_ADJECTIVES = """
    Brindled Sooty Gilded Mossy Ember-capped Dappled Frosted Inky
    Lilac Ochre Pearly Mud-legged Russet Saffron Tawny Umber
    Velvet Wan Amber Blotched Chalky Dusky Flame-browed Glossy
    Hazel Ivory Jaded Kindled Milky Nutty Thorn-billed Rosy
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Species:
    """A leaf of a clade.

    Attributes:
        lineage: its taxa, from the root down to the species.
        traits: for each rank, the value of the visible trait that the rank controls.
        clade: name of its clade.
    """

    lineage: tuple[str, ...]
    traits: tuple[int, ...]
    clade: str

    @property
    def name(self) -> str:
        """The leaf's name as displayed: a binomial, or a common name for birds."""
        return self.lineage[-1]


@dataclass(frozen=True)
class Clade:
    """A tree of taxa, given by the lineages of its species, in the order in which their names were made."""

    name: str
    ranks: tuple[str, ...]
    species: tuple[Species, ...]

    def taxa(self, level: int) -> list[str]:
        """List the distinct taxa of a 1-based level, sorted."""
        return sorted({species.lineage[level - 1] for species in self.species})


@dataclass(frozen=True)
class _Blueprint:
    """What a clade is grown from; each tuple has an entry for each rank.

    Attributes:
        ranks: names of the ranks, from the root down.
        sizes: number of taxa of the rank.
        trait_values: how many values the rank's trait can take; a parent has at most as many children.
        suffixes: endings of the rank's names; birds' species have none.
    """

    ranks: tuple[str, ...]
    sizes: tuple[int, ...]
    trait_values: tuple[int, ...]
    suffixes: tuple[str, ...]


_BLUEPRINTS = {
    "plants": _Blueprint(
        ranks=SEVEN_RANKS,
        sizes=(1, 4, 6, 9, 16, 32, 72),
        trait_values=(1, 4, 6, 3, 8, 4, 4),
        suffixes=("ae", "phyta", "opsida", "ales", "aceae", "a", "ensis"),
    ),
    "animals": _Blueprint(
        ranks=SEVEN_RANKS,
        sizes=(1, 4, 6, 9, 14, 24, 48),
        trait_values=(1, 4, 6, 3, 8, 4, 4),
        suffixes=("alia", "zoa", "oidea", "ida", "idae", "us", "atus"),
    ),
    "birds": _Blueprint(
        ranks=BIRD_RANKS,
        sizes=(5, 9, 16, 32),
        trait_values=(5, 8, 4, 4),
        suffixes=("iformes", "inidae", "ornis"),
    ),
}


def world() -> dict[str, Clade]:
    """Return the three clades by name: `plants`, `animals`, `birds`. Always the same ones."""
    return {clade.name: clade for clade in _all_clades()}


@cache
def _all_clades() -> tuple[Clade, ...]:
    rng = np.random.default_rng(2601_14610)
    stems = iter(rng.permutation([head + tail for head in _STEM_HEADS for tail in _STEM_TAILS]).tolist())
    return tuple(_grow(name, stems, rng) for name in _BLUEPRINTS)


def _grow(clade: str, stems: Iterator[str], rng: np.random.Generator) -> Clade:
    """Grow a clade rank by rank: children spread evenly over parents, siblings with distinct traits."""
    blueprint = _BLUEPRINTS[clade]
    # Drawn for the other clades too: the names of all taxa depend on it.
    adjectives = iter(rng.permutation(_BIRD_ADJECTIVES).tolist())
    nouns: dict[str, str] = {}  # of each genus of birds

    def name_taxon(rank: str, suffix: str, parent: str) -> str:
        if rank != "species":
            return (next(stems) + suffix).capitalize()
        if clade != "birds":
            return f"{parent} {next(stems)}{suffix}"
        noun = nouns.setdefault(parent, _BIRD_NOUNS[len(nouns) % len(_BIRD_NOUNS)])
        return f"{next(adjectives)} {noun}"

    # Lineage and traits of each taxon of a rank, at first of the root above all.
    taxa: list[tuple[tuple[str, ...], tuple[int, ...]]] = [((), ())]
    for depth, rank in enumerate(blueprint.ranks):
        suffix = blueprint.suffixes[depth] if depth < len(blueprint.suffixes) else ""
        size = blueprint.sizes[depth]
        counts = np.full(len(taxa), size // len(taxa))
        counts[rng.permutation(len(taxa))[: size % len(taxa)]] += 1
        children = []
        for (lineage, traits), count in zip(taxa, counts, strict=True):
            parent = lineage[-1] if lineage else ""
            for value in rng.permutation(blueprint.trait_values[depth])[:count].tolist():
                children.append(((*lineage, name_taxon(rank, suffix, parent)), (*traits, int(value))))
        taxa = children
    return Clade(clade, blueprint.ranks, tuple(Species(lineage, traits, clade) for lineage, traits in taxa))
