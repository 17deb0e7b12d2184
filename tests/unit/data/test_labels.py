"""Lineages of the sources: missing ranks, and taxa that form no tree."""

import pytest

from vltaxon.data.labels import lineage, tree
from vltaxon.errors import UserError

RANKS = ("order", "genus", "species")


def test_empty_cells_are_missing_ranks() -> None:
    assert lineage({"order": " ", "genus": None, "species": " S x "}, RANKS, "row 1") == (None, None, "S x")


@pytest.mark.parametrize(
    ("row", "problem"),
    [({"order": "O", "species": "s"}, 'no rank "genus"'), ({"order": "O", "genus": "G", "species": ""}, "leaf has no name")],
)
def test_bad_rows(row: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=f"row 1.*{problem}"):
        lineage(row, RANKS, "row 1")


def test_a_tree() -> None:
    paths = [("O", "G", "G x"), ("O", "G", "G y"), ("O", None, "Z z"), (None, "H", "H h")]
    assert tree([("here", path) for path in paths], RANKS) == {path[-1]: path for path in paths}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (("P", "G", "G y"), 'genus "G" has two lineages: O > G (one), and P > G (two)'),
        ((None, "G", "G y"), 'genus "G" has two lineages: O > G (one), and ? > G (two)'),
        (("O", "g", "g y"), 'genus "g" has two lineages: O > G (one), and O > g (two)'),
    ],
    ids=["two parents", "a parent and none", "two spellings"],
)
def test_no_tree(other: tuple[str | None, ...], words: str) -> None:
    with pytest.raises(UserError) as caught:
        tree([("one", ("O", "G", "G x")), ("two", other)], RANKS)
    assert str(caught.value) == words
