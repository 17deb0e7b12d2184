"""TerraIncognita (arXiv 2506.03182): `Known` and `Novel`, each a CSV and numbered folders of images.

Read from the folder that its publisher's download leaves. Novel species have no name yet, often no genus
either: their leaf is the most specific taxon that they were placed in.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from vltaxon.config.datasets import RawDataset
from vltaxon.data.labels import Labelled, Lineage, Tree, lineage, tree
from vltaxon.data.tables import rows
from vltaxon.errors import UserError

TAKES = "folder"
NEEDS: Mapping[str, str] = {"subset": "terra_incognita needs one, known or novel; no other source has any"}
_IMAGES = {".jpg", ".jpeg", ".png"}
_NUMBER = re.compile(r"0*(\d+)(\.0)?")  # 7, 007, and 7.0 as pandas writes a column with a gap


def check(dataset: RawDataset) -> None:
    """Refuse a training split.

    Raises:
        ValueError: the data set's file has one.
    """
    if dataset.train is not None:
        raise ValueError("train: terra_incognita has no training split")


def tables(dataset: RawDataset) -> list[Path]:
    """Return the table of taxa of the half."""
    return [_table(dataset)]


def read(dataset: RawDataset, splits: Iterable[str]) -> tuple[Tree, list[Labelled]]:
    """Read the labels of the known or of the novel half.

    Args:
        dataset: its `subset` picks the half, and `test.folder` is where the download lies. Ranks are columns
            of the CSV, found whatever their case.
        splits: of these, `test` is the only one there is.

    Returns:
        Lineage of every leaf, and the images of every numbered folder.

    Raises:
        UserError: a folder is missing, empty or has no row, the CSV is not readable, or the taxa form no
            tree.
    """
    table = _table(dataset)
    half = table.with_name(str(dataset.subset).capitalize())
    taxa: dict[str, tuple[str, Lineage]] = {}
    for where, row in rows(table, ("Folder",)):
        found = _NUMBER.fullmatch(row["Folder"])
        if found is None or found[1] in taxa:
            raise UserError(f'{where}: Folder "{row["Folder"]}" is no number, or occurs twice')
        cells = {key.lower(): cell for key, cell in row.items()}
        taxa[found[1]] = (where, lineage(cells, dataset.ranks, where, partial=True))
    known = tree(taxa.values(), dataset)
    images: list[Labelled] = []
    folders = _folders(half)
    for number, files in folders.items():
        if number not in taxa:
            raise UserError(f"{table}: has no row for folder {half / number}")
        leaf = known.called[taxa[number][1]]
        images += [
            Labelled(f"terra_incognita/{file}", "test", leaf, file) for file in files if "test" in splits
        ]
    if absent := sorted(taxa.keys() - folders.keys(), key=int):
        raise UserError(
            f"{half}: has no images of folder {', '.join(absent[:5])} ({len(absent)} in all); download it "
            "again"
        )
    return known, images


def _table(dataset: RawDataset) -> Path:
    return (dataset.test.folder or Path()) / f"metadata_{dataset.subset}.csv"


def _folders(half: Path) -> dict[str, list[str]]:
    """Return the image files of each number, as paths from the data set's folder."""
    if not half.is_dir():
        raise UserError(
            f"{half}: no such folder; download the data set there, or name its folder in `test.folder`"
        )
    found: dict[str, list[str]] = {}
    for path in sorted(half.glob("*/*")):
        if (
            (number := _NUMBER.fullmatch(path.parent.name))
            and path.suffix.lower() in _IMAGES
            and path.name[0] != "."
        ):
            found.setdefault(number[1], []).append(path.relative_to(half.parent).as_posix())
    return found
