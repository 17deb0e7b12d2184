"""Checks before, during and after a training step; each would have caught a silent failure that others met.

Each raises a UserError that says what is wrong, why it matters and what to do.
"""

import importlib.util
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltaxon import chat, provenance, schemas
from vltaxon.errors import UserError, listed
from vltaxon.parsing import restore
from vltaxon.train.rewards import accuracy
from vltaxon.train.rewards import format as form_reward

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    from vltaxon.prepared import Prepared
    from vltaxon.train.samples import Sample

    Row = Mapping[str, Any]  # of `samples.dataset`


VLLM_SERVER = "VLTAXON_VLLM_SERVER"


def check_devices(visible: int, world: int, holding: int = 1) -> None:
    """Check that each training process has one device, or one process all of them.

    Several GPUs in one process would make `nn.DataParallel`, which TRL refuses; unless the weights are spread
    over them.

    Args:
        visible: devices that a process sees.
        world: processes that share the work.
        holding: devices that the weights are spread over.

    Raises:
        UserError: they do not fit.
    """
    if holding > 1 and world > 1:
        raise UserError(
            f"the model's weights take {holding} devices (`gpus` of its file), and {world} processes would "
            "each load them. Train it in one process, or with `distributed: fsdp`."
        )
    if 0 < visible < world:
        raise UserError(f"{world} training processes need a device each, and {visible} are visible.")
    if not visible and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        raise UserError(
            "`distributed: fsdp` shares the weights among devices, and there is none; on the CPU use ddp"
        )
    if visible > 1 and world == 1 and holding == 1:
        raise UserError(
            f"{visible} GPUs are visible to one training process, which uses one. Set CUDA_VISIBLE_DEVICES "
            f"to one of them, or `train_gpus: {visible}` in the model's file."
        )


def check_vllm(generate: str) -> None:
    """Check that vLLM is here, and its server's address given, where a step generates with it.

    That no vision module is adapted, which vLLM would leave out, holds of every step: `list_adapted_modules`.

    Raises:
        UserError: it is not installed, or the address is missing.
    """
    if generate.startswith("vllm") and importlib.util.find_spec("vllm") is None:
        raise UserError(
            f"`generate: {generate}` needs vLLM in this environment, and it is not installed. Install the "
            "version that your TRL asks for (pip install 'trl[vllm]'), or set `generate: transformers`."
        )
    if generate == "vllm_server" and not os.environ.get(VLLM_SERVER):
        raise UserError(
            f"`generate: {generate}` needs the address of a running `trl vllm-serve` in {VLLM_SERVER} "
            "(http://HOST:PORT)."
        )


def check_leaks(samples: Sequence["Sample"], images: Path, parts: Path, allowed: frozenset[str]) -> None:
    """Check that every sample shows an image of the training split, of a species in the allowed parts.

    Args:
        samples: that were drawn.
        images: table of the data set, schema `IMAGES`: what the draw read is looked up in it once more.
        parts: of the species, schema `PARTS`.
        allowed: parts that may be trained on.

    Raises:
        UserError: one shows another image.
    """
    import polars as pl

    columns = ["image_id", "split", "leaf"]
    shown = pl.DataFrame(
        {"image_id": [sample.image_id for sample in samples]}, schema={"image_id": pl.String}
    )
    split_of = pl.DataFrame(provenance.read_parquet(images, schemas.IMAGES, columns))
    part_of = pl.DataFrame(provenance.read_parquet(parts, schemas.PARTS, ["leaf", "part"]))
    found = shown.unique(maintain_order=True).join(split_of, "image_id", "left").join(part_of, "leaf", "left")
    found = found.with_columns(pl.col("split", "part").fill_null("no"))
    wrong = found.filter((pl.col("split") != "train") | ~pl.col("part").is_in(allowed))
    for image_id, split, leaf, part in wrong.iter_rows():
        if split != "train":
            raise UserError(f"{image_id}: is of the {split} split, and only the train split is trained on")
        raise UserError(
            f"{image_id}: {leaf} is of the {part} part, and this step trains on {', '.join(sorted(allowed))}"
        )


def check_enough(samples: int, needed: int, part: str) -> None:
    """Check that there are samples for one optimiser step.

    GRPO drops an incomplete batch of prompts, and would train nothing.

    Args:
        samples: how many there are.
        needed: how many one step needs.
        part: of the species, which gave them.

    Raises:
        UserError: there are fewer.
    """
    if samples < needed:
        raise UserError(
            f"part {part} gives {samples} samples and one optimiser step needs {needed} prompts: nothing "
            "would be trained. Lower batch_size, or raise group_size or `repeat`."
        )


def check_dtype(model: "PreTrainedModel", dtype: str) -> None:
    """Check that all weights have the dtype of the model file; TRL itself would load float32.

    Args:
        model: the loaded model.
        dtype: name of the dtype, `bfloat16`.

    Raises:
        UserError: some have another.
    """
    dtypes = sorted(
        {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.is_floating_point()}
    )
    if dtypes != [dtype]:
        raise UserError(
            f"the base model's weights are {', '.join(dtypes)}, the model file says {dtype}; correct `dtype` "
            "there"
        )


def count_trainable(model: "PeftModel") -> int:
    """Return the number of trainable parameters, all of them in the adapter that is saved.

    An adapter loaded for inference trains nothing while the logged gradient norm looks alive.

    Raises:
        UserError: none is trainable, or one outside the adapter.
    """
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    if not names:
        raise UserError(
            "no parameter is trainable, so the step would change nothing. Check `lora.targets` of the "
            "recipe, and that the adapter of the step before is loaded for training."
        )
    if odd := [name for name in names if ".default." not in name]:
        raise UserError(
            f"{len(odd)} parameters outside the adapter are trainable, {odd[0]} for one; only LoRA weights "
            "may be"
        )
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def list_adapted_modules(model: "PeftModel") -> list[str]:
    """Return the names of the adapted modules, all inside the language model.

    Servers ignore LoRA weights on the vision tower with a warning only, so the served model would not be the
    trained one.

    Raises:
        UserError: one is outside.
    """
    base = model.get_base_model()
    inside = {id(module) for module in base.get_decoder().modules()}
    adapted = {name: module for name, module in base.named_modules() if hasattr(module, "lora_A")}
    if odd := [name for name, module in adapted.items() if id(module) not in inside]:
        raise UserError(
            f"`lora.targets` also adapts {len(odd)} modules outside the language model, {odd[0]} for one. "
            "Narrow it, for "
            r"example to `.*language_model.*\.(q|k|v|o|gate|up|down)_proj`."
        )
    return sorted(adapted)


def share_adapted(model: "PeftModel", named: bool) -> float:
    """Return the share of the weights of the decoder's layers that are adapted, with a warning below 1.

    Matrices are all weights of two dimensions or, of the experts of a mixture, three; embeddings and the
    output layer do not count.

    Args:
        model: with its adapter.
        named: whether the recipe names its targets, and so means just these.

    Raises:
        UserError: less than half is adapted, and nobody has said that this is meant.
    """
    layers = model.get_base_model().get_decoder()
    rest = dict[str, int]()
    whole = 0
    for name, weight in layers.named_parameters():
        if weight.dim() not in (2, 3) or "lora_" in name or "embed" in name or "modules_to_save" in name:
            continue
        whole += weight.numel()
        if ".base_layer." not in name:
            kind = ".".join(part for part in name.split(".") if not part.isdigit())
            rest[kind] = rest.get(kind, 0) + weight.numel()
    if not rest:
        return 1.0
    share = 1 - sum(rest.values()) / whole
    said = (
        f"{share:.0%} of the weights of the decoder's layers are adapted; not: "
        f"{listed(sorted(rest, key=rest.__getitem__, reverse=True))}"
    )
    if share < 0.5 and not named:
        raise UserError(
            f"{said}. The default `lora.targets` are for other names; name this model's in the recipe, "
            "even if just these are meant"
        )
    warnings.warn(said, RuntimeWarning, stacklevel=2)
    return share


def check_placeholders(rendered: Iterable[tuple[str, str]], image_token: str) -> None:
    """Check that every rendered sample has exactly one image placeholder.

    Args:
        rendered: image_id and text of each.
        image_token: the placeholder.

    Raises:
        UserError: a sample has none, or several.
    """
    for image_id, text in rendered:
        if (count := text.count(image_token)) != 1:
            raise UserError(
                f"the sample of {image_id} has {count} image placeholders ({image_token}) and one image. "
                "Take the image token out of prompts and names, and check the model's chat template."
            )


def check_prompts(
    prepared: "Prepared", trained: Callable[["Row"], tuple[list[int], list[int] | None]]
) -> None:
    """Check that a prompt is trained as it is asked, and that what is learnt behind it is the right answer.

    One sample of each kind is looked at, token by token.

    Args:
        prepared: samples and processor.
        trained: gives the tokens of a sample's prompt as the trainer has them, and those that it learns from,
            None where it learns from what is written.

    Raises:
        UserError: a prompt is trained otherwise, a target is not read back, or a sample holds a token that
            is no text.
    """
    processor = prepared.processor
    tokens, opened = processor.tokenizer, chat.opens_reasoning(processor)
    plain, special = prepared.rows.with_format(None), chat.special_tokens(tokens)
    for said in plain.select_columns(["image_id", "text", "target"]).to_list():
        text, what = f"{said['text']}\n{said['target']}", f"the sample of {said['image_id']}"
        chat.refuse_special(special, text, what, "the model")
    kinds = plain.select_columns(["task", "form", "reasoned", "system"]).to_list()
    for place in {tuple(kind.values()): place for place, kind in enumerate(kinds)}.values():
        row = prepared.rows[place]
        turns = row["prompt"] if "prompt" in row else row["messages"]
        text = chat.render(processor, list(takewhile(lambda turn: turn["role"] != "assistant", turns)))
        start = chat.adds_start(tokens, text)
        made = processor(text=[text], images=[[row["image"]]], add_special_tokens=start)
        asked = list(made["input_ids"][0])
        read, target = trained(dict(row))
        if read != asked:
            same = next(
                (i for i, pair in enumerate(zip(read, asked, strict=False)) if len({*pair}) > 1), None
            )
            at = max(0, (min(len(read), len(asked)) if same is None else same) - 8)
            raise UserError(
                f"the prompt of {row['image_id']} is trained otherwise than it is asked: the one goes on "
                f"{tokens.decode(read[at:])[:200]!r}, the other {tokens.decode(asked[at:])[:200]!r}. The "
                "chat template must begin the assistant's turn alike with its answer and without, and write "
                "the start token if the tokenizer adds one. Set a variable of the template in the model's "
                "file (as `template: {enable_thinking: false}`), take samples with reasoning or without, or "
                "mend the template"
            )
        if target is not None:
            ends = target.index(tokens.eos_token_id) if tokens.eos_token_id in target else len(target)
            written = restore(tokens.decode(target[:ends], skip_special_tokens=True), opened)
            _check_read_back([row], [written])


def check_targets(prepared: "Prepared") -> None:
    """Check that every target, in the words that the model's tokens can write, is read as the right answer.

    Raises:
        UserError: one is not.
    """
    tokens = prepared.processor.tokenizer
    kinds = ("target", "task", "form", "leaf", "options", "answer_index")
    rows = {repr([row[name] for name in kinds]): row for row in prepared.rows.with_format(None).to_list()}
    ids = tokens([row["target"] for row in rows.values()], add_special_tokens=False)["input_ids"]
    _check_read_back(list(rows.values()), tokens.batch_decode(ids, skip_special_tokens=True))


def _check_read_back(rows: Sequence["Row"], written: Sequence[str]) -> None:
    """Check that a text is rewarded fully for the sample that it is the answer of."""
    columns = {name: [row[name] for row in rows] for name in rows[0]} | {
        "finish_reason": ["stop"] * len(rows)
    }
    columns["completions"] = [[{"role": "assistant", "content": text}] for text in written]
    rewards = zip(form_reward.reward(**columns), accuracy.reward(**columns), strict=True)
    for row, text, earned in zip(rows, written, rewards, strict=True):
        if not {*earned} <= {1.0, None}:
            raise UserError(
                f"the sample of {row['image_id']} teaches {text[:300]!r}, which is not read as the right "
                f"answer in the form that is asked for ({row['form']}). Is a letter of a name none of the "
                "tokenizer's, or does the chat template change what the assistant says?"
            )


def check_context(longest: int, new_tokens: int, context: int | None) -> None:
    """Check that the longest prompt and its completion fit the model's context. Nothing is ever cut to fit.

    Args:
        longest: tokens of the longest sample.
        new_tokens: that may be added to it.
        context: of the model; None where its config does not tell.

    Raises:
        UserError: they do not fit.
    """
    if context is not None and longest + new_tokens > context:
        raise UserError(
            f"the longest sample has {longest} tokens"
            + (f" and may get {new_tokens} more" if new_tokens else "")
            + f", the "
            f"model's context has {context}. Lower `pixels` of the model, shorten the prompt or lower "
            "max_new_tokens."
        )


def check_max_length(max_length: int | None) -> None:
    """Check that TRL's `max_length` is off: it cuts the answer off in silence, and loss and gradient are 0.

    Raises:
        UserError: it is on.
    """
    if max_length is not None:
        raise UserError(
            f"max_length is {max_length}: it would cut image tokens or answers in silence; set it to null"
        )


def check_labels(labels: "torch.Tensor") -> None:
    """Check that every row of a collated batch has tokens to learn.

    Args:
        labels: of shape (samples, tokens), -100 where no loss is taken.

    Raises:
        UserError: a row has none.
    """
    per_sample = (labels != -100).sum(dim=1)
    if bool((per_sample == 0).any()):
        raise UserError(
            f"{int((per_sample == 0).sum())} of {len(labels)} samples have no token to learn: the loss would "
            "be 0 without a word. Check that targets are not empty and that the chat template keeps them."
        )


def check_finite(step: int, logs: Mapping[str, Any]) -> None:
    """Check that loss and gradient norm of an optimiser step are numbers.

    Args:
        step: its number.
        logs: what the trainer logs of it.

    Raises:
        UserError: one of them is not.
    """
    for key in ("loss", "grad_norm"):
        if (value := logs.get(key)) is not None and not math.isfinite(value):
            raise UserError(
                f"{key} is {value} at step {step}: training has diverged. Lower learning_rate, or use "
                "bfloat16 or float32 in place of float16; then run again."
            )


def check_moved(before: str, after: str) -> None:
    """Check that the adapter has changed.

    Args:
        before: its digest before training.
        after: and after.

    Raises:
        UserError: both are the same.
    """
    if before == after:
        raise UserError(
            "the adapter is what it was before training: nothing was learnt. Check learning_rate, and for "
            "grpo the rewards (reward_std 0 throughout and kl 0 give no gradient)."
        )


def warn_of_fallen(trends: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a warning of each level whose reward fell, beyond what a test of its order leaves to chance.

    A mean over all levels hides it: each is a small part of the prompts.

    Args:
        trends: of the reward, by level.
    """
    said = [
        f"the reward of level {level} fell in the training, from {trend['first_third']:.2f} in the first "
        f"third of the steps to {trend['last_third']:.2f} in the last (p = {trend['p']:.2g}): look at the "
        "level's accuracy"
        for level, trend in trends.items()
        if trend["last_third"] < trend["first_third"] and trend["tau"] < 0 and trend["p"] < 0.05
    ]
    for line in said:
        warnings.warn(line, RuntimeWarning, stacklevel=2)
    return said


def share_without_variance(shares: Sequence[float], limit: float) -> float:
    """Return the mean share of groups whose completions all got the same reward; those teach nothing.

    Args:
        shares: of each optimiser step.
        limit: above which there is a warning.
    """
    share = sum(shares) / len(shares) if shares else 0.0
    if share > limit:
        warnings.warn(
            f"{share:.0%} of the GRPO groups have no variance in reward (limit {limit:.0%}): they give no "
            "signal but the KL term. Raise temperature or group_size, or train on samples that the model "
            "gets right sometimes.",
            RuntimeWarning,
            stacklevel=2,
        )
    return share
