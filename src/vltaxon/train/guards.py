"""Checks before, during and after a training step; each would have caught a silent failure that others met.

Each raises a UserError that says what is wrong, why it matters and what to do.
"""

import importlib.util
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltaxon import provenance, schemas
from vltaxon.errors import UserError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    from vltaxon.train.samples import Sample


VLLM_SERVER = "VLTAXON_VLLM_SERVER"


def on_one_device(visible: int, world: int, holding: int = 1) -> None:
    """Several GPUs in one process would make `nn.DataParallel`, which TRL refuses; unless the weights are spread over them."""
    if holding > 1 and world > 1:
        raise UserError(
            f"the model's weights take {holding} devices (`gpus` of its file), and {world} processes would each load them. "
            "Train it in one process, or with `distributed: fsdp`."
        )
    if 0 < visible < world:
        raise UserError(f"{world} training processes need a device each, and {visible} are visible.")
    if not visible and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        raise UserError("`distributed: fsdp` shares the weights among devices, and there is none; on the CPU use ddp")
    if visible > 1 and world == 1 and holding == 1:
        raise UserError(
            f"{visible} GPUs are visible to one training process, which uses one. Set CUDA_VISIBLE_DEVICES to one of them, "
            f"or `train_gpus: {visible}` in the model's file."
        )


def generating(by: str) -> None:
    """vLLM is here, and its server's address is given, where a step generates with it.

    That no vision module is adapted, which vLLM would leave out, holds of every step: `language_only`.
    """
    if by != "transformers" and importlib.util.find_spec("vllm") is None:
        raise UserError(
            f"`generate: {by}` needs vLLM in this environment, and it is not installed. Install the version that your TRL asks "
            "for (pip install 'trl[vllm]'), or set `generate: transformers`."
        )
    if by == "vllm_server" and not os.environ.get(VLLM_SERVER):
        raise UserError(f"`generate: {by}` needs the address of a running `trl vllm-serve` in {VLLM_SERVER} (http://HOST:PORT).")


def trained_on(samples: Iterable["Sample"], images: Path, parts: Path, allowed: frozenset[str]) -> None:
    """Every sample shows an image of the training split, of a species in the allowed parts. Looked up in the tables anew."""
    table = provenance.read_parquet(images, schemas.IMAGES, ["image_id", "split", "leaf"])
    of_image = {row["image_id"]: row for row in table.to_pylist()}
    of_leaf = {row["leaf"]: row["part"] for row in provenance.read_parquet(parts, schemas.PARTS).to_pylist()}
    for sample in samples:
        row = of_image.get(sample.image_id, {"split": "no", "leaf": None})
        if row["split"] != "train":
            raise UserError(f"{sample.image_id}: is of the {row['split']} split, and only the train split is trained on")
        part = of_leaf.get(row["leaf"], "no")
        if part not in allowed:
            raise UserError(
                f"{sample.image_id}: {row['leaf']} is of the {part} part, and this step trains on {', '.join(sorted(allowed))}"
            )


def enough(samples: int, needed: int, part: str) -> None:
    """GRPO drops an incomplete batch of prompts, so too few samples would train nothing."""
    if samples < needed:
        raise UserError(
            f"part {part} gives {samples} samples and one optimiser step needs {needed} prompts: nothing would be trained. "
            "Lower batch_size, or raise group_size or `repeat`."
        )


def loaded_as(model: "PreTrainedModel", dtype: str) -> None:
    """All weights have the dtype of the model file; TRL itself would load float32."""
    found = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.is_floating_point()})
    if found != [dtype]:
        raise UserError(f"the base model's weights are {', '.join(found)}, the model file says {dtype}; correct `dtype` there")


def trainable(model: "PeftModel") -> int:
    """Number of trainable parameters, all of them in the adapter that is saved.

    An adapter loaded for inference trains nothing while the logged gradient norm looks alive.
    """
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    if not names:
        raise UserError(
            "no parameter is trainable, so the step would change nothing. Check `lora.targets` of the recipe, and that the "
            "adapter of the step before is loaded for training."
        )
    if odd := [name for name in names if ".default." not in name]:
        raise UserError(f"{len(odd)} parameters outside the adapter are trainable, {odd[0]} for one; only LoRA weights may be")
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def language_only(model: "PeftModel") -> list[str]:
    """Names of the adapted modules, all inside the language model.

    Servers ignore LoRA weights on the vision tower with a warning only, so the served model would not be the trained one.
    """
    base = model.get_base_model()
    inside = {id(module) for module in base.get_decoder().modules()}
    adapted = {name: module for name, module in base.named_modules() if hasattr(module, "lora_A")}
    if odd := [name for name, module in adapted.items() if id(module) not in inside]:
        raise UserError(
            f"`lora.targets` also adapts {len(odd)} modules outside the language model, {odd[0]} for one. Narrow it, for "
            r"example to `.*language_model.*\.(q|k|v|o|gate|up|down)_proj`."
        )
    return sorted(adapted)


def one_image_each(rendered: Iterable[tuple[str, str]], image_token: str) -> None:
    """Every rendered sample (image_id, text) has exactly one image placeholder."""
    for image_id, text in rendered:
        if (count := text.count(image_token)) != 1:
            raise UserError(
                f"the sample of {image_id} has {count} image placeholders ({image_token}) and one image. Take the image "
                "token out of prompts and names, and check the model's chat template."
            )


def fits(longest: int, new_tokens: int, context: int | None) -> None:
    """The longest prompt and its completion fit the model's context. Nothing is ever cut to fit."""
    if context is not None and longest + new_tokens > context:
        raise UserError(
            f"the longest sample has {longest} tokens" + (f" and may get {new_tokens} more" if new_tokens else "") + f", the "
            f"model's context has {context}. Lower `pixels` of the model, shorten the prompt or lower max_new_tokens."
        )


def uncut(max_length: int | None) -> None:
    """TRL's `max_length` cuts the answer off prompt-completion samples in silence: loss 0, gradient 0."""
    if max_length is not None:
        raise UserError(f"max_length is {max_length}: it would cut image tokens or answers in silence; set it to null")


def tokens_trained(labels: "torch.Tensor") -> None:
    """Every row of a collated batch (samples x tokens, -100 where no loss is taken) has tokens to learn."""
    per_sample = (labels != -100).sum(dim=1)
    if bool((per_sample == 0).any()):
        raise UserError(
            f"{int((per_sample == 0).sum())} of {len(labels)} samples have no token to learn: the loss would be 0 without a "
            "word. Check that targets are not empty and that the chat template keeps them."
        )


def finite(step: int, logs: Mapping[str, Any]) -> None:
    """Loss and gradient norm of an optimiser step are numbers."""
    for key in ("loss", "grad_norm"):
        if (value := logs.get(key)) is not None and not math.isfinite(value):
            raise UserError(
                f"{key} is {value} at step {step}: training has diverged. Lower learning_rate, or use bfloat16 or float32 in "
                "place of float16; then run again."
            )


def moved(before: str, after: str) -> None:
    """The adapter's digest has changed."""
    if before == after:
        raise UserError(
            "the adapter is what it was before training: nothing was learnt. Check learning_rate, and for grpo the rewards "
            "(reward_std 0 throughout and kl 0 give no gradient)."
        )


def varied(shares: Sequence[float], limit: float) -> float:
    """Mean share of groups whose completions all got the same reward; warns above `limit`, since those teach nothing."""
    share = sum(shares) / len(shares) if shares else 0.0
    if share > limit:
        warnings.warn(
            f"{share:.0%} of the GRPO groups have no variance in reward (limit {limit:.0%}): they give no signal but the KL "
            "term. Raise temperature or group_size, or train on samples that the model gets right sometimes.",
            RuntimeWarning,
            stacklevel=2,
        )
    return share
