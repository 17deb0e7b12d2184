"""Ingest, on the demo's archives and on damaged ones: which images, which tables, what is left out and
why.
"""

import gzip
import io
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from tests.unit.data.conftest import ingest_into
from vltaxon import schemas
from vltaxon.config.datasets import Dataset, Split
from vltaxon.data.archives import located, unpack
from vltaxon.data.images import ImageStore
from vltaxon.data.ingest import _chosen
from vltaxon.data.labels import Labelled
from vltaxon.demo.archives import write_cub200, write_cub_classes, write_inat21
from vltaxon.demo.clades import BIRD_RANKS, SEVEN_RANKS, Clade, world
from vltaxon.errors import UserError
from vltaxon.provenance import read_parquet
from vltaxon.taxonomy import Taxonomy


def _few(name: str, count: int) -> Clade:
    clade = world()[name]
    return Clade(clade.name, clade.ranks, clade.species[:count])


def _plants(raw: Path, **options: Any) -> Dataset:
    splits = {
        split: Split(
            archive=raw / f"{name}.tar.gz",
            annotations=raw / f"{name}.json.tar.gz",
            images_per_leaf=options.get(split),
        )
        for split, name in (("train", "train_mini"), ("test", "val"))
    }
    kingdom = world()["plants"].species[0].lineage[0]
    words = {
        "word": "plant",
        "questions": "inat21",
        "licence": "-",
        "max_rejected": options.get("max_rejected", 0.001),
    }
    return Dataset(
        source="inat21", kingdom=kingdom, ranks=SEVEN_RANKS, scored_levels=(2, 7), **words, **splits
    )


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_inat21(folder, [_few("plants", 4), _few("animals", 2)], {"train_mini": 4, "val": 2}, seed=0)
    write_cub200(folder / "CUB_200_2011.tgz", _few("birds", 3), train=2, test=1, seed=0)
    write_cub_classes(folder / "classes.csv", _few("birds", 3))
    return folder


def _ingested(dataset: Dataset, folder: Path, seed: int = 0, threads: int = 1) -> dict[str, pa.Table]:
    archives = located(dataset, folder)
    raws = {split: part.archive for split, part in (("train", dataset.train), ("test", dataset.test)) if part}
    for split, archive in archives.items():
        unpack(raws[split], archive.tar, archive.index)
    paths = ingest_into(folder, dataset, folder, seed, threads)
    forms = (schemas.TAXA, schemas.IMAGES, schemas.REJECTED)
    return {name: read_parquet(path, form) for (name, path), form in zip(paths.items(), forms, strict=True)}


def test_inat_tables(raw: Path, tmp_path: Path) -> None:
    tables = _ingested(_plants(raw), tmp_path)
    species = _few("plants", 4).species
    assert Taxonomy.from_table(tables["taxa"]).lineages == {one.name: one.lineage for one in species}
    images = tables["images"]
    assert Counter(zip(images["split"].to_pylist(), images["leaf"].to_pylist(), strict=True)) == {
        (split, one.name): count for one in species for split, count in (("train", 4), ("test", 2))
    }
    assert images["image_id"].to_pylist() == sorted(images["image_id"].to_pylist())
    assert tables["rejected"].num_rows == 0
    store = ImageStore(images)
    for row in images.to_pylist()[::5]:
        assert store.open(row["image_id"]).size == (row["width"], row["height"]) == (168, 168)


def test_cub_shares_one_archive(raw: Path, tmp_path: Path) -> None:
    split = Split(archive=raw / "CUB_200_2011.tgz")
    words = {
        "word": "bird",
        "questions": "cub200",
        "licence": "-",
        "ranks": BIRD_RANKS,
        "scored_levels": (1, 2, 3, 4),
    }
    dataset = Dataset(source="cub200", classes=raw / "classes.csv", train=split, test=split, **words)
    images = _ingested(dataset, tmp_path)["images"]
    assert Counter(images["split"].to_pylist()) == {"train": 6, "test": 3}
    assert len(set(images["archive"].to_pylist())) == 1


def test_choice_of_images_is_seeded_and_nested(raw: Path, tmp_path: Path) -> None:
    def chosen(count: int, seed: int, place: str, threads: int = 1) -> list[str]:
        images = _ingested(_plants(raw, train=count), tmp_path / place, seed, threads)["images"]
        return images.filter(pc.equal(images["split"], "train"))["image_id"].to_pylist()

    two = chosen(2, 0, "a")
    assert len(two) == 8
    assert two == chosen(2, 0, "b", threads=3)
    assert set(two) < set(chosen(3, 0, "c"))
    assert two != chosen(2, 1, "d")


def test_same_seed_same_bytes(raw: Path, tmp_path: Path) -> None:
    first, again = [], []
    for found in (first, again):
        _ingested(_plants(raw, test=1), tmp_path)
        found += [(tmp_path / f"{name}.parquet").read_bytes() for name in ("taxa", "images", "rejected")]
    assert first == again


def _rewritten(path: Path, change: Any) -> None:
    """Pass every member of a tar.gz through `change(place, name, content)`; None drops it."""
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(path.read_bytes()))) as tar:
        members = [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w:gz") as tar:
        for place, (info, content) in enumerate(members):
            if (new := change(place, info.name, content)) is not None:
                info.size = len(new)
                tar.addfile(info, io.BytesIO(new))


def test_broken_absent_leaked_and_turned_images(tmp_path: Path) -> None:
    write_inat21(tmp_path, [_few("plants", 2)], {"train_mini": 4, "val": 2}, seed=0)
    kept: list[bytes] = []
    _rewritten(tmp_path / "val.tar.gz", lambda place, name, content: kept.append(content) or content)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(turned, "JPEG", exif=exif)
    changes = {0: lambda c: c[:400], 1: lambda c: None, 2: lambda c: kept[0], 3: lambda c: turned.getvalue()}
    _rewritten(
        tmp_path / "train_mini.tar.gz", lambda place, name, content: changes.get(place, lambda c: c)(content)
    )
    tables = _ingested(_plants(tmp_path, max_rejected=2 / 12), tmp_path / "out")
    reasons = sorted(tables["rejected"]["reason"].to_pylist())
    assert [reason.split(":")[0] for reason in reasons] == [
        "OSError",
        "not in the archive",
        "same bytes as a test image",
    ]
    assert tables["images"].num_rows == 12 - 3
    assert (20, 30) in zip(
        tables["images"]["width"].to_pylist(), tables["images"]["height"].to_pylist(), strict=True
    )


def test_a_split_without_images(tmp_path: Path) -> None:
    write_inat21(tmp_path, [_few("plants", 1)], {"train_mini": 1, "val": 1}, seed=0)
    _rewritten(tmp_path / "val.tar.gz", lambda place, name, content: b"no image")
    with pytest.raises(UserError, match="no image of the test split"):
        _ingested(_plants(tmp_path, max_rejected=1), tmp_path)


def test_rank_goes_into_the_key_of_a_shared_name(tmp_path: Path) -> None:
    """As in CUB, where two classes are genera (Geococcyx, Sayornis)."""
    clade = _few("birds", 2)
    write_cub200(tmp_path / "CUB_200_2011.tgz", clade, train=0, test=1, seed=0)
    write_cub_classes(tmp_path / "classes.csv", clade)
    genus, leaf = clade.species[0].lineage[2:]
    text = (tmp_path / "classes.csv").read_text(encoding="utf-8")
    (tmp_path / "classes.csv").write_text(text.replace(f",{leaf}\n", f",{genus}\n"), encoding="utf-8")
    words = {
        "word": "bird",
        "questions": "cub200",
        "licence": "-",
        "ranks": BIRD_RANKS,
        "scored_levels": (1,),
    }
    split = Split(archive=tmp_path / "CUB_200_2011.tgz")
    taxa = _ingested(
        Dataset(source="cub200", classes=tmp_path / "classes.csv", test=split, **words), tmp_path
    )["taxa"]
    keys = {row["rank"]: row["key"] for row in taxa.to_pylist() if row["leaf"] == genus}
    assert keys["genus"] == f"genus:{genus.lower()}"
    assert keys["species"] == f"species:{genus.lower()}"
    assert keys["order"] == clade.species[0].lineage[0].lower()


def test_too_many_broken_images_stop_it(tmp_path: Path) -> None:
    write_inat21(tmp_path, [_few("plants", 2)], {"train_mini": 4, "val": 2}, seed=0)
    changes = {0: lambda c: c[:400], 1: lambda c: None, 2: lambda c: c[:500], 3: lambda c: b"<html>"}
    _rewritten(
        tmp_path / "train_mini.tar.gz", lambda place, name, content: changes.get(place, lambda c: c)(content)
    )
    with pytest.raises(UserError) as caught:
        _ingested(_plants(tmp_path, max_rejected=0.2), tmp_path / "out")
    first, *reasons, last = str(caught.value).splitlines()
    assert (
        first
        == "4 of 12 chosen images (33.33%) are absent or broken, more than max_rejected (20.00%) allows:"
    )
    assert reasons[0].startswith("  2 x OSError: ") and reasons[0].count(".jpg of ") == 2
    assert any(line.startswith("  1 x not in the archive: train_mini/") for line in reasons)
    assert "raise max_rejected in the data set's file" in last
    assert not list((tmp_path / "out").glob("images.parquet"))
    assert _ingested(_plants(tmp_path, max_rejected=0.34), tmp_path / "out")["rejected"].num_rows == 4


def test_one_in_a_thousand_is_the_default() -> None:
    assert Dataset.model_fields["max_rejected"].default == 0.001


def test_two_labels_of_one_id_are_named() -> None:
    """Whichever source gives them; it was a TypeError."""
    twice = [Labelled("a", split, leaf, "m") for split, leaf in (("train", "G x"), ("test", "G y"))]
    dataset = _plants(Path("raw"))
    with pytest.raises(
        UserError, match=r"1 images are labelled more than once, as a: G x \(train\), G y \(test\)"
    ):
        _chosen(dataset, [*twice, Labelled("b", "test", "G y", "n")], 0)
