"""The demo's archives: the two layouts, and the same bytes again."""

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

from PIL import Image

from vltaxon.demo.archives import cub_classes, write_cub200, write_cub_classes, write_inat21
from vltaxon.demo.clades import SEVEN_RANKS, world


def test_inat21_layout(tmp_path: Path) -> None:
    clades = [world()["plants"], world()["animals"]]
    write_inat21(tmp_path, clades, {"val": 1}, seed=0)
    with tarfile.open(tmp_path / "val.json.tar.gz") as tar:
        [name] = tar.getnames()
        assert name == "val.json"
        member = tar.extractfile(name)
        assert member is not None
        document = json.load(member)
    assert set(document) == {"info", "images", "categories", "annotations", "licenses"}
    assert [c["id"] for c in document["categories"]] == list(range(120))
    with tarfile.open(tmp_path / "val.tar.gz") as tar:
        assert tar.getnames() == [i["file_name"] for i in document["images"]]
        member = tar.extractfile(document["images"][7]["file_name"])
        assert member is not None
        assert Image.open(io.BytesIO(member.read())).size == (168, 168)
    for annotation in document["annotations"]:
        category = document["categories"][annotation["category_id"]]
        file_name = document["images"][annotation["image_id"]]["file_name"]
        ranks = [category[r] for r in SEVEN_RANKS[:-1]] + [category["specific_epithet"]]
        assert category["image_dir_name"] == "_".join([f"{category['id']:05d}", *ranks])
        assert re.fullmatch(rf"val/{category['image_dir_name']}/[0-9a-f-]{{36}}\.jpg", file_name)


def test_archives_are_the_same_bytes_again(tmp_path: Path) -> None:
    digests = set()
    for run in ("a", "b"):
        write_cub200(tmp_path / run / "CUB_200_2011.tgz", world()["birds"], 1, 1, seed=5)
        digests.add(hashlib.sha256((tmp_path / run / "CUB_200_2011.tgz").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_cub200_layout(tmp_path: Path) -> None:
    birds = world()["birds"]
    path = tmp_path / "CUB_200_2011.tgz"
    write_cub200(path, birds, train=1, test=2, seed=0)
    with tarfile.open(path) as tar:
        names = tar.getnames()

        def table(name: str) -> list[list[str]]:
            member = tar.extractfile(f"CUB_200_2011/{name}.txt")
            assert member is not None
            return [line.split(" ") for line in member.read().decode().splitlines()]

        images, classes = table("images"), table("classes")
        labels, split, boxes = (
            table(t) for t in ("image_class_labels", "train_test_split", "bounding_boxes")
        )
    assert len(images) == len(labels) == len(split) == len(boxes) == 32 * 3
    assert [c[1] for c in classes] == [row["class_name"] for row in cub_classes(birds)]
    assert sum(int(flag) for _, flag in split) == 32
    assert all(f"CUB_200_2011/images/{file}" in names for _, file in images)
    by_id = dict(labels)
    for number, file in images:
        assert file.split("/")[0] == dict(classes)[by_id[number]]


def test_cub_folder_names_lose_spaces_and_hyphens(tmp_path: Path) -> None:
    rows = cub_classes(world()["birds"])
    assert all(re.fullmatch(r"\d{3}\.\w+", row["class_name"]) for row in rows)
    assert any("-" in row["species"] for row in rows)
    write_cub_classes(tmp_path / "classes.csv", world()["birds"])
    header = (tmp_path / "classes.csv").read_text().splitlines()[0]
    assert header == "class_name,order,family,genus,species"
