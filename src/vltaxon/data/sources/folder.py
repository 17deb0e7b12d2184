"""A user's own collection: image files anywhere, and a table that names each with its taxa."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from vltaxon.config.datasets import RawDataset
from vltaxon.data.labels import Labelled, Lineage, Tree, lineage, tree
from vltaxon.data.tables import rows
from vltaxon.errors import UserError

TAKES = "table"
NEEDS: Mapping[str, str] = {}


def check(dataset: RawDataset) -> None:
    """Refuse nothing else."""


def tables(dataset: RawDataset) -> list[Path]:
    """Return the tables of the splits."""
    return [split.table for split in dataset.splits.values() if split.table is not None]


def read(dataset: RawDataset, splits: Iterable[str]) -> tuple[Tree, list[Labelled]]:
    """Read the labels of a data set's splits.

    Args:
        dataset: `table` of a split is a CSV or Parquet file with a row per image: `path`, relative to the
            table's folder, and one column per rank, empty where unknown. A column `split` (train or test)
            parts a table that serves both splits.
        splits: train, test.

    Returns:
        Lineage of every leaf in the tables, and the images of the splits. An image is known by its path as
        written, so that ids are the same on another machine as long as paths are relative; where the tables
        of two folders name different files alike, by its split too.

    Raises:
        UserError: a table is not readable, a row names no path, no taxon or another split, or something
            that is no path, two rows name one file, one table serves both splits without saying which row is
            whose, or a taxon has two parents.
    """
    table_of = {split: part.table for split, part in dataset.splits.items() if part.table}
    both = len(set(table_of.values())) < len(table_of)
    found = [
        (where, row.get("split") or "", row["path"], lineage(row, dataset.ranks, where, partial=True), table)
        for table in dict.fromkeys(table_of.values())
        for where, row in rows(table, ("path", *dataset.ranks, *(("split",) if both else ())))
    ]
    known = tree(((where, taxa) for where, _, _, taxa, _ in found), dataset)
    files: dict[str, tuple[str, Lineage]] = {}
    tables = list(dict.fromkeys(table_of.values()))
    first: dict[str, Path] = {}  # table of each path, where there are two
    shared: set[str] = set()  # paths that stand in both
    for where, said, path, taxa, table in found:
        if said not in (("train", "test") if both else ("train", "test", "")):
            raise UserError(f'{where}: split "{said}" is not one of train, test')
        _demand_path(path, table, where)
        other, named = files.setdefault(os.path.normpath(table.parent / path), (where, taxa))
        if other != where:
            one, two = (" > ".join(name or "?" for name in names) for names in (named, taxa))
            raise UserError(
                f"{path} is labelled twice: {one} ({other}), and {two} ({where}); leave one row of each image"
            )
        if len(tables) > 1 and first.setdefault(name := Path(path).as_posix(), table) != table:
            shared.add(name)
    images: list[Labelled] = []
    for _, said, path, taxa, table in found:
        name = Path(path).as_posix()
        for split in splits:
            if table_of[split] == table and said in (split, ""):
                image_id = f"folder:{split}/{name}" if name in shared else f"folder/{name}"
                images.append(Labelled(image_id, split, known.called[taxa], path))
    return known, images


def _demand_path(path: str, table: Path, where: str) -> None:
    """Refuse what is no path, or one as Windows writes it."""
    if not path:
        raise UserError(f"{where}: path is empty")
    if re.match(r"\w+://", path):
        raise UserError(
            f"{where}: path {path} is an address; download the images, and give the paths of the files"
        )
    if (re.match("[A-Za-z]:", path) or "\\" in path) and not os.path.exists(table.parent / path):
        drive = ", relative to the table's folder" if re.match("[A-Za-z]:", path) else ""
        raise UserError(
            f"{where}: path {path} is written as on Windows; write / for \\{drive}, as in one/a.jpg"
        )
