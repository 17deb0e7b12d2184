"""Species in parts: disjoint, complete, seeded, and only those that can be trained on."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from vltaxon import schemas
from vltaxon.config.experiment import Partition
from vltaxon.errors import UserError
from vltaxon.partition import partition
from vltaxon.provenance import read_parquet, write_parquet
from vltaxon.tasks.questions import PartitionTask


def _parts(folder: Path, species: int = 40, untrained: int = 0, seed: int = 0, **asked: float) -> dict[str, str]:
    taxa = [{"leaf": f"s{n:02d}", "level": 1, "rank": "species", "taxon": f"s{n:02d}", "key": "k"} for n in range(species)]
    images = [
        {"image_id": f"{split}{n}", "split": split, "leaf": f"s{n:02d}"}
        for n in range(species)
        for split in ("train", "test")
        if split == "test" or n >= untrained
    ]
    write_parquet(pa.Table.from_pylist(taxa, schema=schemas.TAXA), folder / "taxa.parquet", schemas.TAXA)
    write_parquet(pa.Table.from_pylist(images, schema=schemas.IMAGES), folder / "images.parquet", schemas.IMAGES)
    files = {name: folder / f"{name}.parquet" for name in ("taxa", "images", "parts")}
    partition(PartitionTask(partition=Partition(**asked), seed=seed, **files))
    table = read_parquet(folder / "parts.parquet", schemas.PARTS)
    assert set(table["seed"].to_pylist()) == {seed}
    leaves = table["leaf"].to_pylist()
    assert leaves == [f"s{n:02d}" for n in range(species)]  # each species once
    return dict(zip(leaves, table["part"].to_pylist(), strict=True))


def test_sizes(tmp_path: Path) -> None:
    assert Counter(_parts(tmp_path, held_out=10).values()) == {"held_out": 10, "sft": 15, "grpo": 15}
    assert Counter(_parts(tmp_path, held_out=0, sft_share=0.25).values()) == {"sft": 10, "grpo": 30}


def test_seeded(tmp_path: Path) -> None:
    first = _parts(tmp_path, held_out=10)
    assert first == _parts(tmp_path, held_out=10)
    assert first != _parts(tmp_path, held_out=10, seed=1)


def test_holding_out_more_keeps_those_held_out(tmp_path: Path) -> None:
    few, more = (_parts(tmp_path, held_out=count) for count in (5, 10))
    held = [{leaf for leaf, part in parts.items() if part == "held_out"} for parts in (few, more)]
    assert held[0] < held[1]


def test_species_without_training_images_are_held_out_beside(tmp_path: Path) -> None:
    parts = _parts(tmp_path, untrained=7, held_out=10)
    assert {parts[f"s{n:02d}"] for n in range(7)} == {"held_out"}
    assert Counter(parts.values()) == {"held_out": 17, "sft": 12, "grpo": 11}


@pytest.mark.parametrize("asked", [{"held_out": 39}, {"held_out": 40}, {"held_out": 99}, {"held_out": 30, "sft_share": 0.01}])
def test_a_part_without_species_is_refused(tmp_path: Path, asked: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"held_out .* of 40 with training images"):
        _parts(tmp_path, **asked)
    assert not (tmp_path / "parts.parquet").exists()
