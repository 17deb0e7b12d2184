"""A small whole picture, and ingest of a data set in a folder."""

import io
from pathlib import Path

import pytest
from PIL import Image

from vltaxon.config.datasets import RawDataset
from vltaxon.data.ingest import ingest
from vltaxon.tasks.data import IngestTask

TABLES = ("taxa", "images", "rejected")


@pytest.fixture
def picture() -> bytes:
    """A PNG of 8 x 6 pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, "PNG")
    return buffer.getvalue()


def ingest_into(
    out: Path, dataset: RawDataset, archives: Path, seed: int = 0, threads: int = 1
) -> dict[str, Path]:
    """Ingest a data set, whose unpacked archives lie in a folder; the tables in `out`, by name."""
    paths = {name: out / f"{name}.parquet" for name in TABLES}
    values = {name: getattr(dataset, name) for name in RawDataset.model_fields}
    ingest(
        IngestTask(
            dataset=RawDataset(**values),
            seed=seed,
            archives=archives,
            threads=threads,
            tars=(),
            indexes=(),
            tables=(),
            **paths,
        )
    )
    return paths
