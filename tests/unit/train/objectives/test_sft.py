import pytest
import torch

from tests.unit.conftest import LETTERS, LORA, World, step, train
from vltaxon import checkpoint, provenance, schemas
from vltaxon.data.images import ImageStore
from vltaxon.engines.transformers import Vlm
from vltaxon.prepared import Lengths, Prepared
from vltaxon.train import adapter, arguments, samples

pytestmark = pytest.mark.numeric


def test_only_the_adapter_moves_and_only_the_answer_is_learnt(world: World, vlm: Vlm) -> None:
    what, seed = step(), 0
    drawn = samples.draw(world.task(what, seed=seed))
    rows = samples.dataset(drawn, ImageStore(world.tables["images"]), vlm.pixels, vlm.min_pixels)
    processor, base = checkpoint.load(vlm)
    policy = adapter.with_adapter(base, LORA, None)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    options = arguments.common_arguments(world.task(what, vlm, seed=seed), world=1, gpu=False)
    trainer = what.trainer(Prepared(policy, processor, rows, options, Lengths(0, 0)))
    learnt = trainer.data_collator([rows[0]])["labels"][0]
    assert processor.tokenizer.decode(learnt[learnt != -100]) == drawn[0].target + "<|im_end|>\n"
    trainer.train()
    for name, parameter in policy.named_parameters():
        assert torch.equal(before[name], parameter) == (".default." not in name), name


def test_the_loss_does_not_hang_on_the_device_batch(world: World, vlm: Vlm) -> None:
    """Answers of different lengths: every token of the effective batch has the same weight."""
    mixed = (LETTERS, LETTERS.model_copy(update={"target": "reasoning", "form": "tagged"}))
    losses = []
    for size in (10, 2):
        what = step(samples=mixed, epochs=0.2, batch_size=10, device_batch_size=size)
        rows = provenance.read_parquet(
            train(world, vlm, str(size), what) / "curve.parquet", schemas.CURVE
        ).to_pylist()
        losses.append([row["value"] for row in rows if row["metric"] == "loss"])
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
