"""iNat21: `split/<image_dir_name>/<uuid>.jpg` in a tar.gz, labels in a COCO-like JSON beside it (visipedia/inat_comp, 2021)."""

import gzip
import json
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vltaxon import config
from vltaxon.data.archives import Archive
from vltaxon.data.labels import Labelled, Lineage, lineage, tree
from vltaxon.errors import UserError, suggest

_WANTED = {"id", "file_name", "name", "kingdom", "phylum", "class", "order", "family", "genus", "image_id", "category_id"}


def read(dataset: config.Dataset, archives: Mapping[str, Archive]) -> tuple[dict[str, Lineage], list[Labelled]]:
    """Read the labels of a data set's splits.

    Args:
        dataset: its `kingdom` picks the categories; the species' name is the category's `name`, a binomial.
        archives: by split; their members are named as `file_name` says.

    Returns:
        Lineage of every leaf of the kingdom, and the labelled images of all splits.

    Raises:
        UserError: annotations are missing or damaged, the kingdom is unknown, or the taxa form no tree.
    """
    lineages: list[tuple[str, Lineage]] = []
    images: list[Labelled] = []
    for split in archives:
        source = dataset.train if split == "train" else dataset.test
        path = config.local(source.annotations) if source is not None and source.annotations is not None else None
        if path is None:
            raise UserError(
                f"the {split} split of an inat21 data set needs `annotations`, the .json.tar.gz beside {archives[split].tar}"
            )
        document = _document(path)
        leaves = _leaves(dataset, document["categories"], path)
        lineages += [(f"{path}, category {number}", taxa) for number, taxa in leaves.items()]
        images += _labelled(document, {number: str(taxa[-1]) for number, taxa in leaves.items()}, split, path)
    return tree(lineages, dataset.ranks), images


def _document(path: Path) -> dict[str, Any]:
    """The JSON inside a .json.tar.gz; fields not needed are dropped while parsing, since 2.7 million dicts are large."""

    def trimmed(item: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in item.items() if key in _WANTED} if "id" in item else item

    try:
        with tarfile.open(path, "r:gz") as tar:
            inside = next((info for info in tar if info.isreg() and info.name.endswith(".json")), None)
            file = tar.extractfile(inside) if inside else None
            document: dict[str, Any] = json.load(file, object_hook=trimmed) if file else {}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; download the annotations beside the images") from error
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
        raise UserError(f"{path}: damaged: {error}; download it again") from error
    if absent := {"images", "categories", "annotations"} - document.keys():
        raise UserError(f"{path}: has no {', '.join(sorted(absent))}; the public test of iNat21 has no labels and cannot be used")
    return document


def _leaves(dataset: config.Dataset, categories: list[dict[str, Any]], path: Path) -> dict[int, Lineage]:
    """Category id -> lineage, of the data set's kingdom."""
    kingdoms = {str(category.get("kingdom")) for category in categories}
    if dataset.kingdom is not None and dataset.kingdom not in kingdoms:
        raise UserError(f'{path}: kingdom "{dataset.kingdom}" is not {suggest(dataset.kingdom, kingdoms)}')
    kept = [c for c in categories if dataset.kingdom in (None, c.get("kingdom"))]
    leaves = {c["id"]: lineage(c | {"species": c["name"]}, dataset.ranks, f"{path}: category {c['id']}") for c in kept}
    names: dict[str | None, int] = {}
    for number, taxa in leaves.items():
        if (other := names.setdefault(taxa[-1], number)) != number:
            raise UserError(f'{path}: categories {other} and {number} are both "{taxa[-1]}"')
    return leaves


def _labelled(document: dict[str, Any], leaves: Mapping[int, str], split: str, path: Path) -> list[Labelled]:
    category: dict[int, int] = {}
    for note in document["annotations"]:
        if category.setdefault(note["image_id"], note["category_id"]) != note["category_id"]:
            raise UserError(f"{path}: image {note['image_id']} has two labels")
    images = []
    for image in document["images"]:
        if image["id"] not in category:
            raise UserError(f"{path}: image {image['file_name']} has no annotation")
        if (leaf := leaves.get(category[image["id"]])) is not None:
            file = PurePosixPath(image["file_name"])
            images.append(Labelled(f"inat21/{file.parts[0]}/{file.stem}", split, leaf, str(file)))
    return images
