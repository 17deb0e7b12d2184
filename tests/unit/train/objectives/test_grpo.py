from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.conftest import LORA, RANKS, RIGHT_LETTERS, World, step
from vltaxon import checkpoint
from vltaxon.data.images import ImageStore
from vltaxon.engines.transformers import Vlm
from vltaxon.prepared import Lengths, Prepared
from vltaxon.train import adapter, arguments, guards, samples
from vltaxon.train.rewards import accuracy

pytestmark = pytest.mark.numeric


def made(world: World, vlm: Vlm, previous: Path | None, max_new_tokens: int = 4, **changes: Any) -> Any:
    what = step("grpo", samples=(RIGHT_LETTERS,), max_new_tokens=max_new_tokens, **changes)
    drawn = samples.draw(world.task(what))
    rows = samples.dataset(drawn, ImageStore(world.tables["images"]), vlm.pixels, vlm.min_pixels)
    processor, base = checkpoint.load(vlm)
    policy = adapter.with_adapter(base, LORA, previous)
    options = arguments.common_arguments(world.task(what, vlm), world=1, gpu=False)
    return what.trainer(Prepared(policy, processor, rows, options, Lengths(0, 0)))


def test_the_reference_is_the_sft_adapter_and_stays_it(world: World, vlm: Vlm, lettered: Path) -> None:
    trainer = made(world, vlm, lettered)
    parameters = dict(trainer.model.named_parameters())
    copies = {name: name.replace(".default.", ".ref.") for name in parameters if ".default." in name}
    assert copies and all(torch.equal(parameters[name], parameters[ref]) for name, ref in copies.items())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    guards.count_trainable(trainer.model)
    trainer.train()
    moved = {name for name, p in parameters.items() if not torch.equal(before[name], p)}
    assert moved == set(copies), "all of the adapter, nothing of the base or the reference"


def test_batches_hold_whole_groups_of_one_prompt(world: World, vlm: Vlm) -> None:
    batch = next(iter(made(world, vlm, None).get_train_dataloader()))
    assert len(batch) == 16
    assert all(batch[i]["image_id"] == batch[i // 4 * 4]["image_id"] for i in range(16))
    assert all(batch[i]["image"] is batch[i // 4 * 4]["image"] for i in range(16)), "decoded once a group"


def test_the_accuracy_reward_knows_what_the_limit_cut(world: World, vlm: Vlm) -> None:
    """Half a name is no name, and half an option's text behind its letter is enough, as in the metrics."""
    told: list[tuple[str, float]] = []

    def log(name: str, value: float) -> None:
        told.append((name, value))

    trainer = made(world, vlm, None)
    assert trainer.reward_func_names == ["format_reward", "accuracy_reward"], (
        "under which names the curve finds them"
    )
    end = trainer.processing_class.tokenizer.eos_token_id
    texts = ["Genus1 epithet3", "Genus1 epithet3", "B. Gen", "B. Gen"]
    samples = {
        "completions": [[{"role": "assistant", "content": text}] for text in texts],
        "completion_ids": [[7, end], [7, 7], [7, end], [7, 7]],
        "task": ["leaf", "leaf", "answer", "answer"],
        "form": ["bare"] * 4,
        "leaf": ["Genus1 epithet3"] * 4,
        "ranks": [RANKS] * 4,
        "level": [None, None, 2, 2],
        "options": [[], [], ["Ordo0", "Genus1"], ["Ordo0", "Genus1"]],
        "answer_index": [None, None, 1, 1],
    }
    trainer.reward_funcs[0](**samples, reasoned=[False] * 4, prompts=[None] * 4, log_metric=log)
    assert trainer.reward_funcs[1](**samples, prompts=[None] * 4, log_metric=log) == [1, 0, 0, 1]
    assert told == [("reward_level_2", 0.0), ("reward_level_2", 1.0)], "of what is asked by level"


def test_rewards_of_a_run_are_told_why_completions_ended(
    world: World, vlm: Vlm, lettered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A letter and the end mark are two tokens: a limit of one cuts all completions, one of four none."""
    seen: list[str] = []

    def watched(finish_reason: list[str], **columns: Any) -> list[float]:
        seen.extend(finish_reason)
        return [0.0] * len(finish_reason)

    monkeypatch.setattr(accuracy, "reward", watched)
    for limit, reason in ((1, "length"), (4, "stop")):
        seen.clear()
        trainer = made(world, vlm, lettered, limit)
        trainer.args.max_steps = 1
        trainer.train()
        assert len(seen) == 16 and set(seen) == {reason}


def test_vllm_is_asked_as_the_step_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL takes these settings; what it then does with vLLM was not run by us."""
    from trl import GRPOConfig

    assert step("grpo").vllm_arguments(100) == {}
    monkeypatch.setenv(guards.VLLM_SERVER, "http://localhost:8000")
    for generate, expected in (
        ("vllm_colocate", ("colocate", 108, None)),
        ("vllm_server", ("server", None, "http://localhost:8000")),
    ):
        made = GRPOConfig(
            "unused", use_cpu=True, bf16=False, **step("grpo", generate=generate).vllm_arguments(100)
        )
        assert made.use_vllm
        assert (made.vllm_mode, made.vllm_max_model_length, made.vllm_server_base_url) == expected
