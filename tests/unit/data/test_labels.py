"""Lineages of the sources: missing ranks, and taxa that form no tree."""

import pytest

from vltaxon.data.labels import lineage, tree
from vltaxon.errors import UserError

RANKS = ("order", "genus", "species")


def test_empty_cells_are_missing_ranks() -> None:
    assert lineage({"order": " ", "genus": None, "species": " S x "}, RANKS, "row 1") == (None, None, "S x")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"order": "O", "species": "s"}, 'no rank "genus"'),
        ({"order": "O", "genus": "G", "species": ""}, "leaf has no name"),
    ],
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


def test_a_leaf_may_be_missing() -> None:
    assert lineage({"order": "O", "genus": "", "species": ""}, RANKS, "row 1", partial=True) == (
        "O",
        None,
        None,
    )
    with pytest.raises(UserError, match="row 1: names no taxon"):
        lineage(dict.fromkeys(RANKS, " "), RANKS, "row 1", partial=True)


def test_leaves_of_one_name_are_called_by_their_lineages() -> None:
    ranks = ("kingdom", "genus", "species")
    paths = [
        ("P", "Aa", "Aa x"),
        ("A", "Aa", None),
        ("P", "Aa", None),
        ("P", "Bb", "Bb"),
        ("P", "Bb", None),
        ("A", None, "C c"),
    ]
    assert tree([(str(n), path) for n, path in enumerate(paths)], ranks) == {
        "Aa x": paths[0],
        "A > Aa": paths[1],
        "P > Aa": paths[2],
        "P > Bb > Bb": paths[3],
        "P > Bb": paths[4],
        "C c": paths[5],
    }


def test_homonyms_need_two_kingdoms() -> None:
    with pytest.raises(UserError, match=r'genus "Aa" has two lineages: P > Aa \(1\), and \? > Aa \(2\)'):
        tree([("1", ("P", "Aa", None)), ("2", (None, "Aa", "Aa x"))], ("kingdom", "genus", "species"))
