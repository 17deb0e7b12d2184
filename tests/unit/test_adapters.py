"""Adapters: what is in the model is what is in the file, whoever has made it; through the doors of prediction,
training and merging.
"""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.conftest import LETTERS, PROMPTS, World, step, train
from tests.unit.inference.tasks import asking, leaf_task
from vltaxon import checkpoint, layout, provenance
from vltaxon.config.protocols import Stage
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError
from vltaxon.inference.run import predict_leaf

STAGE = Stage(name="leaf", prompt="stage1", max_new_tokens=4, form="bare")


def copied(
    adapter: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> Path:
    """A copy of an adapter with other tensors, and without a record, as another tool would write it."""
    shutil.copytree(adapter, folder)
    (folder / layout.RECORD).unlink(missing_ok=True)
    save_file(change(load_file(folder / layout.WEIGHTS)), folder / layout.WEIGHTS)
    return folder


def answers(world: World, vlm: Vlm, name: str, **more: Any) -> list[tuple[str, str]]:
    """What stage 1 answers about all test images, by the rule's own function."""
    output = world.folder / f"{name}.parquet"
    predict_leaf(leaf_task(world, output, asking(STAGE, PROMPTS["stage1"], vlm), **more))
    table = provenance.read_parquet(output)
    return list(zip(table["image_id"].to_pylist(), table["completion"].to_pylist(), strict=True))


def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of a version of transformers in which the language model was called otherwise."""
    return {name.replace("language_model", "text_decoder"): tensor for name, tensor in tensors.items()}


def halved(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if ".layers.0." in name}


@pytest.mark.parametrize("change", [renamed, halved])
def test_an_adapter_of_other_names_is_refused_by_prediction_training_and_merging(
    world: World, vlm: Vlm, lettered: Path, change: Any
) -> None:
    odd = copied(lettered, world.folder / "odd", change)
    words = r"odd: is no adapter of a Qwen2_5_VLForConditionalGeneration: .*lora_A.weight"
    with pytest.raises(UserError, match=words):
        answers(world, vlm, "p", adapter=odd / layout.WEIGHTS)
    assert not (world.folder / "p.parquet").exists()
    with pytest.raises(UserError, match=words):
        answers(world, vlm.model_copy(update={"adapter": odd}), "p")
    with pytest.raises(UserError, match=words):
        train(world, vlm, "2-sft", step(samples=(LETTERS,)), odd)
    with pytest.raises(UserError, match=words):
        checkpoint.merge(vlm, odd, world.folder / "merged")
    assert not (world.folder / "merged").exists()


def test_an_adapter_of_another_size_is_refused(world: World, vlm: Vlm, lettered: Path) -> None:
    odd = copied(
        lettered,
        world.folder / "odd",
        lambda all_: {name: t[..., :3].contiguous() for name, t in all_.items()},
    )
    with pytest.raises(UserError, match=r"odd: does not fit Qwen2_5_VL.*size mismatch"):
        answers(world, vlm, "p", adapter=odd / layout.WEIGHTS)


@pytest.mark.parametrize(
    ("file", "words"),
    [(layout.WEIGHTS, "is not what its record.json says"), (layout.ADAPTER_CONFIG, "is not what its")],
)
def test_an_adapter_of_ours_is_the_one_that_its_training_recorded(
    world: World, vlm: Vlm, lettered: Path, file: str, words: str
) -> None:
    other = shutil.copytree(lettered, world.folder / "other")
    if file == layout.WEIGHTS:
        save_file({name: 2 * t for name, t in load_file(other / file).items()}, other / file)
    else:
        config = json.loads((other / file).read_text())
        (other / file).write_text(json.dumps(config | {"lora_alpha": 80}))
    for door in (
        lambda: answers(world, vlm, "p", adapter=other / layout.WEIGHTS),
        lambda: train(world, vlm, "2-sft", step(samples=(LETTERS,)), other),
    ):
        with pytest.raises(
            UserError, match=f"{file}: {words}" if file == layout.WEIGHTS else "alpha|record.json says"
        ):
            door()


def test_the_adapter_of_a_model_file_is_scored_as_the_same_adapter_of_a_recipe(
    world: World, vlm: Vlm, lettered: Path
) -> None:
    theirs = copied(lettered, world.folder / "theirs", lambda tensors: tensors)
    named = vlm.model_copy(update={"adapter": theirs})
    bare, ours = answers(world, vlm, "bare"), answers(world, vlm, "ours", adapter=lettered / layout.WEIGHTS)
    assert answers(world, named, "theirs") == ours != bare
    assert set(named.files()) - set(vlm.files()) == {theirs / layout.WEIGHTS, theirs / layout.ADAPTER_CONFIG}
    digests = {checkpoint.digest(vlm), checkpoint.digest(named)}
    config = json.loads((theirs / layout.ADAPTER_CONFIG).read_text())
    (theirs / layout.ADAPTER_CONFIG).write_text(json.dumps(config | {"lora_alpha": 80}))
    digests.add(checkpoint.digest(named))
    base = shutil.copytree(vlm.checkpoint, world.folder / "base")
    weights = load_file(base / "model.safetensors")
    save_file({n: t * 1.5 for n, t in weights.items()}, base / "model.safetensors", {"format": "pt"})
    digests.add(checkpoint.digest(named.model_copy(update={"checkpoint": str(base)})))
    assert len(digests) == 4, "bare, adapted, applied otherwise, on another base"


@pytest.mark.parametrize(
    "kind",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"alpha_pattern": {"q_proj": 64}, "rank_pattern": {"v_proj": 2}},
        {"target_modules": ["q_proj", "v_proj", "qkv"]},  # of the vision tower, too
    ],
)
def test_loras_of_other_tools_are_scored_as_peft_applies_them(
    world: World, vlm: Vlm, kind: dict[str, Any]
) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    given: dict[str, Any] = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    policy = get_peft_model(checkpoint.load(vlm)[1], LoraConfig(task_type="CAUSAL_LM", **(given | kind)))
    for name, weight in policy.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            weight.data += torch.randn_like(weight) * (0 if "magnitude" in name else 0.3)
    policy.save_pretrained(world.folder / "theirs", save_embedding_layers=False)
    merged = checkpoint.load(vlm.model_copy(update={"adapter": world.folder / "theirs"}))[1]
    bare, tokens = checkpoint.load(vlm)[1], torch.arange(20, 60)[None]
    with torch.inference_mode():
        wanted, found, plain = (m.eval()(input_ids=tokens).logits for m in (policy, merged, bare))
    assert (found - wanted).abs().max() < 1e-3 * wanted.std() < (found - plain).abs().max()


@pytest.mark.parametrize("name", ["IA3Config", "AdaLoraConfig"])
def test_what_is_no_lora_is_refused(world: World, vlm: Vlm, name: str) -> None:
    import peft
    from peft import get_peft_model

    more: dict[str, Any] = {"feedforward_modules": []} if name == "IA3Config" else {"total_step": 9}
    kind = getattr(peft, name)(target_modules=["k_proj"], task_type="CAUSAL_LM", **more)
    get_peft_model(checkpoint.load(vlm)[1], kind).save_pretrained(
        world.folder / "ia3", save_embedding_layers=False
    )
    with pytest.raises(UserError, match=r"ia3: is a .* adapter; only LoRA"):
        answers(world, vlm.model_copy(update={"adapter": world.folder / "ia3"}), "p")


def test_an_adapter_that_changes_nothing(world: World, vlm: Vlm, lettered: Path) -> None:
    """As some trainings save it, and as one is before its first step."""

    def untrained(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: t * 0 if "lora_B" in name else t for name, t in tensors.items()}

    odd = copied(lettered, world.folder / "odd", untrained)
    with pytest.raises(UserError, match="odd: has zeros alone, and would change nothing"):
        answers(world, vlm.model_copy(update={"adapter": odd}), "p")


def test_an_adapter_without_its_files_or_with_numbers_that_are_none(
    world: World, vlm: Vlm, lettered: Path
) -> None:
    odd = copied(lettered, world.folder / "odd", lambda all_: {n: t * math.nan for n, t in all_.items()})
    with pytest.raises(UserError, match="odd"):
        answers(world, vlm.model_copy(update={"adapter": odd}), "p")
    (odd / layout.WEIGHTS).rename(odd / "adapter_model.bin")
    with pytest.raises(UserError, match=r"odd: no adapter there, adapter_model.safetensors missing.*pickles"):
        answers(world, vlm.model_copy(update={"adapter": odd}), "p")
    with pytest.raises(ValueError, match=r"adapter: .*nowhere.* is no folder with adapter_config.json"):
        Vlm.model_validate(vlm.model_dump() | {"adapter": world.folder / "nowhere"})
