"""Write the demo's raw data: drawings of the clades as archives in the layouts of iNat21 and CUB-200-2011."""

import csv
import gzip
import io
import itertools
import json
import tarfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from vltaxon.demo.clades import BIRD_RANKS, SEVEN_RANKS, Clade, Species, world
from vltaxon.demo.organisms import draw, draw_with_box, stream

_LICENCE = {"id": 0, "name": "CC0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}


def write_archives(folder: Path, train: int, test: int, seed: int) -> None:
    """Draw every raw file of the demo.

    Plants and animals share the iNat21 archives, as they do in the real ones; birds make the CUB-200-2011
    archive and the table of its classes.

    Args:
        folder: where the files go; made if absent.
        train: training images of each species.
        test: test images of each species.
        seed: of the images.
    """
    clades = world()
    write_inat21(folder, [clades["plants"], clades["animals"]], {"train_mini": train, "val": test}, seed)
    write_cub200(folder / "CUB_200_2011.tgz", clades["birds"], train, test, seed)
    write_cub_classes(folder / "cub_classes.csv", clades["birds"])


def write_inat21(
    folder: Path,
    clades: Sequence[Clade],
    images_per_species: Mapping[str, int],
    seed: int,
) -> None:
    """Write `{split}.tar.gz` and `{split}.json.tar.gz` in the layout of iNat21, for each split.

    The members are `split/<image_dir_name>/<uuid>.jpg`; the COCO-like JSON has every field of the original.
    Categories are numbered from 0 through all clades, which share the archives. The bytes depend on the
    arguments only.

    Args:
        folder: where the archives go; made if absent.
        clades: seven-rank clades.
        images_per_species: number of images of each species, by split (`train_mini`, `val`).
        seed: of the images. Different splits draw from different streams.
    """
    folder.mkdir(parents=True, exist_ok=True)
    species = [leaf for clade in clades for leaf in clade.species]
    categories = [_inat21_category(number, leaf) for number, leaf in enumerate(species)]
    for split, count in images_per_species.items():
        images: list[dict[str, object]] = []
        with _tar_gz(folder / f"{split}.tar.gz") as tar:
            for number, index in itertools.product(range(len(species)), range(count)):
                image = draw(species[number], stream(split, seed, number, index))
                key = uuid.uuid5(uuid.NAMESPACE_URL, f"vltaxon/{seed}/{split}/{number}/{index}")
                member = f"{split}/{categories[number]['image_dir_name']}/{key}.jpg"
                _add_member(tar, member, _jpeg(image))
                images.append(_inat21_image(len(images), image, member))
        document = {
            "info": {
                "year": 2021,
                "version": "1",
                "description": "Synthetic clades in the layout of iNat21",
                "contributor": "vltaxon",
                "url": "",
                "date_created": "2021-01-01",
            },
            "images": images,
            "categories": categories,
            "annotations": [{"id": i, "image_id": i, "category_id": i // count} for i in range(len(images))],
            "licenses": [_LICENCE],
        }
        with _tar_gz(folder / f"{split}.json.tar.gz") as tar:
            _add_member(tar, f"{split}.json", json.dumps(document).encode())


def _inat21_category(number: int, species: Species) -> dict[str, int | str]:
    """An entry of the JSON's `categories`."""
    *upper, binomial = species.lineage
    epithet = binomial.split()[-1]
    return {
        "id": number,
        "name": binomial,
        "common_name": binomial,
        "supercategory": species.clade.capitalize(),
        **dict(zip(SEVEN_RANKS, upper, strict=False)),
        "specific_epithet": epithet,
        "image_dir_name": "_".join([f"{number:05d}", *upper, epithet]),
    }


def _inat21_image(number: int, image: Image.Image, member: str) -> dict[str, object]:
    """An entry of the JSON's `images`."""
    return {
        "id": number,
        "width": image.width,
        "height": image.height,
        "file_name": member,
        "license": 0,
        "rights_holder": "vltaxon demo",
        "date": "2021-01-01 00:00:00+00:00",
        "latitude": None,
        "longitude": None,
        "location_uncertainty": None,
    }


def write_cub200(path: Path, clade: Clade, train: int, test: int, seed: int) -> None:
    """Write an archive in the layout of `CUB_200_2011.tgz`: images and the five tables, ids from 1.

    Args:
        path: the archive; its folder is made if absent.
        clade: a four-rank clade.
        train: training images of each class.
        test: test images of each class, from another stream.
        seed: of the images.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    by_name = {species.name: species for species in clade.species}
    classes = cub_classes(clade)
    tables: dict[str, list[str]] = {
        "images": [],
        "image_class_labels": [],
        "train_test_split": [],
        "bounding_boxes": [],
        "classes": [f"{class_id} {row['class_name']}" for class_id, row in enumerate(classes, start=1)],
    }
    with _tar_gz(path) as tar:
        pairs = itertools.product(enumerate(classes, start=1), range(train + test))
        for number, ((class_id, row), index) in enumerate(pairs, start=1):
            training = index < train
            rng = stream("cub_train" if training else "cub_test", seed, class_id, index)
            image, box = draw_with_box(by_name[row["species"]], rng)
            name = row["class_name"]
            file = f"{name}/{name.split('.')[1]}_{index + 1:04d}_{100_000 + number}.jpg"
            _add_member(tar, f"CUB_200_2011/images/{file}", _jpeg(image))
            left, top, right, bottom = (float(edge) for edge in box)
            tables["images"].append(f"{number} {file}")
            tables["image_class_labels"].append(f"{number} {class_id}")
            tables["train_test_split"].append(f"{number} {int(training)}")
            tables["bounding_boxes"].append(f"{number} {left} {top} {right - left} {bottom - top}")
        for table, lines in tables.items():
            _add_member(tar, f"CUB_200_2011/{table}.txt", ("\n".join(lines) + "\n").encode())
        _add_member(tar, "CUB_200_2011/README", b"Synthetic birds in the layout of CUB-200-2011.\n")


def cub_classes(clade: Clade) -> list[dict[str, str]]:
    """List the classes of a four-rank clade: folder name as in `classes.txt`, then order ... species.

    Folder names lose what separates words, as those of CUB do: `005.Ember_capped_Tolwick`.
    """
    return [
        {
            "class_name": f"{number:03d}.{species.name.replace(' ', '_').replace('-', '_')}",
            **dict(zip(BIRD_RANKS, species.lineage, strict=True)),
        }
        for number, species in enumerate(sorted(clade.species, key=lambda species: species.name), start=1)
    ]


def write_cub_classes(path: Path, clade: Clade) -> None:
    """Write the classes as CSV: the ranks, which the folder names of CUB-200-2011 leave out.

    Args:
        path: the table; its folder is made if absent.
        clade: a four-rank clade.
    """
    rows = cub_classes(clade)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def _tar_gz(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar.gz whose bytes depend on its members only; it is renamed into place when complete."""
    part = path.with_name(path.name + ".part")
    with (
        part.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        yield tar
    part.replace(path)


def _add_member(tar: tarfile.TarFile, member: str, content: bytes) -> None:
    info = tarfile.TarInfo(member)
    info.size, info.mtime, info.mode = len(content), 0, 0o644
    tar.addfile(info, io.BytesIO(content))


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
