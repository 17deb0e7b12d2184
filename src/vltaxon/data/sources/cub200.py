"""CUB-200-2011: images and five tables of text in one .tgz; the ranks come from a table of our own."""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vltaxon.config.datasets import RawDataset
from vltaxon.data.labels import Labelled, Lineage, Tree, lineage, tree
from vltaxon.data.tables import rows
from vltaxon.errors import UserError

if TYPE_CHECKING:
    from vltaxon.data.archives import Archive

TAKES = "archive"
NEEDS: Mapping[str, str] = {}
CLASSES = Path(__file__).with_name("cub200_classes.csv")  # the 200 classes of CUB, with their ranks
_ROOT = "CUB_200_2011"


def check(dataset: RawDataset) -> None:
    """Refuse nothing else."""


def tables(dataset: RawDataset) -> list[Path]:
    """Return the table of classes."""
    return [dataset.classes or Path(os.path.relpath(CLASSES))]


def read(dataset: RawDataset, archives: "Mapping[str, Archive]") -> tuple[Tree, list[Labelled]]:
    """Read the labels of a data set's splits.

    Args:
        dataset: its `classes` names the CSV with a row per folder: class_name and the ranks; without it the
            table beside this module serves, which has the 200 classes of CUB. The leaf is the English name;
            no rule leads from the folder to it (apostrophes and hyphens are lost), so the table is the
            authority.
        archives: by split, commonly one and the same; `train_test_split.txt` says which image is whose.

    Returns:
        Lineage of every class in the archive, and the labelled images of the splits in `archives`.

    Raises:
        UserError: a table or a class row is missing, a line is malformed, or the taxa form no tree.
    """
    known = _classes(dataset)
    lineages: list[tuple[str, Lineage]] = []
    found: list[tuple[str, str, str]] = []  # split, class, file
    for split, archive in archives.items():
        names = _table(archive, "classes.txt")
        if absent := sorted(set(names.values()) - known.keys()):
            raise UserError(
                f"{dataset.classes or CLASSES}: has no row for class {', '.join(absent[:5])} ({len(absent)} "
                "in all)"
            )
        lineages += [(name, known[name]) for name in names.values()]
        labels, trains = _table(archive, "image_class_labels.txt"), _table(archive, "train_test_split.txt")
        for number, file in _table(archive, "images.txt").items():
            if number not in trains or labels.get(number) not in names:
                raise UserError(f"{archive.tar}: image {number} ({file}) has no class, or is in no split")
            if (trains[number] == "1") == (split == "train"):
                found.append((split, names[labels[number]], file))
    leaves = tree(lineages, dataset)
    return leaves, [
        Labelled(
            f"cub200/{PurePosixPath(file).stem}", split, leaves.called[known[name]], f"{_ROOT}/images/{file}"
        )
        for split, name, file in found
    ]


def _classes(dataset: RawDataset) -> dict[str, Lineage]:
    """Return the lineage of each class by its name, which is that of its folder."""
    path = dataset.classes or CLASSES
    found: dict[str, Lineage] = {}
    for where, row in rows(path, ("class_name", *dataset.ranks)):
        taxa = lineage(row, dataset.ranks, where)
        if row["class_name"] in found or taxa[-1] in {other[-1] for other in found.values()}:
            raise UserError(f'{where}: class {row["class_name"]} or its leaf "{taxa[-1]}" has two rows')
        found[row["class_name"]] = taxa
    return found


def _table(archive: "Archive", name: str) -> dict[str, str]:
    """Read a table of `id value` lines."""
    found: dict[str, str] = {}
    for number, line in enumerate(
        archive.read(f"{_ROOT}/{name}").decode(errors="replace").splitlines(), start=1
    ):
        key, _, value = line.strip().partition(" ")
        if not value or key in found or "\ufffd" in value:
            raise UserError(
                f'{archive.tar}: {name}, line {number}: "{line}" is not `id value` in UTF-8 with a new id'
            )
        found[key] = value
    return found
