"""A small data set, ingested and embedded, that mining and calibration share."""

from pathlib import Path

import pytest

from vltaxon.config import Clip, Dataset, Split
from vltaxon.data.archives import Archive, unpack
from vltaxon.data.ingest import ingest
from vltaxon.demo import tiny_siglip
from vltaxon.demo.archives import write_cub200, write_cub_classes
from vltaxon.demo.clades import BIRD_RANKS, Clade, world
from vltaxon.distractors.embedding import embed


@pytest.fixture(scope="session")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """A barely trained encoder."""
    folder = tmp_path_factory.mktemp("siglip")
    tiny_siglip.train(folder, seed=0, steps=2, batch_size=8, images_per_species=1, threads=1)
    return Clip(engine="zero_shot", name=f"local-dir:{folder}", licence="MIT")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, siglip: Clip) -> dict[str, Path]:
    """Twelve birds, ingested and embedded."""
    folder = tmp_path_factory.mktemp("run")
    clade = Clade("birds", BIRD_RANKS, world()["birds"].species[:12])
    write_cub200(folder / "c.tgz", clade, train=1, test=2, seed=0)
    write_cub_classes(folder / "classes.csv", clade)
    split = Split(archive=folder / "c.tgz")
    words = {"word": "bird", "questions": "cub200", "licence": "-", "ranks": BIRD_RANKS, "scored_levels": (1, 2, 3, 4)}
    dataset = Dataset(source="cub200", classes=folder / "classes.csv", train=split, test=split, **words)
    archive = Archive(folder / "c.tar", folder / "c.parquet")
    unpack(folder / "c.tgz", archive.tar, archive.index)
    paths = {name: folder / f"{name}.parquet" for name in ("taxa", "images", "rejected", "image_vectors", "taxon_vectors")}
    ingest(dataset, {"train": archive, "test": archive}, 0, paths["taxa"], paths["images"], paths["rejected"])
    embed(siglip, paths["images"], paths["taxa"], paths["image_vectors"], paths["taxon_vectors"], threads=2)
    return paths
