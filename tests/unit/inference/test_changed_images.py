"""An image that changes after it was ingested is not answered, embedded, trained on or shown as what it was."""

from pathlib import Path

import pytest

from tests.unit.conftest import PROMPTS, World, build, step, train
from tests.unit.inference.tasks import asking, leaf_task
from vltaxon import provenance, schemas
from vltaxon.config.protocols import Stage
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError
from vltaxon.inference import run

LEAF = Stage(name="leaf", prompt="stage1", form="bare", max_new_tokens=4)


def _completions(world: World, vlm: Vlm, name: str) -> list[str]:
    output = world.folder / name
    run.predict_leaf(leaf_task(world, output, asking(LEAF, PROMPTS["stage1"], vlm)))
    return provenance.read_parquet(output, schemas.PREDICTIONS)["completion"].to_pylist()


def _swapped(world: World, one: int, other: int) -> None:
    """Put an image of the tar in place of another, cut or filled to its size."""
    archive = world.folder / "images.tar"
    data = bytearray(archive.read_bytes())
    at, size = (world.column("images", name) for name in ("offset", "size"))
    new = bytes(data[at[other] : at[other] + size[other]]).ljust(size[one], b"\0")[: size[one]]
    data[at[one] : at[one] + size[one]] = new
    archive.write_bytes(data)


def test_it_is_not_answered_under_the_digest_that_it_had(world: World, vlm: Vlm, tmp_path: Path) -> None:
    """Put back, it is asked, and gets the answer that it would have got."""
    (tmp_path / "untouched").mkdir()
    wanted = _completions(build(tmp_path / "untouched"), vlm, "leaf.parquet")
    whole, ids = (world.folder / "images.tar").read_bytes(), world.column("images", "image_id")
    _swapped(world, ids.index("test/5_4"), ids.index("test/1_4"))
    with pytest.raises(UserError, match=r"images\.tar: test/5_4 in it has changed since it was ingested"):
        _completions(world, vlm, "leaf.parquet")
    (world.folder / "images.tar").write_bytes(whole)
    assert _completions(world, vlm, "leaf.parquet") == wanted


def test_it_is_not_trained_on(world: World, vlm: Vlm) -> None:
    ids = world.column("images", "image_id")
    for number in range(4):
        _swapped(world, ids.index(f"train/0_{number}"), ids.index("train/6_0"))
    with pytest.raises(UserError, match=r"train/0_\d in it has changed since it was ingested"):
        train(world, vlm, "1-sft", step())
