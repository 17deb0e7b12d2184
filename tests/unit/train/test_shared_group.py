"""GRPO whose groups share their prompt, against TRL's own step: completions, log-probabilities, loss and gradient."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from trl.trainer import grpo_trainer

from tests.unit.conftest import World
from tests.unit.train.objectives.test_grpo import made
from vltaxon import checkpoint
from vltaxon.engines.transformers import Vlm
from vltaxon.inference.shared_prefix import NotShared, SharedPrefix
from vltaxon.train import shared_group

pytestmark = pytest.mark.numeric


def shared(world: World, vlm: Vlm, previous: Path | None, **changes: Any) -> Any:
    """A trainer as a step makes it whose groups share."""
    return made(world, vlm, previous, generate="shared", **changes)


def trainer_of(world: World, vlm: Vlm, previous: Path | None, **changes: Any) -> Any:
    """A trainer as a step makes it, its adapter moved a little off the reference, so that the KL counts."""
    trainer = shared(world, vlm, previous, **changes)
    generator = torch.Generator().manual_seed(1)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.002 * torch.randn(parameter.shape, generator=generator)
    trainer.model.train()
    return trainer


@contextmanager
def as_trl(trainer: Any) -> Iterator[None]:
    """TRL's own way of everything but the shuffle, which would make rows incomparable."""
    trainer.not_shared = "to compare"
    yield
    trainer.not_shared = None


def batches(trainer: Any) -> list[dict[str, Any]]:
    """The micro-batches of the first batch of completions."""
    trainer._step, trainer.current_gradient_accumulation_steps = 0, trainer.args.gradient_accumulation_steps
    trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    return list(trainer._buffered_inputs)


def losses(trainer: Any, given: list[dict[str, Any]]) -> tuple[list[float], torch.Tensor]:
    trainer.model.zero_grad()
    found = []
    for batch in given:
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
        found.append(loss.item())
    grads = [p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad]
    return found, torch.cat(grads)


def test_a_step_is_trl_s_but_for_rounding(world: World, vlm: Vlm, lettered: Path) -> None:
    trainer = trainer_of(world, vlm, lettered, max_new_tokens=6)
    given = batches(trainer)
    assert trainer.not_shared is None
    assert sum(batch["completion_mask"].sum() for batch in given) >= 32, "there is something to compare"
    ours, gradient = losses(trainer, given)
    with as_trl(trainer):
        wanted, theirs = losses(trainer, given)
    assert trainer.not_shared is None
    assert ours == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert theirs.norm() > 0
    assert (gradient - theirs).norm() / theirs.norm() < 1e-4


def test_the_reference_s_log_probabilities_are_trl_s(world: World, vlm: Vlm, lettered: Path) -> None:
    trainer = trainer_of(world, vlm, lettered, max_new_tokens=6)
    for batch in batches(trainer):
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        names = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
        more = {name: batch[name] for name in names if batch.get(name) is not None}
        keep = batch["completion_ids"].shape[1]
        with torch.no_grad(), as_trl(trainer), grpo_trainer.use_adapter(trainer.model, adapter_name="ref"):
            wanted, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, keep, **more)
        gap = (batch["ref_per_token_logps"] - wanted)[batch["completion_mask"].bool()].abs().max()
        assert gap < 1e-4


def test_what_is_written_is_drawn_from_the_policy(world: World, vlm: Vlm, lettered: Path) -> None:
    """Cold, so that it is the likeliest token: what the whole prompt gives alone, adapter and all."""
    trainer = trainer_of(world, vlm, lettered, max_new_tokens=4)
    trainer.temperature = 1e-6
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    given = batches(trainer)
    assert all(torch.equal(before[name], p) for name, p in trainer.model.named_parameters()), "to the bit"
    policy = trainer.model.eval()
    for batch in given:
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        pad = torch.zeros_like(batch["completion_ids"])
        types = batch["mm_token_type_ids"][:, : batch["prompt_ids"].shape[1]]
        with torch.no_grad():
            logits = policy(
                input_ids=ids, attention_mask=mask, pixel_values=batch["pixel_values"],
                image_grid_thw=batch["image_grid_thw"], mm_token_type_ids=torch.cat([types, pad], 1),
            ).logits  # fmt: skip
        start = batch["prompt_ids"].shape[1] - 1
        likeliest = logits[:, start:-1].argmax(-1)
        kept = batch["completion_mask"].bool()
        assert torch.equal(likeliest[kept], batch["completion_ids"][kept])


def test_a_whole_training_shares_and_says_what_it_learnt(world: World, vlm: Vlm, lettered: Path) -> None:
    trainer = shared(world, vlm, lettered)
    trainer.train()
    assert trainer.not_shared is None
    kl = [log["kl"] for log in trainer.state.log_history if "kl" in log]
    assert len(kl) > 1 and all(value == value for value in kl)


def test_a_model_that_does_not_allow_it_is_trained_trl_s_way(
    world: World, vlm: Vlm, lettered: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    def refuses(self: SharedPrefix) -> torch.Tensor:
        raise NotShared("the model does not tell where positions go on after an image")

    monkeypatch.setattr(SharedPrefix, "_deltas", refuses)
    trainer = shared(world, vlm, lettered)
    trainer.args.max_steps = 1
    trainer.train()
    assert "do not share their prompt from here on: the model does not tell" in capsys.readouterr().out
    assert trainer.state.global_step == 1


def test_other_log_probabilities_are_noticed(
    world: World, vlm: Vlm, lettered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shared_group.read_groups
    monkeypatch.setattr(shared_group, "read_groups", lambda *a: (whole(*a)[0] + 0.01, whole(*a)[1]))
    trainer = shared(world, vlm, lettered)
    trainer.args.max_steps = 1
    trainer.train()
    assert "log-probabilities differ" in trainer.not_shared


def test_an_image_is_made_ready_once_a_batch(vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out is what comes out of as many, images of unlike sizes among them."""
    processor = checkpoint.load(vlm)[0]
    noise = np.random.default_rng(0)
    images = [
        Image.fromarray(noise.integers(0, 255, (56, 56 + 28 * (i % 2), 3), dtype=np.uint8)) for i in range(3)
    ]
    rows = [[images[i // 4]] for i in range(12)]
    words = {"text": ["<|vision_start|><|image_pad|><|vision_end|> Which?"] * 12, "padding": True}
    wanted = processor(images=rows, return_tensors="pt", **words)
    made: list[int] = []
    preprocess = type(processor.image_processor).preprocess
    monkeypatch.setattr(
        type(processor.image_processor),
        "preprocess",
        lambda self, images, **given: made.append(len(images)) or preprocess(self, images, **given),
    )
    with shared_group._images_once(processor):
        found = processor(images=rows, return_tensors="pt", **words)
    assert made == [3]
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
