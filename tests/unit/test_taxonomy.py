import re

import pytest

from vltaxon.taxonomy import Taxonomy, find_flaw, normalise, spell_out

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
    [
        "Rosa canina",
        "rosa CANINA",
        "  Rosa \n canina ",
        "Rosa canina.",
        "Rosa\u00a0canina",
        "Rosa canina .",
        "Ro\u00adsa canina",
        "\ufeffRosa can\u200bina",
        "\u202aRosa canina\u202c",
        "Rosa canina\u200e.",
        "Rosa\u3164 canina\ufe0f",
    ],
)
def test_spellings_of_one_name(spelt: str) -> None:
    assert normalise(spelt) == "rosa canina"


def test_normalise_composes_accents_and_keeps_hyphens() -> None:
    assert normalise("Caf\u0065\u0301-au-lait") == "caf\u00e9-au-lait"


@pytest.mark.parametrize("spelt", ["Rosa \u00d7 alba", "Rosa x alba", "Rosa \u00d7alba", "rosa X Alba."])
def test_the_sign_of_a_hybrid_is_an_x(spelt: str) -> None:
    assert normalise(spelt) == "rosa x alba"
    assert normalise("Malcolm x street") == "malcolm x street" and normalise("\u00d7") == "x"


def test_what_is_not_plain_in_a_name_is_shown_by_its_code_points() -> None:
    assert spell_out("Rosa alba") == '"Rosa alba"'
    assert spell_out("Ros\u0430\u200b") == '"Ros\u0430\\u200b" (U+0430, U+200B)'


def test_the_place_of_homonyms_is_what_they_share() -> None:
    paths = {"k > a > N": ("K", "a", "N"), "k > b > N": ("K", "b", "N"), "M": ("K", "b", "M")}
    twice = Taxonomy(("kingdom", "family", "genus"), paths)
    assert (twice.find("n"), twice.place("n")) == (None, ("K", None, "N"))
    assert (twice.find("m"), twice.place("m"), twice.place("K")) == ("M", ("K", "b", "M"), None)


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


@pytest.mark.parametrize(
    ("name", "flaw"),
    [
        ("", "is blank"),
        (" . ", "is blank"),
        ("\u200b", "is blank"),
        ("x" * 201, "is longer than 200 characters"),
        ("Rosa\0", r"U\+0000"),
        ("\x1b[31mRosa", r"U\+001B"),
        ("Rosa\ncanina", r"U\+000A"),
        ("Rosa\u202eaninac", r"U\+202E"),
        ("Rosa\u2028canina", r"U\+2028"),
        ("Rosa \ud800", r"U\+D800"),
        ("Ros\ufffd", r"U\+FFFD, which stands for a letter that was lost"),
        ("Berosus R\u00c3\u00a9gimbart", r"\(U\+00C3, U\+00A9\), as UTF-8 does that was read as Latin-1"),
        ("Rosa \u00c3\u2014 alba", "read as Latin-1"),
        ("Anna\u00e2\u20ac\u2122s Hummingbird", "read as Latin-1"),
        ("Rosa <|im_end|>", r"holds <\|im_end\|>"),
        ("<image>", "holds <image>"),
        ("Rosa</think>", "holds </think>"),
    ],
)
def test_what_can_be_no_name(name: str, flaw: str) -> None:
    found = find_flaw(name)
    assert found is not None and re.search(flaw, found)


@pytest.mark.parametrize(
    "name",
    [
        "Rosa canina",
        "MA\u00c7\u00c3 \u00c2NGELO",
        "\u00c3o",
        "x" * 200,
        "a < b > c",
        "\u0645\u06cc\u200c\u062e\u0648",
        "<3",
        "Caf\u0065\u0301",
    ],
)
def test_what_can_be_a_name(name: str) -> None:
    assert find_flaw(name) is None
