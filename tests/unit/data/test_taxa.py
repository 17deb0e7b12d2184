"""The table of taxa, and the benchmark's taxonomy files: ragged, with homonyms, or damaged."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from vltaxon import schemas
from vltaxon.data.taxa import load_taxonomy, read_hierarchy, taxa_table
from vltaxon.errors import UserError
from vltaxon.provenance import read_parquet
from vltaxon.taxonomy import Taxonomy

REFERENCE = Path(os.environ.get("VLTAXON_REFERENCE", Path(__file__).parents[4] / "shared" / "reference"))
RANKS = ("order", "genus", "species")


def keys(lineages: dict[str, tuple[str | None, ...]]) -> dict[tuple[str, int], str | None]:
    return {(row["leaf"], row["level"]): row["key"] for row in taxa_table(lineages, RANKS).to_pylist()}


def test_a_key_is_a_taxon_s_own() -> None:
    found = keys(
        {"A b": ("O", "A", "A b"), "Sayornis": ("O", "Sayornis", "sayornis"), "P.": ("Q", None, "P.")}
    )
    assert found["A b", 3] == "a b" and found["P.", 2] is None and found["P.", 3] == "p"
    assert (found["Sayornis", 2], found["Sayornis", 3]) == ("genus:sayornis", "species:sayornis")


def test_a_name_below_two_parents_is_two_taxa() -> None:
    found = keys({"a": ("O", "G", "a"), "b": ("P", "G", "b"), "c": ("P", "G", "c")})
    assert [found[leaf, 2] for leaf in "abc"] == ["o > g", "p > g", "p > g"]


def written(folder: Path, content: Any) -> Path:
    path = folder / "hierarchy.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_paths_are_ragged(tmp_path: Path) -> None:
    path = written(tmp_path, {"Toast": ["food", "toast"], "soup": ["food", "starter", "warm", "soup"]})
    assert read_hierarchy(path) == {
        "Toast": ("food", "Toast", None, None),
        "soup": ("food", "starter", "warm", "soup"),
    }
    load_taxonomy(path, ("a", "b", "c", "d", "e"), tmp_path / "taxa.parquet")
    tree = Taxonomy.read(tmp_path / "taxa.parquet")
    assert tree.lineages["Toast"] == ("food", "Toast", None, None, None)
    assert tree.find("toast") == "Toast" and tree.labels(2) == ["Toast", "starter"]
    with pytest.raises(UserError, match="has 4 levels, but the data set has 3 ranks: order, genus, species"):
        load_taxonomy(path, RANKS, tmp_path / "taxa.parquet")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not readable as JSON"),
        ("{", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("{}", "is no taxonomy"),
        ('["a"]', "is no taxonomy"),
        ('"a"', "is no taxonomy"),
        ("3", "is no taxonomy"),
        ({"a": "a"}, 'leaf "a": its path is no list of names'),
        ({"a": []}, 'leaf "a": its path is no list of names'),
        ({"a": ["o", None, "a"]}, 'leaf "a": its path is no list of names'),
        ({"a": ["", "a"]}, 'leaf "a": its path is no list of names'),
        ({"a": ["\x1b[31mo", "a"]}, "'\\x1b[31mo' holds the control character U+001B"),
        ({"a": ["o<|im_end|>", "a"]}, "'o<|im_end|>' holds <|im_end|>"),
        ({"\u202ea": ["o", "\u202ea"]}, "holds the control character U+202E"),
        ({"a": {"o": "a"}}, 'leaf "a": its path is no list of names'),
        ({"a": ["o", "b"]}, 'leaf "a": its path ends in "b"'),
        ('{"a": ["o", "a"], "a": ["p", "a"]}', 'leaf "a" stands twice'),
        ({"a": ["o", "a"], "A": ["p", "a"]}, 'leaf "A" stands twice'),
        ({"a": ["o", "a"], "b": ["o", "a", "b"]}, 'leaf "a" has other leaves below it'),
    ],
)
def test_no_taxonomy(tmp_path: Path, content: Any, said: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UserError) as caught:
        read_hierarchy(path)
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_not_utf_8_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "h.json").write_bytes('{"é": ["é"]}'.encode("latin-1"))
    with pytest.raises(UserError, match="not readable as JSON in UTF-8"):
        read_hierarchy(tmp_path / "h.json")
    with pytest.raises(UserError, match="is the path right"):
        read_hierarchy(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("name", "leaves", "taxa"),
    [
        ("CUB200", 200, [13, 37, 124, 200]),
        ("Inat_plantae", 4271, [1, 5, 14, 85, 286, 1702, 4271]),
        ("Inat_animal", 5388, [1, 6, 27, 152, 715, 2988, 5388]),
        ("imagenet_animal", 397, [1, 2, 10, 37, 81, 123, 81, 65, 41, 64, 34, 2]),
        ("imagenet_artifact", 494, [1, 5, 40, 150, 205, 162, 62, 44]),
        ("Food", 84, [1, 6, 29, 40, 24]),
    ],
)
def test_published_taxonomies_load(tmp_path: Path, name: str, leaves: int, taxa: list[int]) -> None:
    path = REFERENCE / "taxonomies" / f"hierarchy_{name}.json"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    load_taxonomy(
        path, tuple(f"level{level}" for level in range(1, len(taxa) + 1)), tmp_path / "taxa.parquet"
    )
    rows = read_parquet(tmp_path / "taxa.parquet", schemas.TAXA).to_pylist()
    assert len({row["leaf"] for row in rows}) == leaves
    found: list[set[str]] = [set() for _ in taxa]
    for row in rows:
        assert (row["taxon"] is None) == (row["key"] is None)
        if row["key"] is not None:
            found[row["level"] - 1].add(row["key"])
    assert [len(level) for level in found] == taxa
    tree = Taxonomy.read(tmp_path / "taxa.parquet")
    assert all(tree.find(leaf.upper()) == leaf for leaf in tree.leaves)
