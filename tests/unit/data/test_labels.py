"""Lineages of the sources: missing ranks, and taxa that form no tree."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from vltaxon.config.datasets import RawDataset, Split
from vltaxon.data import labels
from vltaxon.data.labels import Lineage, Tree, lineage
from vltaxon.demo.clades import world
from vltaxon.errors import UserError

RANKS = ("order", "genus", "species")
REFERENCE = Path(os.environ.get("VLTAXON_REFERENCE", Path(__file__).parents[4] / "shared" / "reference"))


def tree(paths: list[tuple[str, Lineage]], ranks: tuple[str, ...] = RANKS, **how: Any) -> Tree:
    dataset = RawDataset(source="folder", ranks=ranks, test=Split(table=Path("t.csv")), **how)
    return labels.tree(paths, dataset)


def rows(*paths: Lineage) -> list[tuple[str, Lineage]]:
    return [(f"line {number}", path) for number, path in enumerate(paths, start=1)]


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
    assert tree([("here", path) for path in paths]) == {path[-1]: path for path in paths}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            ("P", "G", "G y"),
            'genus "G" has two lineages: O > G (one), and P > G (two); '
            "if these are two taxa of one name, `homonyms: allow` tells them apart",
        ),
        (
            (None, "G", "G y"),
            'genus "G" has two lineages: O > G (one), and ? > G (two); give both the same ranks above',
        ),
    ],
    ids=["two parents", "a parent and none"],
)
def test_no_tree(other: tuple[str | None, ...], words: str) -> None:
    with pytest.raises(UserError) as caught:
        tree([("one", ("O", "G", "G x")), ("two", other)])
    assert str(caught.value) == words


@pytest.mark.parametrize(
    "second",
    [
        "plantae",
        "Plantae.",
        "Plan\u200btae",
        "Plan\u00adtae",
        "Pl\u0061ntae\ufe0f",
        " Plantae\u00a0",
        "PLANTAE",
    ],
)
def test_the_first_spelling_of_a_taxon_is_shown_and_the_others_are_noted(second: str) -> None:
    ranks = ("kingdom", "species")
    found = tree(rows(("Plantae", "Rosa canina"), (second, "Acer rubrum"), (second, "Acer rubrum")), ranks)
    assert found == {"Rosa canina": ("Plantae", "Rosa canina"), "Acer rubrum": ("Plantae", "Acer rubrum")}
    assert found.called[second, "Acer rubrum"] == "Acer rubrum"
    [note] = found.notes
    assert note.startswith("kingdom: spelt as the first of its taxon is (2 cells)\n  2 x ")
    assert second.isascii() or "(U+" in note


def test_a_composed_letter_and_the_sign_of_a_hybrid_are_one_spelling() -> None:
    found = tree(
        rows(
            ("O", "Isoe\u0308tes", "Isoe\u0308tes \u00d7 eatonii"),
            ("O", "Iso\u00ebtes", "Iso\u00ebtes x eatonii"),
            ("O", "Iso\u00ebtes", "Iso\u00ebtes \u00d7eatonii"),
        )
    )
    assert found == {"Iso\u00ebtes \u00d7 eatonii": ("O", "Iso\u00ebtes", "Iso\u00ebtes \u00d7 eatonii")}


def test_as_written_too_a_taxon_has_one_spelling() -> None:
    found = tree(rows(("O", "G", "G x"), ("o", "G", "G y")), names="as_written")
    assert found["G y"] == ("O", "G", "G y")


OAKS = ("Quercus robur", "Quercus robur L.", "Quercus robur subsp. robur", "Quercus sp.", "Quercus cf. robur")


def test_no_option_is_an_ancestor_a_descendant_or_a_synonym_of_another() -> None:
    found = tree(rows(*(("Fagales", "Quercus", oak) for oak in OAKS), ("Fagales", "Quercus", "Quercus")))
    assert found == {
        "Quercus robur": ("Fagales", "Quercus", "Quercus robur"),
        "Quercus": ("Fagales", "Quercus", None),
    }
    assert [found.called["Fagales", "Quercus", oak] for oak in OAKS] == 3 * ["Quercus robur"] + 2 * [
        "Quercus"
    ]
    assert found.notes == [
        'species: names no taxon and is missing (3 cells)\n  1 x "Quercus"\n  1 x "Quercus cf. robur"'
        '\n  1 x "Quercus sp."',
        'species: read without authors and doubts (1 cell)\n  1 x "Quercus robur L.": "Quercus robur"',
        'species: cut to its species (1 cell)\n  1 x "Quercus robur subsp. robur": "Quercus robur"',
    ]


def test_a_genus_among_vernacular_names_is_kept_as_in_cub() -> None:
    paths = [("Passeriformes", "Sayornis", "Sayornis"), ("Passeriformes", "Sayornis", "Black Phoebe")]
    assert list(tree(rows(*paths)).values()) == paths


def test_a_rank_below_the_species_takes_what_is_cut() -> None:
    ranks = ("genus", "species", "subspecies")
    found = tree(
        rows(("Quercus", "Quercus robur subsp. robur L.", None), ("Quercus", "Quercus robur", None)), ranks
    )
    assert list(found.values()) == [
        ("Quercus", "Quercus robur", "Quercus robur subsp. robur"),
        ("Quercus", "Quercus robur", None),
    ]


def test_names_as_written_are_left_alone() -> None:
    paths = [("Fagales", "Quercus", oak) for oak in OAKS]
    assert list(tree(rows(*paths), names="as_written").values()) == paths


@pytest.mark.parametrize(
    ("one", "two", "why"),
    [
        (
            "Passer domesticus",
            "Passer domesticus Linnaeus",
            "seem to be a taxon and the same with its author",
        ),
        ("Canis lupus", "Canis lupus familiaris", "or a part of it"),
        ("Rosa canina", "Rosa canina 'Abbotswood'", "or a part of it"),
        ("House sparrow", "House sparrow (Male)", "or a part of it"),
        ("Rosa canina", "Rosa_canina", "look the same"),
        ("Ardea alba", "Ardea albus", "seem to be one species in two genders"),
        ("Black-footed Albatross", "Black footed Albatross", "look the same"),
        ("Anna's Hummingbird", "Anna\u2019s Hummingbird", "look the same"),
        ("Rosa canina", "Ros\u0430 canina", 'and "Ros\u0430 canina" (U+0430) (line 2) look the same'),
    ],
)
def test_labels_that_seem_one_without_evidence_are_refused(one: str, two: str, why: str) -> None:
    for names in ((one, two), (two, one)):
        with pytest.raises(UserError, match="would be options of one question"):
            tree(rows(*((name,) for name in names)), ("label",))
    with pytest.raises(UserError) as caught:
        tree(rows((one,), (two,)), ("label",))
    assert why in str(caught.value) and f'label "{one}" (line 1)' in str(caught.value)
    assert len(tree(rows((one,), (two,)), ("label",), names="as_written")) == 2


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Red fox", "Red fox squirrel"),
        ("African elephant", "African elephant shrew"),
        ("Cedar", "Cedar Waxwing"),
        ("fox", "fox squirrel"),
        ("a__b", "a b c"),
        ("Quercus robur", "Quercus robur \u00d7 petraea"),
    ],
)
def test_names_that_begin_alike_are_two(one: str, two: str) -> None:
    assert list(tree(rows((one,), (two,)), ("label",))) == [one, two]


def test_the_names_of_the_demo_are_left_alone() -> None:
    for clade in world().values():
        paths = [species.lineage for species in clade.species]
        found = tree(rows(*paths), clade.ranks)
        assert list(found.values()) == paths and not found.notes


MISSING = ["NA", "nan", "N/A", "NULL", "None", "unknown", "unidentified", "unclassified", "incertae sedis", "not_classified"]  # fmt: skip


@pytest.mark.parametrize(
    "word", [*MISSING, "Incertae_Sedis", "n.a.", "sp.", "?", "\u200b", "unclassified Fagales"]
)
def test_a_word_for_nothing_is_a_missing_rank(word: str) -> None:
    found = tree(
        rows(("Fagales", word, "Quercus robur"), ("Fagales", word, word), ("Fagales", "Fagus", None))
    )
    assert found == {
        "Quercus robur": ("Fagales", None, "Quercus robur"),
        "Fagales": ("Fagales", None, None),
        "Fagus": ("Fagales", "Fagus", None),
    }
    assert [note.partition("\n")[0] for note in found.notes] == [
        "genus: names no taxon and is missing (2 cells)",
        "species: names no taxon and is missing (1 cell)",
    ]


def test_a_taxon_that_is_called_like_nothing_can_be_kept() -> None:
    named = rows(("Aves", "Na", "Na unknown"), ("Aves", "blank", "blank"))
    assert tree(named, missing=["blank", "n/a"]) == {
        "Na unknown": ("Aves", "Na", "Na unknown"),
        "Aves": ("Aves", None, None),
    }
    with pytest.raises(
        UserError, match=r'1 labels name no taxon: line 1 \("NA", "-"\); leave these rows out'
    ):
        tree(rows(("NA", "-")), ("genus", "species"))


EPITHETS = rows(
    ("Rosales", "Rosa", "alba"), ("Strigiformes", "Tyto", "alba"), ("Rosales", "Rosa L.", "canina L.")
)


def test_epithets_are_put_behind_their_genus_or_asked_about() -> None:
    assert list(tree(EPITHETS, species="binomial")) == ["Rosa alba", "Tyto alba", "Rosa canina"]
    with pytest.raises(
        UserError, match=r"species: all are single words in lower case \(alba\).*`species: binom"
    ):
        tree(EPITHETS[:2])
    with pytest.raises(UserError, match="if these are epithets, write `species: binomial`"):
        tree(EPITHETS[:2], species="as_written")
    assert list(tree(EPITHETS[:1], species="as_written")) == ["alba"]
    with pytest.raises(UserError, match='line 1: species "alba" has no genus to be composed with'):
        tree(rows(("Rosales", None, "alba")), species="binomial")
    assert list(tree(rows(("seat", "chair"), ("seat", "bench")), ("kind", "thing"))) == ["chair", "bench"]
    assert list(
        tree(rows(("Rosa", "Rosa alba"), ("Rosa", "canina")), ("genus", "species"), species="binomial")
    ) == [
        "Rosa alba",
        "Rosa canina",
    ]


def test_homonyms_within_a_kingdom_are_told_apart_where_they_are_allowed() -> None:
    ranks = ("kingdom", "family", "genus", "species")
    flies = ("Animalia", "Syrphidae", "Aus", "Aus bus")
    moths = ("Animalia", "Noctuidae", "Aus", "Aus bus")
    with pytest.raises(UserError, match=r'genus "Aus" has two lineages.*`homonyms: allow` tells them apart'):
        tree(rows(flies, moths), ranks)
    found = tree(rows(flies, moths), ranks, homonyms="allow")
    assert found == {" > ".join(path): path for path in (flies, moths)}
    assert found.notes[0] == (
        'genus: "Aus" is the name of 2 taxa, told apart by their lineages\n  Animalia > Syrphidae > Aus\n  '
        "Animalia > Noctuidae > Aus"
    )
    with pytest.raises(UserError, match="give both the same ranks above"):
        tree(rows(flies, ("Animalia", None, "Aus", "Aus cus")), ranks, homonyms="allow")


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


def test_homonyms_of_two_kingdoms_and_two_accepted_genera_of_one() -> None:
    """As in globalbioticinteractions #595 (Venturia), and in CatalogueOfLife/data #469 (Barea)."""
    ranks = ("kingdom", "family", "genus")
    wasp, fungus = ("Animalia", "Ichneumonidae", "Venturia"), ("Fungi", "Venturiaceae", "Venturia")
    assert list(tree(rows(wasp, fungus), ranks).values()) == [wasp, fungus]
    moths = [("Animalia", "Gelechiidae", "Barea"), ("Animalia", "Oecophoridae", "Barea")]
    with pytest.raises(
        UserError, match=r"Gelechiidae > Barea \(line 1\), and .*Oecophoridae > Barea \(line 2\)"
    ):
        tree(rows(*moths), ranks)
    assert len(tree(rows(*moths), ranks, homonyms="allow")) == 2


@pytest.mark.parametrize(
    "name", ["CUB200", "Inat_plantae", "Inat_animal", "imagenet_animal", "imagenet_artifact", "Food"]
)
def test_no_name_of_the_published_taxonomies_changes(name: str) -> None:
    path = REFERENCE / "taxonomies" / f"hierarchy_{name}.json"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    found = json.loads(path.read_text(encoding="utf-8"))
    depth = max(map(len, found.values()))
    ranks = ("kingdom", "phylum", "class", "order", "family", "genus", "species", *"abcdefg")
    ranks = ranks[3:7] if name == "CUB200" else ranks[:depth]
    paths = [(leaf, (*taxa, *(None,) * (depth - len(taxa)))) for leaf, taxa in found.items()]
    known = tree(paths, ranks, homonyms="allow")  # "sports equipment" of the artifacts has two parents
    assert set(known.values()) == {path for _, path in paths}
    assert len(known.notes) == (name == "imagenet_artifact")
