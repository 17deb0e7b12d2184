"""A small data set, ingested and embedded, that mining and calibration share."""

from pathlib import Path

import pytest

from tests.unit.data.conftest import ingest_into
from tests.unit.encoders.conftest import siglip
from vltaxon.config.datasets import Dataset, Split
from vltaxon.data.archives import Archive, unpack
from vltaxon.demo.archives import write_cub200, write_cub_classes
from vltaxon.demo.clades import BIRD_RANKS, Clade, world
from vltaxon.encoders.embedding import embed
from vltaxon.engines.zero_shot import Clip
from vltaxon.tasks.questions import EmbedTask

__all__ = ["siglip"]


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
    ingest_into(folder, dataset, folder)
    written = {name: paths[name] for name in ("images", "taxa", "image_vectors", "taxon_vectors")}
    embed(EmbedTask(encoder=siglip, batch_size=siglip.batch_size, threads=2, model=(), **written))
    return paths
