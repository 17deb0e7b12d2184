from pathlib import Path
from typing import Any

import torch

from tests.unit.conftest import LORA, RIGHT_LETTERS, World, step
from vltaxon import checkpoint
from vltaxon.config import Vlm
from vltaxon.data.images import ImageStore
from vltaxon.train import arguments, grpo, guards, run, samples


def made(world: World, vlm: Vlm, previous: Path | None) -> Any:
    what = step("grpo", samples=(RIGHT_LETTERS,), max_new_tokens=4)
    drawn = samples.draw(what, **world.words, seed=0)
    rows = samples.dataset(drawn, ImageStore(world.tables["images"]), vlm.pixels, vlm.min_pixels)
    processor, base = checkpoint.load(vlm)
    options = arguments.common(what, vlm.dtype, state=world.folder / "state", seed=0, world=1, gpu=False)
    return grpo.trainer(run.adapted(base, LORA, previous), processor, rows, what, options)


def test_the_reference_is_the_sft_adapter_and_stays_it(world: World, vlm: Vlm, lettered: Path) -> None:
    trainer = made(world, vlm, lettered)
    parameters = dict(trainer.model.named_parameters())
    copies = {name: name.replace(".default.", ".ref.") for name in parameters if ".default." in name}
    assert copies and all(torch.equal(parameters[name], parameters[ref]) for name, ref in copies.items())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    guards.trainable(trainer.model)
    trainer.train()
    moved = {name for name, p in parameters.items() if not torch.equal(before[name], p)}
    assert moved == set(copies), "all of the adapter, nothing of the base or the reference"


def test_batches_hold_whole_groups_of_one_prompt(world: World, vlm: Vlm) -> None:
    batch = next(iter(made(world, vlm, None).get_train_dataloader()))
    assert len(batch) == 16
    assert all(batch[i]["image_id"] == batch[i // 4 * 4]["image_id"] for i in range(16))
    assert all(batch[i]["image"] is batch[i // 4 * 4]["image"] for i in range(16)), "decoded once a group"
