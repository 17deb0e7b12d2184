"""iNat21 (visipedia/inat_comp, 2021): images in a tar.gz, labels in a COCO-like JSON beside it.

An image is called `split/<image_dir_name>/<uuid>.jpg`.
"""

import gzip
import json
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, StrictInt, StrictStr, TypeAdapter, ValidationError

from vltaxon.config.base import local
from vltaxon.config.datasets import RawDataset
from vltaxon.data.labels import Labelled, Lineage, Tree, lineage, tree
from vltaxon.errors import UserError, suggest

if TYPE_CHECKING:
    from vltaxon.data.archives import Archive

TAKES = "archive"
NEEDS: Mapping[str, str] = {}
_WANTED = {
    "id",
    "file_name",
    "name",
    "kingdom",
    "phylum",
    "class",
    "order",
    "family",
    "genus",
    "image_id",
    "category_id",
}


def _whole(text: str) -> str:
    """Refuse half a letter (a lone surrogate), which JSON can escape, but no table can hold."""
    text.encode()
    return text


_Text = Annotated[StrictStr, AfterValidator(_whole)]
_Category = dict[StrictStr, StrictInt | _Text | None]


@dataclass(frozen=True, slots=True)
class _Image:
    id: StrictInt
    file_name: _Text


@dataclass(frozen=True, slots=True)
class _Label:
    image_id: StrictInt
    category_id: StrictInt


@dataclass(frozen=True, slots=True)
class _Document:
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Label]


_PLAUSIBLE = 200  # times its size, to which packed JSON unpacks at most; it is read into memory
_FORM = TypeAdapter(_Document)


def check(dataset: RawDataset) -> None:
    """Refuse a split without its annotations, and one archive for both splits.

    Raises:
        ValueError: the data set's file has one of these.
    """
    if any(split.annotations is None for split in dataset.splits.values()):
        raise ValueError("annotations: inat21 needs the JSON archive of every split")
    if dataset.train is not None and dataset.train.archive == dataset.test.archive:
        raise ValueError("train and test name the same archive")


def tables(dataset: RawDataset) -> list[Path]:
    """Return the annotations of the splits."""
    return [local(split.annotations) for split in dataset.splits.values() if split.annotations is not None]


def read(dataset: RawDataset, archives: "Mapping[str, Archive]") -> tuple[Tree, list[Labelled]]:
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
    documents: list[tuple[str, Path, _Document, dict[int, Lineage]]] = []
    for split in archives:
        source = dataset.train if split == "train" else dataset.test
        path = local(source.annotations) if source is not None and source.annotations is not None else None
        if path is None:
            raise UserError(
                f"the {split} split of an inat21 data set needs `annotations`, the .json.tar.gz beside "
                f"{archives[split].tar}"
            )
        document = _document(path)
        leaves = _leaves(dataset, document.categories, path)
        lineages += [(f"{path}, category {number}", taxa) for number, taxa in leaves.items()]
        documents.append((split, path, document, leaves))
    known = tree(lineages, dataset)
    return known, [
        image
        for split, path, document, leaves in documents
        for image in _labelled(
            document, {number: known.called[taxa] for number, taxa in leaves.items()}, split, path
        )
    ]


def _document(path: Path) -> _Document:
    """Read the JSON inside a .json.tar.gz.

    Fields not needed are dropped while parsing, since 2.7 million dicts are large.
    """

    def trimmed(item: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in item.items() if key in _WANTED} if "id" in item else item

    try:
        with tarfile.open(path, "r:gz") as tar:
            inside = next((info for info in tar if info.isreg() and info.name.endswith(".json")), None)
            if inside is not None and inside.size > max(1 << 20, _PLAUSIBLE * path.stat().st_size):
                raise UserError(
                    f"{path}: {inside.name}: claims {inside.size} bytes, far more than text is packed to; "
                    "not trusted"
                )
            file = tar.extractfile(inside) if inside else None
            document: Any = json.load(file, object_hook=trimmed) if file else {}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; download the annotations beside the images") from error
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged: {error}; download it again") from error
    if not isinstance(document, dict) or (
        absent := {"images", "categories", "annotations"} - document.keys()
    ):
        lacks = ", ".join(sorted(absent)) if isinstance(document, dict) else "images"
        raise UserError(f"{path}: has no {lacks}; the public test of iNat21 has no labels and cannot be used")
    try:
        return _FORM.validate_python(document)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {place}: {first['msg']}; is it the annotation file of iNat21?") from error


def _leaves(dataset: RawDataset, categories: list[_Category], path: Path) -> dict[int, Lineage]:
    """Return the lineages of the data set's kingdom by the number of their category."""
    kingdoms = {str(category.get("kingdom")) for category in categories}
    if dataset.kingdom is not None and dataset.kingdom not in kingdoms:
        raise UserError(f'{path}: kingdom "{dataset.kingdom}" is not {suggest(dataset.kingdom, kingdoms)}')
    leaves: dict[int, Lineage] = {}
    numbers: dict[Lineage, int] = {}
    for category in categories:
        if dataset.kingdom not in (None, category.get("kingdom")):
            continue
        number, name = category.get("id"), category.get("name")
        if not isinstance(number, int) or number in leaves:
            raise UserError(f"{path}: category {number} ({name}): its id is no number, or occurs twice")
        leaves[number] = taxa = lineage(
            category | {"species": name}, dataset.ranks, f"{path}: category {number}"
        )
        if (other := numbers.setdefault(taxa, number)) != number:
            raise UserError(f'{path}: categories {other} and {number} are both "{taxa[-1]}"')
    return leaves


def _labelled(document: _Document, leaves: Mapping[int, str], split: str, path: Path) -> list[Labelled]:
    category: dict[int, int] = {}
    for note in document.annotations:
        if category.setdefault(note.image_id, note.category_id) != note.category_id:
            raise UserError(f"{path}: image {note.image_id} has two labels")
    images = []
    for image in document.images:
        if image.id not in category:
            raise UserError(f"{path}: image {image.file_name} has no annotation")
        file = PurePosixPath(image.file_name)
        if len(file.parts) < 2:
            raise UserError(
                f'{path}: image {image.id} has file_name "{image.file_name}", not split/folder/file'
            )
        if (leaf := leaves.get(category[image.id])) is not None:
            images.append(Labelled(f"inat21/{file.parts[0]}/{file.stem}", split, leaf, str(file)))
    return images
