"""TerraIncognita's reader on a hand-made download: two halves, species without a name, and downloads that
are not whole.
"""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vltaxon.config.datasets import Dataset, Split
from vltaxon.data.archives import located
from vltaxon.data.labels import Labelled
from vltaxon.data.sources.terra_incognita import read
from vltaxon.errors import UserError

RANKS = ("order", "family", "genus", "species")
WORDS = {
    "source": "terra_incognita",
    "word": "insect",
    "questions": "inat21",
    "licence": "-",
    "ranks": RANKS,
    "scored_levels": (1,),
}
KNOWN = "Folder,Order,Family,Genus,Species,Collector\n1,Diptera,Syrphidae,Eristalis,Eristalis tenax,x\n"
NOVEL = "Folder,Order,Family,Genus,Species\n1.0,Diptera,Syrphidae,,\n2.0,Diptera,Syrphidae,Unknown,sp.\n010,Diptera,,nan,N/A\n"


def _download(root: Path, novel: str = NOVEL) -> Dataset:
    for name in ("Known/1/a.jpg", "Known/1/b.PNG", "Novel/1/a.jpg", "Novel/2/a.jpeg", "Novel/010/a.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    for name in ("Known/1/notes.txt", "Known/1/._a.jpg", "Known/.DS_Store"):
        (root / name).write_bytes(b"")
    (root / "metadata_known.csv").write_text(KNOWN)
    (root / "metadata_novel.csv").write_text(novel)
    return Dataset(subset="novel", test=Split(folder=root), **WORDS)


def test_known(tmp_path: Path) -> None:
    dataset = _download(tmp_path).model_copy(update={"subset": "known"})
    lineages, images = read(dataset, ["test"])
    assert lineages == {"Eristalis tenax": ("Diptera", "Syrphidae", "Eristalis", "Eristalis tenax")}
    assert images == [
        Labelled(f"terra_incognita/Known/1/{name}", "test", "Eristalis tenax", f"Known/1/{name}")
        for name in ("a.jpg", "b.PNG")
    ]
    assert located(dataset, tmp_path)["test"].find([image.member for image in images])["size"].to_list() == [
        0,
        0,
    ]


def test_novel_species_have_the_leaf_that_they_were_placed_in(tmp_path: Path) -> None:
    lineages, images = read(_download(tmp_path), ["test"])
    assert lineages == {
        "Syrphidae": ("Diptera", "Syrphidae", None, None),
        "Diptera": ("Diptera", None, None, None),
    }
    assert {image.member: image.leaf for image in images} == {
        "Novel/1/a.jpg": "Syrphidae",
        "Novel/2/a.jpeg": "Syrphidae",
        "Novel/010/a.jpg": "Diptera",
    }


@pytest.mark.parametrize(
    ("novel", "words"),
    [
        (NOVEL.replace("2.0", "two"), 'line 3: Folder "two" is no number'),
        (NOVEL.replace("2.0", "1"), 'line 3: Folder "1" is no number, or occurs twice'),
        (NOVEL.replace("2.0", "7"), "has no row for folder .*Novel/2"),
        (
            NOVEL + "7,Diptera,,,\n8,Diptera,,,\n",
            r"Novel: has no images of folder 7, 8 \(2 in all\); download it again",
        ),
        (NOVEL.replace("Order", "Ordo"), 'no rank "order"'),
        (NOVEL.replace("Folder", "Id"), 'no column "Folder"'),
        (NOVEL.replace("010,Diptera", "010,Unknown"), "name no taxon: .*line 4"),
        (NOVEL.replace("2.0,Diptera", "2.0,Hemiptera"), 'family "Syrphidae" has two lineages'),
    ],
)
def test_downloads_that_do_not_agree(tmp_path: Path, novel: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(_download(tmp_path, novel), ["test"])


def test_no_download(tmp_path: Path) -> None:
    dataset = _download(tmp_path)
    (tmp_path / "metadata_novel.csv").unlink()
    with pytest.raises(UserError, match=r"metadata_novel\.csv: No such file"):
        read(dataset, ["test"])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "metadata_novel.csv").write_text(NOVEL)
    with pytest.raises(UserError, match="Novel: no such folder; download the data set there"):
        read(dataset.model_copy(update={"test": Split(folder=tmp_path / "elsewhere")}), ["test"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"subset": None}, "subset: terra_incognita needs one"),
        ({"train": Split(folder=Path("x"))}, "terra_incognita has no training split"),
        ({"test": Split(archive=Path("x.zip"))}, "terra_incognita takes `folder`, and was given archive"),
    ],
)
def test_config(change: dict[str, Any], words: str) -> None:
    given = {"subset": "known", "test": Split(folder=Path("x"))} | WORDS
    Dataset(**given)
    with pytest.raises(ValidationError, match=words):
        Dataset(**(given | change))
