import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.unit.conftest import LETTERS, LORA, RIGHT_LETTERS, TEMPLATE, World, step, train
from vltaxon import checkpoint, provenance, schemas
from vltaxon.config.steps import Lora, Samples, Step
from vltaxon.data.images import ImageStore
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError
from vltaxon.inference.engine import Decoding, Request
from vltaxon.inference.transformers_engine import TransformersEngine
from vltaxon.train import adapter, guards
from vltaxon.train.objectives.grpo import GrpoStep, trend
from vltaxon.train.record import curve_of
from vltaxon.train.step import train_step

pytestmark = pytest.mark.numeric

FILES = {"adapter_model.safetensors", "adapter_config.json", "curve.parquet", "record.json"}
GRPO = step("grpo", samples=(RIGHT_LETTERS.model_copy(update={"levels": "one"}),))


def curve(folder: Path, metric: str) -> list[float]:
    rows = provenance.read_parquet(folder / "curve.parquet", schemas.CURVE).to_pylist()
    return [row["value"] for row in rows if row["metric"] == metric]


def record(folder: Path) -> dict[str, object]:
    return json.loads((folder / "record.json").read_text())


def test_sft_moves_the_adapter_alone(world: World, vlm: Vlm) -> None:
    from safetensors.torch import load_file

    output = train(world, vlm, "1-sft", step())
    assert {p.name for p in output.iterdir()} == FILES
    weights = load_file(output / "adapter_model.safetensors")
    assert all("language_model" in name and "lora_" in name for name in weights)
    assert all(tensor.any() for name, tensor in weights.items() if "lora_B" in name), (
        "a fresh B is zero, a trained one is not"
    )
    facts = record(output)
    assert facts["steps"] == 2 and facts["samples"] == 16 and facts["images"] == 16
    assert facts["trainable_parameters"] == sum(t.numel() for t in weights.values())
    assert facts["adapter_before"] != facts["adapter_after"]
    assert len(curve(output, "loss")) == len(curve(output, "grad_norm")) == 2
    assert not (world.folder / ".state" / "1-sft").exists()


def test_sft_learns(lettered: Path) -> None:
    losses = curve(lettered, "loss")
    assert losses[-1] < losses[0] / 5


def test_grpo_continues_the_adapter_and_its_kl_starts_at_nothing(
    world: World, vlm: Vlm, lettered: Path
) -> None:
    output = train(world, vlm, "2-grpo", GRPO, previous=lettered)
    facts = record(output)
    assert facts["adapter_before"] == record(lettered)["adapter_after"]
    assert facts["adapter_after"] != facts["adapter_before"]
    assert facts["steps"] == 2 and facts["samples"] == 8
    assert facts["previous"] == provenance.digest_file(lettered / "adapter_model.safetensors")
    kl = curve(output, "kl")
    assert kl[0] == pytest.approx(0, abs=1e-6) and kl[1] > 1e-6
    assert any(curve(output, "reward_accuracy")) and len(curve(output, "frac_zero_variance")) == 2
    config = json.loads((output / "adapter_config.json").read_text())
    assert config["r"] == 4 and not (output / "ref").exists()


@pytest.mark.parametrize("generate", ["shared", "transformers"])
def test_dropout_is_not_paid_for_as_if_it_were_kl(
    world: World, vlm: Vlm, lettered: Path, generate: str
) -> None:
    what = GRPO.model_copy(update={"lora": LORA.model_copy(update={"dropout": 0.5}), "generate": generate})
    output = train(world, vlm, "2-grpo", what, previous=lettered)
    assert curve(output, "kl")[0] == pytest.approx(0, abs=1e-6), "the policy is still the reference"


def test_the_reward_is_told_by_level(world: World, vlm: Vlm, lettered: Path) -> None:
    output = train(
        world, vlm, "2-grpo", GRPO.model_copy(update={"samples": (RIGHT_LETTERS,)}), previous=lettered
    )
    levels = {name for name in pl.read_parquet(output / "curve.parquet")["metric"] if "level" in name}
    told = record(output)["reward_by_level"]
    assert levels == {f"reward_level_{level}" for level in told} and told
    sums = [np.mean(curve(output, name)) for name in levels]
    assert min(sums) <= np.mean(curve(output, "reward")) <= max(sums)
    assert record(output)["warnings"] == []


def test_a_level_that_falls_below_its_start_is_warned_of() -> None:
    falls = trend([1.0, 0.9, 1.0, 0.8, 0.7, 0.6, 0.3, 0.2, 0.1])
    noise = trend([1.0, 1.4, 1.1, 1.3, 1.2, 1.0, 1.0, 1.1, 1.3])
    with pytest.warns(
        RuntimeWarning, match="the reward of level 5 fell in the training, from 0.97 .* to 0.20"
    ):
        said = guards.warn_of_fallen({"3": noise, "5": falls, "7": trend([0.1, 0.2, 0.4, 0.5, 0.7, 0.8])})
    assert len(said) == 1


@pytest.mark.parametrize("what", [step(), GRPO], ids=["sft", "grpo"])
def test_same_seed_same_adapter(world: World, vlm: Vlm, lettered: Path, what: Step) -> None:
    start = None if what.kind == "sft" else lettered
    first, again = train(world, vlm, "a", what, start), train(world, vlm, "b", what, start)
    assert record(first)["adapter_after"] == record(again)["adapter_after"]
    assert (first / "curve.parquet").read_bytes() == (again / "curve.parquet").read_bytes()
    other = train(world, vlm, "c", what, start, seed=1)
    assert record(other)["adapter_after"] != record(first)["adapter_after"]


def test_a_failed_step_leaves_no_adapter_and_can_start_again(world: World, vlm: Vlm) -> None:
    with pytest.raises(UserError, match="diverged"):
        train(world, vlm, "1-sft", step(learning_rate=1e30))
    assert not (world.folder / "1-sft").exists()
    train(world, vlm, "1-sft", step())
    assert {p.name for p in (world.folder / "1-sft").iterdir()} == FILES


@pytest.mark.parametrize(
    ("what", "later", "said"),
    [
        (
            step("grpo", warmup=0.03),
            (),
            "8 samples make 2 optimiser steps (batch_size 16, epochs 1), and warmup 0.03 gives the first a "
            "learning rate of 0; an adapter needs two that change it.",
        ),
        (step(epochs=0.4), (), "16 samples make 1 optimiser step (batch_size 8, epochs 0.4); an adapter"),
        (step(), (step("grpo", warmup=0.5),), "the grpo step after this one: 8 samples make 2 optimiser"),
    ],
)
def test_steps_that_would_teach_nothing_are_refused_before_a_model_is_loaded(
    world: World, what: Step, later: tuple[Step, ...], said: str
) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        train_step(world.task(what, later=later))


@pytest.mark.parametrize(("kind", "batch"), [("sft", 24), ("grpo", 20)])
def test_steps_are_counted_as_the_trainer_has_them(
    world: World, vlm: Vlm, lettered: Path, kind: str, batch: int
) -> None:
    """The last of an epoch lacks some samples: SFT takes it, GRPO does not."""
    own = {"samples": (LETTERS if kind == "sft" else RIGHT_LETTERS,), "device_batch_size": 4}
    what = step(kind, **own, batch_size=batch, epochs=1.5)
    facts = record(train(world, vlm, "o", what, lettered if kind == "grpo" else None))
    assert int(str(facts["samples"])) % (24 if kind == "sft" else 5)
    assert facts["steps"] == what.steps(int(str(facts["samples"])))


def test_several_turns_learn_every_answer_and_no_question(world: World, vlm: Vlm) -> None:
    """Two or three questions an image; all that is learnt is a letter, `<|im_end|>` and a line's end of
    each.
    """
    import torch
    from transformers import AutoProcessor

    spec = Samples(task="answer", prompt="direct", target="answer", form="bare", turns="multi")
    said = "{% generation %}{{ m['content'][0]['text'] }}<|im_end|>\n{% endgeneration %}"
    template = TEMPLATE.replace(
        "{% for c in", "{% if m['role'] == 'assistant' %}" + said + "{% else %}{% for c in"
    )
    template = template.replace("<|im_end|>\n{% endfor %}", "<|im_end|>\n{% endif %}{% endfor %}")
    folder = world.folder / "marked"
    shutil.copytree(vlm.checkpoint, folder)
    (folder / "chat_template.jinja").write_text(template)
    marking = vlm.model_copy(update={"checkpoint": str(folder)})
    batches: list[torch.Tensor] = []

    def watch(labels: torch.Tensor) -> None:
        batches.append(labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guards, "check_labels", watch)
        output = train(world, marking, "1-sft", step(samples=(spec,), epochs=8))
    tokens = AutoProcessor.from_pretrained(folder).tokenizer
    for labels in batches[0]:
        learnt = tokens.decode(labels[labels != -100])
        assert re.fullmatch(r"([AB]<\|im_end\|>\n){2,3}", learnt), learnt
    assert record(output)["samples"] == 16 and 2 <= record(output)["trained_tokens_per_sample"] <= 3
    losses = curve(output, "loss")
    assert losses[-1] < losses[0] / 2


def test_several_turns_need_a_template_that_tells_the_answers(world: World, vlm: Vlm) -> None:
    spec = Samples(task="answer", prompt="direct", target="answer", form="bare", turns="multi")
    with pytest.raises(UserError, match="turns multi: the loss cannot be kept to the answers"):
        train(world, vlm, "1-sft", step(samples=(spec,)))


def test_an_adapter_merges_into_a_checkpoint_like_any_other(world: World, vlm: Vlm, lettered: Path) -> None:
    checkpoint.merge(vlm, lettered, world.folder / "merged")
    merged = vlm.model_copy(update={"checkpoint": str(world.folder / "merged")})
    store = ImageStore(world.tables["images"])
    asked = [Request(i, "Which?\nA. x\nB. y") for i in world.column("images", "image_id")[:4]]
    adapted, alone = TransformersEngine(vlm, lettered, store), TransformersEngine(merged, None, store)
    assert [r.completion for _, r in adapted.generate(asked, Decoding(4))] == [
        r.completion for _, r in alone.generate(asked, Decoding(4))
    ]


def test_trend_tells_a_rise_from_noise() -> None:
    rise = trend([1.0, 1.1, 1.0, 1.2, 1.3, 1.2, 1.4, 1.5, 1.4])
    assert rise["first_third"] == pytest.approx(3.1 / 3) and rise["last_third"] == pytest.approx(4.3 / 3)
    assert rise["tau"] > 0.7 and rise["p"] < 0.01
    assert trend([1.0, 1.4, 1.1, 1.3, 1.2, 1.0, 1.4, 1.1, 1.3])["p"] > 0.3


def test_curve_has_our_names_and_no_gaps() -> None:
    history = [
        {
            "step": 1,
            "loss": 0.5,
            "rewards/format_reward/mean": 1,
            "rewards/accuracy_reward/mean": None,
            "epoch": 0.5,
        },
        {"step": 2, "loss": 0.25, "kl": 0.0, "step_time": 3.1, "reward_level_7": 1.5, "reward_level_4": 0.5},
        {"step": 2, "train_runtime": 7.0},
    ]
    assert curve_of(history, GrpoStep.columns()) == [
        (1, "loss", 0.5),
        (1, "reward_format", 1.0),
        (2, "loss", 0.25),
        (2, "reward_level_4", 0.5),
        (2, "reward_level_7", 1.5),
        (2, "kl", 0.0),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lora": Lora(rank=8, alpha=8)}, "adapter has r 4, this step asks for 8"),
        (
            {"lora": Lora(rank=4, alpha=8, targets=r".*language_model.*\.q_proj")},
            "adapter has target_modules",
        ),
    ],
)
def test_a_chain_keeps_one_adapter_shape(
    world: World, vlm: Vlm, lettered: Path, change: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        train(world, vlm, "2-grpo", GRPO.model_copy(update=change), lettered)


def test_dropout_may_differ_along_a_chain(vlm: Vlm, lettered: Path) -> None:
    _, base = checkpoint.load(vlm)
    policy = adapter.with_adapter(base, Lora(rank=4, alpha=8, dropout=0.25), lettered)
    assert {m.p for name, m in policy.named_modules() if name.endswith("lora_dropout.default")} == {0.25}
