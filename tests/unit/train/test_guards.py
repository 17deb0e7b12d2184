"""Each guard, against the mistake that it is there for."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data import families
from tests.unit.conftest import LORA, PROMPTS, World, step, train
from vltaxon import checkpoint
from vltaxon.config.steps import Lora
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError
from vltaxon.partition import allowed_parts
from vltaxon.train import adapter, guards, samples
from vltaxon.train.step import train_step


def drawn(world: World) -> list[samples.Sample]:
    return samples.draw(world.task(step()))


def policy(vlm: Vlm, targets: str) -> Any:
    return adapter.with_adapter(checkpoint.load(vlm)[1], LORA.model_copy(update={"targets": targets}), None)


def test_two_gpus_in_one_process() -> None:
    guards.check_devices(2, 2)
    guards.check_devices(0, 1)
    guards.check_devices(2, 1, holding=2)
    with pytest.raises(UserError, match=r"2 GPUs are visible.*`train_gpus: 2` in the model's file"):
        guards.check_devices(2, 1)
    with pytest.raises(UserError, match="4 training processes need a device each, and 2 are visible"):
        guards.check_devices(2, 4)
    with pytest.raises(UserError, match=r"take 4 devices .* 2 processes"):
        guards.check_devices(4, 2, holding=4)


def test_shares_of_the_weights_need_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    guards.check_devices(0, 2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    guards.check_devices(2, 2)
    with pytest.raises(UserError, match="there is none; on the CPU use ddp"):
        guards.check_devices(0, 2)


def test_vllm_must_be_here_to_generate(monkeypatch: pytest.MonkeyPatch) -> None:
    guards.check_vllm("transformers")
    if importlib.util.find_spec("vllm") is None:
        with pytest.raises(
            UserError,
            match="`generate: vllm_colocate` needs vLLM in this environment, and it is not installed",
        ):
            guards.check_vllm("vllm_colocate")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    guards.check_vllm("vllm_colocate")
    with pytest.raises(
        UserError, match="needs the address of a running `trl vllm-serve` in VLTAXON_VLLM_SERVER"
    ):
        guards.check_vllm("vllm_server")
    monkeypatch.setenv(guards.VLLM_SERVER, "http://localhost:8000")
    guards.check_vllm("vllm_server")


@pytest.mark.parametrize(
    ("image_id", "words"),
    [
        ("test/0_4", "of the test split"),
        ("train/6_0", "of the held_out part"),
        ("train/4_0", "of the grpo part"),
        ("x", "of the no split"),
    ],
)
def test_leaks(world: World, image_id: str, words: str) -> None:
    found, tables = drawn(world), world.tables
    guards.check_leaks(found, tables["images"], tables["parts"], allowed_parts("sft"))
    found[-1] = replace(found[-1], image_id=image_id)
    with pytest.raises(UserError, match=words):
        guards.check_leaks(found, tables["images"], tables["parts"], allowed_parts("sft"))


def test_held_out_is_in_no_part() -> None:
    assert all("held_out" not in allowed_parts(part) for part in ("sft", "grpo", "all"))


def test_dtype_other_than_the_files(vlm: Vlm) -> None:
    _, base = checkpoint.load(vlm)
    guards.check_dtype(base, "float32")
    with pytest.raises(UserError, match="weights are float32, the model file says bfloat16"):
        guards.check_dtype(base, "bfloat16")


def test_adapter_loaded_for_inference(vlm: Vlm, lettered: Path) -> None:
    from peft import PeftModel

    with pytest.raises(UserError, match="no parameter is trainable"):
        guards.count_trainable(PeftModel.from_pretrained(checkpoint.load(vlm)[1], str(lettered)))
    assert guards.count_trainable(adapter.with_adapter(checkpoint.load(vlm)[1], LORA, lettered)) > 0


def test_base_weights_left_trainable(vlm: Vlm) -> None:
    model = policy(vlm, LORA.targets)
    next(p for name, p in model.named_parameters() if "visual" in name).requires_grad_(True)
    with pytest.raises(UserError, match="1 parameters outside the adapter are trainable"):
        guards.count_trainable(model)


@pytest.mark.parametrize(
    "targets", ["all-linear", r".*\.(q|k|v|o|gate|up|down)_proj", r".*(q_proj|merger\.mlp\.0)"]
)
def test_vision_modules_adapted(vlm: Vlm, targets: str) -> None:
    with pytest.raises(UserError, match=r"modules outside the language model, model.visual"):
        guards.list_adapted_modules(policy(vlm, targets))


def test_default_targets_hit_all_linear_layers_of_the_language_model(vlm: Vlm) -> None:
    names = guards.list_adapted_modules(policy(vlm, Lora().targets))
    assert len(names) == 2 * 7 and all("language_model.layers" in name for name in names)


def test_targets_that_match_nothing(vlm: Vlm) -> None:
    with pytest.raises(UserError, match=r"lora.targets"):
        policy(vlm, "nonsense")


@pytest.mark.parametrize(("text", "count"), [("no picture", 0), ("<|image_pad|> and <|image_pad|>", 2)])
def test_placeholders(text: str, count: int) -> None:
    guards.check_placeholders([("a", "<|image_pad|> what?")], "<|image_pad|>")
    with pytest.raises(UserError, match=f"sample of b has {count} image placeholders"):
        guards.check_placeholders([("a", "<|image_pad|>"), ("b", text)], "<|image_pad|>")


def test_a_prompt_that_spells_the_image_token(world: World, vlm: Vlm) -> None:
    spelling = {"stage1": PROMPTS["stage1"].model_copy(update={"text": "<|image_pad|> {word}"})}
    with pytest.raises(UserError, match="has 2 image placeholders"):
        train_step(world.task(step(), vlm, prompts=spelling))


def test_samples_longer_than_the_context(world: World, vlm: Vlm) -> None:
    guards.check_context(100, 412, 512)
    guards.check_context(10**9, 0, None)
    with pytest.raises(UserError, match="may get 480 more, the model's context has 512"):
        train(world, vlm, "o", step("grpo", max_new_tokens=480))


def test_max_length() -> None:
    guards.check_max_length(None)
    with pytest.raises(UserError, match="max_length is 1024"):
        guards.check_max_length(1024)


def test_answers_cut_off_train_nothing(world: World, vlm: Vlm) -> None:
    """TRL's own collator, told a max_length that spares the image and cuts the answer."""
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    from vltaxon.data.images import ImageStore

    processor, _ = checkpoint.load(vlm)
    rows = samples.dataset(drawn(world), ImageStore(world.tables["images"]), 3136, 3136)
    whole = DataCollatorForVisionLanguageModeling(processor, max_length=None, completion_only_loss=True)
    guards.check_labels(whole([rows[0], rows[1]])["labels"])
    cut = DataCollatorForVisionLanguageModeling(processor, max_length=30, completion_only_loss=True)
    with pytest.raises(UserError, match="2 of 2 samples have no token to learn"):
        guards.check_labels(cut([rows[0], rows[1]])["labels"])


@pytest.mark.parametrize("logs", [{"loss": float("nan")}, {"loss": 1.0, "grad_norm": float("inf")}])
def test_divergence(logs: dict[str, float]) -> None:
    guards.check_finite(1, {"loss": 1.0, "grad_norm": 0.0})
    guards.check_finite(1, {"train_runtime": 1.0})
    with pytest.raises(UserError, match="at step 7: training has diverged"):
        guards.check_finite(7, logs)


def test_an_adapter_that_stays(world: World, vlm: Vlm) -> None:
    """A random model is never right: all rewards are 0, the KL term too, and nothing moves."""
    with (
        pytest.warns(RuntimeWarning, match="100% of the GRPO groups"),
        pytest.raises(UserError, match="nothing was learnt"),
    ):
        train(world, vlm, "o", step("grpo"))
    assert not (world.folder / "o").exists()


def test_groups_without_variance() -> None:
    with pytest.warns(RuntimeWarning, match="75% of the GRPO groups have no variance in reward .limit 70%"):
        assert guards.share_without_variance([0.5, 1.0], 0.7) == 0.75
    assert guards.share_without_variance([0.5, 1.0], 0.8) == 0.75
    assert torch.isfinite(torch.tensor(guards.share_without_variance([], 0.8)))


# -- the same mistakes made in a step: each guard is asked, and before anything is written
# -------------------------------------

Spoil = Callable[[pytest.MonkeyPatch, Path], None]


def several_gpus(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.delenv("WORLD_SIZE", raising=False)
    patch.setattr(torch.cuda, "device_count", lambda: 2)


def batch_of_one_device_on_two(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setenv("WORLD_SIZE", "2")
    patch.setattr(checkpoint, "load", None)  # found out before a model is loaded


def drawing(image_id: str) -> Spoil:
    """A draw that takes an image it must not."""
    draw = samples.draw

    def leaking(*args: Any, **values: Any) -> list[samples.Sample]:
        *rest, last = draw(*args, **values)
        return [*rest, replace(last, image_id=image_id)]

    return lambda patch, _: patch.setattr(samples, "draw", leaking)


def loaded_in_half(patch: pytest.MonkeyPatch, _: Path) -> None:
    load = checkpoint.load
    patch.setattr(checkpoint, "load", lambda model: load(model.model_copy(update={"dtype": "bfloat16"})))


def adapter_for_inference(patch: pytest.MonkeyPatch, lettered: Path) -> None:
    from peft import PeftModel

    patch.setattr(adapter, "with_adapter", lambda base, *_: PeftModel.from_pretrained(base, str(lettered)))


def base_left_trainable(patch: pytest.MonkeyPatch, _: Path) -> None:
    adapted = adapter.with_adapter

    def thawed(*args: Any) -> Any:
        model = adapted(*args)
        next(p for name, p in model.named_parameters() if "visual" in name).requires_grad_(True)
        return model

    patch.setattr(adapter, "with_adapter", thawed)


def trl_s_own_max_length(patch: pytest.MonkeyPatch, _: Path) -> None:
    import trl

    config = trl.SFTConfig
    patch.setattr(trl, "SFTConfig", lambda max_length, **arguments: config(**arguments))


def template_without_answers(patch: pytest.MonkeyPatch, _: Path) -> None:
    load = checkpoint.load

    def forgetful(model: Vlm) -> Any:
        processor, base = load(model)
        processor.chat_template = processor.chat_template.replace(
            "{% for m in messages %}", "{% for m in messages if m['role'] != 'assistant' %}"
        ).replace("{% if add_generation_prompt %}", "{% if true %}")
        return processor, base

    patch.setattr(checkpoint, "load", forgetful)


ALL_LINEAR, NO_LAYER = (
    LORA.model_copy(update={"targets": targets}) for targets in ("all-linear", "nonsense")
)
MISTAKES: list[tuple[str, str, dict[str, Any], Spoil | None, str]] = [
    ("several GPUs", "sft", {}, several_gpus, "2 GPUs are visible"),
    (
        "batches that do not divide",
        "sft",
        {},
        batch_of_one_device_on_two,
        "device_batch_size 8 on 2 devices does not divide",
    ),
    ("test image", "sft", {}, drawing("test/0_4"), "of the test split"),
    ("held-out species", "grpo", {}, drawing("train/6_0"), "of the held_out part"),
    ("species of the other part", "grpo", {}, drawing("train/0_0"), "of the sft part"),
    (
        "too few samples",
        "grpo",
        {"batch_size": 64},
        None,
        "8 samples and one optimiser step needs 16 prompts",
    ),
    ("another dtype", "sft", {}, loaded_in_half, "weights are bfloat16, the model file says float32"),
    ("vision adapted", "sft", {"lora": ALL_LINEAR}, None, "modules outside the language model"),
    ("no layer adapted", "sft", {"lora": NO_LAYER}, None, "does not fit the model"),
    ("longer than the context", "grpo", {"max_new_tokens": 480}, None, "may get 480 more"),
    ("adapter for inference, sft", "sft", {}, adapter_for_inference, "no parameter is trainable"),
    ("adapter for inference, grpo", "grpo", {}, adapter_for_inference, "no parameter is trainable"),
    ("base trainable", "grpo", {}, base_left_trainable, "outside the adapter are trainable"),
    ("answers cut", "sft", {}, trl_s_own_max_length, "max_length is 1024"),
    ("answers lost", "sft", {}, template_without_answers, "have no token to learn"),
    ("diverged", "sft", {"learning_rate": 1e30}, None, "training has diverged"),
]


@pytest.mark.parametrize(
    ("kind", "change", "spoil", "words"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_a_step_with_a_mistake_stops(
    world: World, vlm: Vlm, lettered: Path, monkeypatch: pytest.MonkeyPatch,
    kind: str, change: dict[str, Any], spoil: Spoil | None, words: str,
) -> None:  # fmt: skip
    if spoil is not None:
        spoil(monkeypatch, lettered)
    with pytest.raises(UserError, match=words):
        train(world, vlm, "o", step(kind, **change))
    assert not (world.folder / "o").exists()


def test_the_share_of_the_decoder_that_is_adapted(vlm: Vlm) -> None:
    assert guards.share_adapted(policy(vlm, LORA.targets), named=False) == 1
    few = r".*language_model.*\.(q|v)_proj"
    with pytest.raises(UserError, match=r"\d\d% of the weights .* not: .*layers.mlp.* name this model's in"):
        guards.share_adapted(policy(vlm, few), named=False)
    with pytest.warns(RuntimeWarning, match=r"\d\d% of the weights"):
        assert 0.1 < guards.share_adapted(policy(vlm, few), named=True) < 0.25
    most = r".*language_model.*\.(gate|up|down)_proj"
    with pytest.warns(RuntimeWarning, match=r"not: layers.self_attn.(q|o)_proj.weight"):
        assert 0.5 < guards.share_adapted(policy(vlm, most), named=False) < 1


def test_a_training_that_would_adapt_little_is_refused_unless_its_recipe_names_its_targets(
    world: World, vlm: Vlm
) -> None:
    """The experts of a mixture are no modules of the default's names."""
    families.qwen3_vl_moe(world.folder / "moe")
    moe = vlm.model_copy(update={"checkpoint": str(world.folder / "moe")})
    with pytest.raises(UserError, match=r"\d+% of the weights .* not: layers.mlp.experts.*name this model's"):
        train(world, moe, "1-sft", step(lora=Lora(rank=4, alpha=8)))
    named = Lora(rank=4, alpha=8, targets=Lora().targets)
    with pytest.warns(RuntimeWarning, match="of the decoder's layers are adapted"):
        output = train(world, moe, "1-sft", step(lora=named))
    assert 0.05 < json.loads((output / "record.json").read_text())["adapted_share"] < 0.5
