"""Which samples an effective batch has: the same on 1, 2, 4 and 8 devices, and where a training goes on."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler
from trl.trainer.utils import RepeatSampler

from vltaxon import batches
from vltaxon.train import sampler

SAMPLES, BATCH, DEVICE = 53, 16, 2


def sft(world: int, done: int = 0) -> list[list[int]]:
    """Samples of every optimiser step of an epoch, as accelerate deals them out to `world` processes."""
    steps = batches.accumulation(BATCH, DEVICE, world)
    args = {
        "per_device_train_batch_size": DEVICE,
        "gradient_accumulation_steps": steps,
        "world_size": world,
        "data_seed": 3,
    }
    trainer: Any = SimpleNamespace(args=SimpleNamespace(**args), state=SimpleNamespace(global_step=done))
    order = sampler.EpochSampler(trainer, SAMPLES, -SAMPLES % (DEVICE * world) if world > 1 else 0)
    dealt = [
        list(BatchSamplerShard(BatchSampler(order, DEVICE, drop_last=False), world, rank)) if world > 1
        else list(BatchSampler(order, DEVICE, drop_last=False))
        for rank in range(world)
    ]  # fmt: skip
    assert len({len(micro) for micro in dealt}) == 1, "or a process would wait for the others for ever"
    return [
        sorted(i for micro in dealt for batch in micro[at : at + steps] for i in batch if i < SAMPLES)
        for at in range(0, len(dealt[0]), steps)
    ]


@pytest.mark.parametrize("world", [2, 4, 8])
def test_an_effective_batch_does_not_hang_on_the_number_of_devices(world: int) -> None:
    assert sft(world) == sft(1)
    assert sorted(i for step in sft(world) for i in step) == list(range(SAMPLES)), "each once"


@pytest.mark.parametrize("world", [1, 2])
def test_an_epoch_has_an_order_of_its_own_wherever_it_is_entered(world: int) -> None:
    first, second = sft(world), sft(world, done=4)
    assert first != second
    assert sft(world, done=3) == first and sft(world, done=6) == second


def test_the_order_is_that_of_the_library_before() -> None:
    """Of one process, so that no adapter changes: accelerate's SeedableRandomSampler."""
    from accelerate.data_loader import SeedableRandomSampler

    theirs = SeedableRandomSampler(range(SAMPLES), data_seed=3)
    for epoch in (0, 1):
        flat = list(theirs)
        assert [sorted(flat[at : at + BATCH]) for at in range(0, SAMPLES, BATCH)] == sft(1, done=4 * epoch)


def test_fillers_teach_nothing() -> None:
    rows = sampler.FilledRows([{"a": 1}, {"a": 2}], 2)
    assert len(rows) == 4 and [rows[i]["filler"] for i in range(4)] == [False, False, True, True]
    collate = sampler.without_fillers(lambda rows: {"labels": torch.ones(len(rows), 3, dtype=torch.long)})
    assert collate([rows[1], rows[2]])["labels"].tolist() == [[1] * 3, [-100] * 3]


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_the_prompts_of_a_grpo_step_are_the_same_and_their_groups_whole(world: int) -> None:
    """Of 32 completions of 4 prompts; a group is whole over all processes, also where each takes fewer."""
    group, batch = 8, 32
    order = RepeatSampler(range(9), mini_repeat_count=group, batch_size=batch // group, shuffle=False)
    dealt = [
        list(BatchSamplerShard(BatchSampler(order, batch // world, drop_last=False), world, r))
        for r in range(world)
    ]
    for number, step in enumerate(zip(*dealt, strict=True)):
        together = [prompt for share in step for prompt in share]
        assert together == [4 * number + i // group for i in range(batch)]
