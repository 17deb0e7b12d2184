"""The iNat21 reader on hand-made annotation files: names, kingdoms, and labels that cannot be used."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vltaxon.config.datasets import Dataset, Split
from vltaxon.data.archives import Archive
from vltaxon.data.labels import Labelled
from vltaxon.data.sources.inat21 import read
from vltaxon.errors import UserError

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")


def _category(number: int, kingdom: str, genus: str, epithet: str) -> dict[str, Any]:
    upper = dict(
        zip(RANKS, (kingdom, "P" + kingdom, "C" + kingdom, "O" + kingdom, "F" + kingdom, genus), strict=False)
    )
    return {
        "id": number,
        "name": f"{genus} {epithet}",
        "specific_epithet": epithet,
        "common_name": "?",
        **upper,
    }


def _document() -> dict[str, Any]:
    return {
        "info": {"year": 2021},
        "images": [
            {"id": 10 + n, "file_name": f"val/{n % 3}/uuid-{n}.jpg", "width": 1, "license": 0}
            for n in range(6)
        ],
        "categories": [
            _category(0, "Plantae", "Aa", "x"),
            _category(1, "Plantae", "Aa", "y"),
            _category(2, "Animalia", "Bb", "x"),
        ],
        "annotations": [{"id": 100 + n, "image_id": 10 + n, "category_id": n % 3} for n in range(6)],
        "licenses": [],
    }


def _read(folder: Path, document: object, **options: Any) -> Any:
    raw = folder / "val.json.tar.gz"
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    with tarfile.open(raw, "w:gz") as tar:
        info = tarfile.TarInfo("val.json")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    fixed = {
        "source": "inat21",
        "word": "plant",
        "ranks": RANKS,
        "scored_levels": (2, 7),
        "questions": "inat21",
        "licence": "-",
    }
    split = Split(archive=folder / "val.tar.gz", annotations=options.pop("annotations", raw))
    dataset = Dataset(**(fixed | {"kingdom": "Plantae", "test": split} | options))
    return read(dataset, {"test": Archive(folder / "val.tar", folder / "val.parquet")})


def test_kingdom_names_and_ids(tmp_path: Path) -> None:
    lineages, images = _read(tmp_path, _document())
    upper = ("Plantae", "PPlantae", "CPlantae", "OPlantae", "FPlantae", "Aa")
    assert lineages == {"Aa x": (*upper, "Aa x"), "Aa y": (*upper, "Aa y")}
    assert images == [
        Labelled(
            f"inat21/val/uuid-{n}", "test", "Aa x" if n % 3 == 0 else "Aa y", f"val/{n % 3}/uuid-{n}.jpg"
        )
        for n in (0, 1, 3, 4)
    ]


def test_all_kingdoms_and_a_missing_rank(tmp_path: Path) -> None:
    document = _document()
    document["categories"][2]["order"] = None
    lineages, images = _read(tmp_path, document, kingdom=None)
    assert lineages["Bb x"][3] is None
    assert (len(lineages), len(images)) == (3, 6)


def _without(key: str) -> dict[str, Any]:
    return {name: value for name, value in _document().items() if name != key}


def _changed(key: str, place: int, **values: Any) -> dict[str, Any]:
    document = _document()
    document[key][place] |= values
    return document


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (_without("annotations"), "has no annotations; the public test"),
        (b"{", "damaged"),
        (_changed("categories", 0, kingdom="Plante"), 'kingdom "Plantae" is not'),
        (_changed("categories", 1, order="Other"), "has two lineages"),
        (_changed("categories", 1, name="Aa x"), 'categories 0 and 1 are both "Aa x"'),
        (_changed("annotations", 0, image_id=11), "image 11 has two labels"),
        (_changed("annotations", 0, image_id=99), "val/0/uuid-0.jpg has no annotation"),
    ],
)
def test_unusable_labels(tmp_path: Path, document: object, words: str) -> None:
    if words.startswith("kingdom"):
        document["categories"][1]["kingdom"] = "Plante"  # type: ignore[index]
    with pytest.raises(UserError, match=words):
        _read(tmp_path, document)


def test_categories_of_one_name(tmp_path: Path) -> None:
    """With its author a species is the same; homonyms are told apart where they are allowed."""
    document = _document()
    document["categories"][0]["name"], document["categories"][1]["name"] = "Aa xx", "Aa xx L."
    lineages, images = _read(tmp_path, document)
    assert list(lineages) == ["Aa xx"] and {image.leaf for image in images} == {"Aa xx"}
    document["categories"][1] |= {"family": "Other", "name": "Aa xx"}
    with pytest.raises(UserError, match=r'genus "Aa" has two lineages.*`homonyms: allow`'):
        _read(tmp_path, document)
    lineages, images = _read(tmp_path, document, homonyms="allow")
    assert [path[4] for path in lineages.values()] == ["FPlantae", "Other"]
    assert [image.leaf for image in images] == 2 * list(lineages)


def test_absent_annotations(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        _read(tmp_path, _document(), annotations=tmp_path / "elsewhere.json.tar.gz")
    with pytest.raises(ValidationError, match="needs the JSON archive of every split"):
        _read(tmp_path, _document(), annotations=None)


def test_unknown_rank(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='no rank "tribe"; it has'):
        _read(tmp_path, _document(), ranks=("kingdom", "tribe", "species"), scored_levels=(2,))
