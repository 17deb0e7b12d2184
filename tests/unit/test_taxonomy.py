import pytest

from vltaxon.taxonomy import Taxonomy, normalise

TREE = Taxonomy(
    ("genus", "species"),
    {
        "Rosa canina": ("Rosa", "Rosa canina"),
        "Acer rubrum": ("Acer", "Acer rubrum"),
        "Sayornis": ("Sayornis", None),
    },
)


@pytest.mark.parametrize(
    "spelt",
    ["Rosa canina", "rosa CANINA", "  Rosa \n canina ", "Rosa canina.", "Rosa\u00a0canina", "Rosa canina ."],
)
def test_spellings_of_one_name(spelt: str) -> None:
    assert normalise(spelt) == "rosa canina"


def test_normalise_composes_accents_and_keeps_hyphens() -> None:
    assert normalise("Caf\u0065\u0301-au-lait") == "caf\u00e9-au-lait"


def test_find_goes_by_the_deepest_name_and_refuses_what_is_unknown() -> None:
    assert TREE.find("rosa Canina.") == "Rosa canina"
    assert TREE.find("Sayornis") == "Sayornis"
    assert TREE.find("Rosa") is None


def test_find_refuses_a_name_of_two_leaves() -> None:
    twice = Taxonomy(("order", "species"), {"a": ("X", "Same"), "b": ("Y", "same")})
    assert twice.find("Same") is None


def test_labels_leave_missing_ranks_out() -> None:
    assert TREE.labels(2) == ["Acer rubrum", "Rosa canina"]
    assert TREE.taxon("Sayornis", 2) is None
