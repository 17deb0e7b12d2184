"""The CUB reader on a hand-made archive: splits, names that no rule recovers, and tables that do not
agree.
"""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from vltaxon.config.datasets import Dataset, RawDataset, Split
from vltaxon.data.archives import Archive, unpack
from vltaxon.data.labels import Labelled, lineage, tree
from vltaxon.data.sources.cub200 import CLASSES, read
from vltaxon.data.tables import rows
from vltaxon.errors import UserError

_CSV = "class_name,order,family,genus,species\n001.Brandt_Cormorant,O,F,G,Brandt's Cormorant\n002.Anna,O,F,H,Anna\n"
_TABLES = {
    "images.txt": "1 001.Brandt_Cormorant/B_1.jpg\n2 001.Brandt_Cormorant/B_2.jpg\n3 002.Anna/A_3.jpg\n",
    "classes.txt": "1 001.Brandt_Cormorant\n2 002.Anna\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n",
    "train_test_split.txt": "1 1\n2 0\n3 0\n",
}


def _read(
    folder: Path, rows: str | None = _CSV, splits: tuple[str, ...] = ("train", "test"), **tables: str
) -> Any:
    raw = folder / "CUB_200_2011.tgz"
    with tarfile.open(raw, "w:gz") as tar:
        for name, text in (_TABLES | {f"{key}.txt": value for key, value in tables.items()}).items():
            info = tarfile.TarInfo(f"CUB_200_2011/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    archive = Archive(folder / "c.tar", folder / "c.parquet")
    unpack(raw, archive.tar, archive.index)
    classes = folder / "classes.csv" if rows is not None else None
    if classes is not None and rows is not None:
        classes.write_text(rows, encoding="utf-8")
    ranks = {"ranks": ("order", "family", "genus", "species"), "scored_levels": (1, 2, 3, 4)}
    fixed = {
        "source": "cub200",
        "word": "bird",
        "questions": "cub200",
        "licence": "-",
        "test": Split(archive=raw),
    }
    return read(Dataset(classes=classes, **fixed, **ranks), dict.fromkeys(splits, archive))


def test_splits_and_lineages(tmp_path: Path) -> None:
    lineages, images = _read(tmp_path)
    assert lineages == {
        "Brandt's Cormorant": ("O", "F", "G", "Brandt's Cormorant"),
        "Anna": ("O", "F", "H", "Anna"),
    }
    folder = "CUB_200_2011/images/001.Brandt_Cormorant"
    assert images == [
        Labelled("cub200/B_1", "train", "Brandt's Cormorant", f"{folder}/B_1.jpg"),
        Labelled("cub200/B_2", "test", "Brandt's Cormorant", f"{folder}/B_2.jpg"),
        Labelled("cub200/A_3", "test", "Anna", "CUB_200_2011/images/002.Anna/A_3.jpg"),
    ]


def test_undeclared_split_is_left_out(tmp_path: Path) -> None:
    assert {image.split for image in _read(tmp_path, splits=("test",))[1]} == {"test"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": _CSV.replace("002.Anna", "003.Anna")}, "has no row for class 002.Anna"),
        ({"rows": _CSV + "004.Anna,O,F,H,Anna\n"}, 'line 4: class 004.Anna or its leaf "Anna" has two rows'),
        ({"rows": _CSV.replace("genus", "genre")}, 'no column "genus"'),
        ({"rows": _CSV.replace("O,F,H", "O,E,G")}, 'genus "G" has two lineages'),
        ({"image_class_labels": "1 1\n2 1\n"}, "image 3 .*has no class"),
        ({"image_class_labels": "1 1\n2 1\n3 9\n"}, "image 3 .*has no class"),
        ({"train_test_split": "1 1\n2 0\n"}, "image 3 .*is in no split"),
        ({"images": "1\n"}, "images.txt, line 1"),
        ({"images": "1 a/b.jpg\n1 a/c.jpg\n"}, "images.txt, line 2"),
    ],
)
def test_tables_that_do_not_agree(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        _read(tmp_path, **changes)


RANKS = ("order", "family", "genus", "species")
REFERENCE = Path(os.environ.get("VLTAXON_REFERENCE", Path(__file__).parents[5] / "shared" / "reference"))


def test_the_shipped_classes_are_a_tree_of_200() -> None:
    table = [
        (row["class_name"], lineage(row, RANKS, where))
        for where, row in rows(CLASSES, ("class_name", *RANKS))
    ]
    assert [int(name[:3]) for name, _ in table] == list(range(1, 201))
    paths = tree(table, RawDataset(source="cub200", ranks=RANKS, test=Split(archive=Path("x.tgz"))))
    assert list(paths.values()) == [path for _, path in table] and not paths.notes
    assert [len({path[:level] for path in paths.values()}) for level in range(1, 5)] == [13, 37, 124, 200]


def test_the_shipped_classes_are_those_of_the_benchmark() -> None:
    path = REFERENCE / "taxonomies" / "cub_folder_to_path.json"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    ours = {row["class_name"]: {rank: row[rank].lower() for rank in RANKS} for _, row in rows(CLASSES, ())}
    published = json.loads(path.read_text(encoding="utf-8"))
    assert ours == {name: {rank: taxa[rank] for rank in RANKS} for name, taxa in published.items()}


def test_without_a_table_the_shipped_one_serves(tmp_path: Path) -> None:
    tables = {"classes": "1 001.Black_footed_Albatross\n2 200.Common_Yellowthroat\n"}
    images = "1 001.Black_footed_Albatross/B_1.jpg\n2 200.Common_Yellowthroat/B_2.jpg\n3 001.Black_footed_Albatross/A_3.jpg\n"
    lineages, labelled = _read(
        tmp_path, rows=None, images=images, image_class_labels="1 1\n2 2\n3 1\n", **tables
    )
    assert lineages["Common Yellowthroat"] == (
        "Passeriformes",
        "Parulidae",
        "Geothlypis",
        "Common Yellowthroat",
    )
    assert labelled[0].leaf == "Black-footed Albatross"
    with pytest.raises(
        UserError, match=r"cub200_classes\.csv: has no row for class 001.Brandt_Cormorant, 002.Anna"
    ):
        _read(tmp_path, rows=None)
