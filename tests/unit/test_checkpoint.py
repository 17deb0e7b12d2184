import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from tests.unit.conftest import World, step, train
from vltaxon import checkpoint as module
from vltaxon.data.images import ImageStore
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError
from vltaxon.inference.transformers_engine import TransformersEngine

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def moving(vlm: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vlm:
    """The checkpoint as the branch main of a hub repository, downloaded before; now there is no network."""
    repository = tmp_path / "models--org--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(vlm.checkpoint, repository / "snapshots" / COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return vlm.model_copy(update={"checkpoint": "org/model", "revision": "main"})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_load_in_the_dtype_of_the_model_file(vlm: Vlm, dtype: str) -> None:
    import torch

    _, weights = module.load(vlm.model_copy(update={"dtype": dtype}))
    assert {parameter.dtype for parameter in weights.parameters()} == {getattr(torch, dtype)}


def test_load_of_a_folder_that_is_no_checkpoint(vlm: Vlm, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not loadable"):
        module.load(vlm.model_copy(update={"checkpoint": str(tmp_path)}))


def test_digest_is_of_the_content_or_of_the_pinned_revision(vlm: Vlm, tmp_path: Path) -> None:
    assert module.digest(vlm.model_copy(update={"checkpoint": "org/model", "revision": COMMIT})) == f"org/model@{COMMIT}"
    (tmp_path / "weights").write_text("1")
    local = vlm.model_copy(update={"checkpoint": str(tmp_path)})
    before = module.digest(local)
    (tmp_path / "weights").write_text("2")
    assert module.digest(local) != before


def test_a_moving_name_is_loaded_and_stamped_as_the_commit_that_it_means(moving: Vlm, world: World) -> None:
    pinned = module.pinned(moving)
    assert pinned.revision == COMMIT and module.pinned(pinned) == pinned
    engine = TransformersEngine(moving, None, ImageStore(world.tables["images"]))
    assert engine.digest == f"org/model@{COMMIT}"
    with pytest.raises(AssertionError, match="moving name"):
        module.digest(moving)


def test_a_moving_name_that_nobody_can_tell(moving: Vlm) -> None:
    with pytest.raises(UserError, match=r"org/other: which commit is its main cannot be found out"):
        module.pinned(moving.model_copy(update={"checkpoint": "org/other"}))


def test_the_adapter_of_a_moving_base_records_its_commit(moving: Vlm, world: World) -> None:
    record = json.loads((train(world, moving, "a", step(batch_size=16)) / "record.json").read_text())
    assert record["base"] == f"org/model@{COMMIT}"
