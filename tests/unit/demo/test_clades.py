"""The synthetic clades: sizes, names and traits."""

import pytest

from vltaxon.demo.clades import world


@pytest.mark.parametrize(
    ("clade", "sizes"),
    [
        ("plants", [1, 4, 6, 9, 16, 32, 72]),
        ("animals", [1, 4, 6, 9, 14, 24, 48]),
        ("birds", [5, 9, 16, 32]),
    ],
)
def test_sizes(clade: str, sizes: list[int]) -> None:
    assert [len(world()[clade].taxa(k + 1)) for k in range(len(sizes))] == sizes


def test_names_are_unique_across_trees_and_ranks() -> None:
    taxa = [t for c in world().values() for k in range(len(c.ranks)) for t in c.taxa(k + 1)]
    assert len({t.casefold() for t in taxa}) == len(taxa)
    epithets = [s.name.split()[1] for c in ("plants", "animals") for s in world()[c].species]
    assert len(set(epithets)) == len(epithets)


def test_every_taxon_has_one_parent() -> None:
    for clade in world().values():
        parents: dict[str, set[tuple[str, ...]]] = {}
        for species in clade.species:
            for k, taxon in enumerate(species.lineage):
                parents.setdefault(taxon, set()).add(species.lineage[:k])
        assert all(len(p) == 1 for p in parents.values())


def test_species_are_visibly_distinct() -> None:
    for clade in world().values():
        assert len({s.traits for s in clade.species}) == len(clade.species)
