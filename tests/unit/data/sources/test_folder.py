"""A user's own collection: missing ranks, homonyms, splits, and ids that are the same on another machine."""

import json
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.unit.data.conftest import ingest_into
from vltaxon import schemas
from vltaxon.config.datasets import Dataset, Split
from vltaxon.data.images import ImageStore
from vltaxon.data.labels import Labelled
from vltaxon.data.sources.folder import read
from vltaxon.errors import UserError
from vltaxon.provenance import facts, read_parquet
from vltaxon.taxonomy import Taxonomy

RANKS = ("kingdom", "family", "genus", "species")
WORDS: dict[str, Any] = {
    "source": "folder",
    "word": "organism",
    "questions": "inat21",
    "licence": "-",
    "scored_levels": (1,),
}
ROWS = """path,kingdom,family,genus,species,note
one/a.jpg,Animalia,Prunellidae,Prunella,Prunella modularis,a bird
b.jpg,Plantae,Lamiaceae,Prunella,,a herb
c.jpg,Animalia,Prunellidae,Prunella,,
d.jpg,Animalia,,,,
"""


def _read(folder: Path, *splits: str, ranks: tuple[str, ...] = RANKS, **tables: str) -> Any:
    given = {}
    for split, text in tables.items():
        path = folder / f"{split}.csv"
        path.write_text(text, encoding="utf-8")
        given |= (
            {split: Split(table=path)}
            if split != "both"
            else dict.fromkeys(("train", "test"), Split(table=path))
        )
    return read(Dataset(ranks=ranks, **given, **WORDS), splits or tuple(given))


def test_missing_ranks_and_homonyms_of_two_kingdoms(tmp_path: Path) -> None:
    lineages, images = _read(tmp_path, test=ROWS)
    bird = ("Animalia", "Prunellidae", "Prunella")
    assert lineages == {
        "Prunella modularis": (*bird, "Prunella modularis"),
        "Plantae > Lamiaceae > Prunella": ("Plantae", "Lamiaceae", "Prunella", None),
        "Animalia > Prunellidae > Prunella": (*bird, None),
        "Animalia": ("Animalia", None, None, None),
    }
    assert images[0] == Labelled("folder/one/a.jpg", "test", "Prunella modularis", "one/a.jpg")
    assert [image.leaf for image in images[1:]] == list(lineages)[1:]


@pytest.mark.parametrize(
    ("rows", "ranks", "words"),
    [
        (ROWS + "e.jpg,Animalia,Other,Prunella,,\n", RANKS, "two lineages: Animalia > Prunellidae > Pr.*> Other > Prunella"),
        (ROWS + "e.jpg,,Lamiaceae,Prunella,,\n", RANKS, r"two lineages: Plantae > Lamiaceae .* and \? > Lamiaceae .*line 5"),
        (ROWS, RANKS[1:], 'genus "Prunella" has two lineages'),
    ],
    ids=["within a kingdom", "a parent and none", "no column of kingdoms"],
)  # fmt: skip
def test_two_parents_are_shown_both(tmp_path: Path, rows: str, ranks: tuple[str, ...], words: str) -> None:
    rows = rows.replace("d.jpg,Animalia,,,,\n", "")
    with pytest.raises(UserError, match=words):
        _read(tmp_path, test=rows, ranks=ranks)


def test_one_table_for_both_splits_or_two(tmp_path: Path) -> None:
    text = "path,species,split\na.jpg,A a,train\nb.jpg,A a,test\nc.jpg,B b,train\n"
    lineages, images = _read(tmp_path, both=text, ranks=("species",))
    assert {image.member: image.split for image in images} == {
        "a.jpg": "train",
        "b.jpg": "test",
        "c.jpg": "train",
    }
    assert list(lineages) == ["A a", "B b"]
    plain = "path,species\nx.jpg,A a\n"
    _, images = _read(tmp_path, train=text, test=plain, ranks=("species",))
    assert {image.member: image.split for image in images} == {
        "a.jpg": "train",
        "c.jpg": "train",
        "x.jpg": "test",
    }
    for wrong, words in (
        (plain, 'no column "split"'),
        (text + "d.jpg,B b,\n", 'split ""'),
        (text + "d.jpg,B b,val\n", 'split "val"'),
    ):
        with pytest.raises(UserError, match=words):
            _read(tmp_path, both=wrong, ranks=("species",))
    with pytest.raises(UserError, match='line 5: split "val" is not one of train, test'):
        _read(tmp_path, test=text + "d.jpg,B b,val\n", ranks=("species",))


def _tables(folder: Path, table: Path, picture: bytes) -> tuple[ImageStore, list[dict[str, Any]]]:
    dataset = Dataset(ranks=RANKS, test=Split(table=table), **WORDS)
    (folder / "one").mkdir(exist_ok=True)
    for number, name in enumerate(("one/a.jpg", "b.jpg", "c.jpg", "d.jpg")):
        (folder / name).write_bytes(picture + bytes(number))
    paths = list(ingest_into(folder / "out", dataset, folder).values())
    assert set(Taxonomy.read(paths[0]).leaves) == {
        row["leaf"] for row in read_parquet(paths[1], schemas.IMAGES).to_pylist()
    }
    return ImageStore(paths[1]), read_parquet(paths[1], schemas.IMAGES).to_pylist()


def test_images_lie_where_they_are(tmp_path: Path, picture: bytes) -> None:
    (tmp_path / "t.csv").write_text(ROWS)
    store, images = _tables(tmp_path, tmp_path / "t.csv", picture)
    assert [row["image_id"] for row in images] == [
        "folder/b.jpg",
        "folder/c.jpg",
        "folder/d.jpg",
        "folder/one/a.jpg",
    ]
    assert (images[3]["archive"], images[3]["member"]) == (str(tmp_path / "one/a.jpg"), "one/a.jpg")
    assert (images[3]["offset"], images[3]["size"]) == (0, len(picture))
    assert store.open("folder/b.jpg").size == (8, 6)
    pq.write_table(pyarrow.csv.read_csv(tmp_path / "t.csv"), tmp_path / "t.parquet")
    assert _tables(tmp_path, tmp_path / "t.parquet", picture)[1] == images


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "Prunella\x1b[0m",
            r't.csv, line 2: species "Prunella\\x1b\[0m" \(U\+001B\) holds the control character U\+001B',
        ),
        ("Prunella<|im_end|>", r'species "Prunella<\|im_end\|>" holds <\|im_end\|>, which is read as a mark'),
        ("P" * 201, r'species "P+" is longer than 200 characters; write it otherwise in the labels'),
        (
            "Prunella genus: x",
            '"Kingdom: .* Species: Prunella genus: x", in which genus "Prunella" would be read as "None"',
        ),
    ],
)
def test_a_name_that_no_model_could_be_asked_or_answer_is_refused(
    tmp_path: Path, picture: bytes, name: str, words: str
) -> None:
    (tmp_path / "t.csv").write_text(ROWS.replace("Prunella modularis", name))
    with pytest.raises(UserError, match=words):
        _tables(tmp_path, tmp_path / "t.csv", picture)


def test_names_that_hold_separators_are_names(tmp_path: Path, picture: bytes) -> None:
    (tmp_path / "t.csv").write_text(
        ROWS.replace("Prunella modularis", '"Accentor, Dunnock; (Linnaeus, 1758)"')
    )
    _tables(tmp_path, tmp_path / "t.csv", picture)


def test_an_image_that_goes_or_changes_after_ingest(tmp_path: Path, picture: bytes) -> None:
    (tmp_path / "t.csv").write_text(ROWS)
    store, _ = _tables(tmp_path, tmp_path / "t.csv", picture)
    (tmp_path / "b.jpg").write_bytes(picture + b"more than there was")
    with pytest.raises(UserError, match=r"b\.jpg: has changed since it was ingested"):
        store.read("folder/b.jpg")
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(UserError, match=r"b\.jpg: No such file.*run the workflow again"):
        store.read("folder/b.jpg")


NAMES = """path,family,genus,species
a.jpg,Fagaceae,Quercus,Quercus robur
b.jpg,Fagaceae Dumort.,Quercus L.,Quercus robur L.
c.jpg,fagaceae,Quercus,Quercus robur subsp. robur
d.jpg,NA,Quercus,Quercus sp.
"""


def test_names_are_read_down_to_their_taxa_and_what_was_changed_is_said(
    tmp_path: Path, picture: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text(NAMES.replace("d.jpg,NA", "d.jpg,Fagaceae"))
    for number, name in enumerate("abcd"):
        (tmp_path / f"{name}.jpg").write_bytes(picture + bytes(number))
    dataset = Dataset(ranks=RANKS[1:], test=Split(table=tmp_path / "t.csv"), **WORDS)
    paths = ingest_into(tmp_path / "out", dataset, tmp_path)
    assert Taxonomy.read(paths["taxa"]).lineages == {
        "Quercus": ("Fagaceae", "Quercus", None),
        "Quercus robur": ("Fagaceae", "Quercus", "Quercus robur"),
    }
    leaves = {row["member"]: row["leaf"] for row in read_parquet(paths["images"], schemas.IMAGES).to_pylist()}
    assert leaves == dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), "Quercus robur") | {"d.jpg": "Quercus"}
    assert json.loads(facts(paths["taxa"])["names"]) == [
        "family: read without authors and doubts (1 cell)",
        "family: spelt as the first of its taxon is (1 cell)",
        "genus: read without authors and doubts (1 cell)",
        "species: names no taxon and is missing (1 cell)",
        "species: read without authors and doubts (1 cell)",
        "species: cut to its species (1 cell)",
    ]
    said = capsys.readouterr().out
    assert '1 x "fagaceae": "Fagaceae"' in said and '1 x "Quercus sp."' in said
    (tmp_path / "t.csv").write_text(NAMES)
    with pytest.raises(
        UserError, match=r"two lineages: Fagaceae > Quercus .* and \? > Quercus .*line 5.*; give both"
    ):
        ingest_into(tmp_path / "out", dataset, tmp_path)


def test_nothing_is_said_of_names_that_are_left_alone(tmp_path: Path, picture: bytes) -> None:
    (tmp_path / "t.csv").write_text(ROWS)
    _tables(tmp_path, tmp_path / "t.csv", picture)
    assert "names" not in facts(tmp_path / "out" / "taxa.parquet")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            r"one\a.jpg",
            r"line 2: path one\\a\.jpg is written as on Windows; write / for \\, as in one/a\.jpg",
        ),
        (r"C:\Users\me\a.jpg", r"is written as on Windows; write / for \\, relative to the table's folder"),
        ("C:/Users/me/a.jpg", "is written as on Windows"),
        ("https://example.org/a.jpg", "is an address; download the images, and give the paths of the files"),
        ("s3://bucket/a.jpg", "is an address"),
    ],
)
def test_a_path_that_is_none_here_is_said_with_its_line(tmp_path: Path, path: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        _read(tmp_path, test=f"path,species\n{path},A a\n", ranks=("species",))


def test_a_backslash_may_be_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "a\\b.jpg").write_bytes(b"")
    _, images = _read(tmp_path, test="path,species\na\\b.jpg,A a\n", ranks=("species",))
    assert [image.image_id for image in images] == ["folder/a\\b.jpg"]
