"""The CUB reader on a hand-made archive: splits, names that no rule recovers, and tables that do not agree."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from vltaxon.config import Dataset, Split
from vltaxon.data.archives import Archive, unpack
from vltaxon.data.labels import Labelled
from vltaxon.data.sources.cub200 import read
from vltaxon.errors import UserError

_CSV = "class_name,order,family,genus,species\n001.Brandt_Cormorant,O,F,G,Brandt's Cormorant\n002.Anna,O,F,H,Anna\n"
_TABLES = {
    "images.txt": "1 001.Brandt_Cormorant/B_1.jpg\n2 001.Brandt_Cormorant/B_2.jpg\n3 002.Anna/A_3.jpg\n",
    "classes.txt": "1 001.Brandt_Cormorant\n2 002.Anna\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n",
    "train_test_split.txt": "1 1\n2 0\n3 0\n",
}


def _read(folder: Path, rows: str = _CSV, splits: tuple[str, ...] = ("train", "test"), **tables: str) -> Any:
    raw = folder / "CUB_200_2011.tgz"
    with tarfile.open(raw, "w:gz") as tar:
        for name, text in (_TABLES | {f"{key}.txt": value for key, value in tables.items()}).items():
            info = tarfile.TarInfo(f"CUB_200_2011/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    archive = Archive(folder / "c.tar", folder / "c.parquet")
    unpack(raw, archive.tar, archive.index)
    (folder / "classes.csv").write_text(rows, encoding="utf-8")
    ranks = {"ranks": ("order", "family", "genus", "species"), "scored_levels": (1, 2, 3, 4)}
    fixed = {"source": "cub200", "word": "bird", "questions": "cub200", "licence": "-", "test": Split(archive=raw)}
    return read(Dataset(classes=folder / "classes.csv", **fixed, **ranks), dict.fromkeys(splits, archive))


def test_splits_and_lineages(tmp_path: Path) -> None:
    lineages, images = _read(tmp_path)
    assert lineages == {"Brandt's Cormorant": ("O", "F", "G", "Brandt's Cormorant"), "Anna": ("O", "F", "H", "Anna")}
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
