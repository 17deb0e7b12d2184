"""One step of a recipe, from tables to an adapter folder: load, guard, train, guard, write."""

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltaxon import checkpoint, provenance, schemas
from vltaxon.errors import UserError
from vltaxon.partition import allowed_parts
from vltaxon.train import arguments, checkpoints, guards, samples
from vltaxon.versions import VERSIONS

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from vltaxon.config import Lora, Prompt, Step, Vlm

CURVE = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "entropy": "entropy",
    "mean_token_accuracy": "token_accuracy",
    "reward": "reward",
    "reward_std": "reward_std",
    "rewards/format_reward/mean": "reward_format",
    "rewards/accuracy_reward/mean": "reward_accuracy",
    "kl": "kl",
    "completions/mean_length": "completion_length",
    "completions/clipped_ratio": "truncated",
    "frac_reward_zero_std": "frac_zero_variance",
}


def train_step(
    step: "Step",
    model: "Vlm",
    previous: Path | None,
    *,
    images: Path,
    taxa: Path,
    questions: Path,
    parts: Path,
    prompts: Mapping[str, "Prompt"],
    wording: str,
    word: str,
    output: Path,
    state: Path,
    seed: int,
    own: Path | None = None,
) -> None:
    """Train an adapter and write it whole, with its curve and record.

    Args:
        step: what is trained, on which part, how.
        model: the base model.
        previous: adapter folder of the step before, continued from; None for a fresh adapter.
        images: images.parquet of the data set.
        taxa: taxa.parquet.
        questions: the questions of one kind of choices.
        parts: the partition of the species.
        prompts: prompts by name, those that the step names.
        wording: the benchmark's question.
        word: what the data set calls the organism.
        output: adapter folder: adapter_model.safetensors, adapter_config.json, curve.parquet, record.json.
        state: folder for the trainer's checkpoints; a killed step goes on from there if it is the same step.
        seed: of samples, adapter, order and sampling.
        own: what the adapter of the step before names the training images, where samples are conditioned on it.

    Raises:
        UserError: a guard found something that would make the result wrong or empty.
    """
    import torch
    from transformers import set_seed

    from vltaxon.data.images import ImageStore

    started, world, gpu = time.monotonic(), int(os.environ.get("WORLD_SIZE", "1")), torch.cuda.is_available()
    step.accumulation(world)
    guards.on_one_device(torch.cuda.device_count(), world, model.gpus)
    guards.generating(step.generate)

    drawn = samples.draw(
        step,
        images=images,
        taxa=taxa,
        questions=questions,
        parts=parts,
        prompts=prompts,
        wording=wording,
        word=word,
        seed=seed,
        own=own,
    )
    guards.trained_on(drawn, images, parts, allowed_parts(step.part))
    guards.enough(len(drawn), step.batch_size // step.group_size if step.kind == "grpo" else 1, step.part)

    set_seed(seed)
    model = checkpoint.pinned(model)
    processor, base = checkpoint.load(model)
    guards.loaded_as(base, model.dtype)
    rows = samples.dataset(drawn, ImageStore(images), model.pixels, model.min_pixels)
    lengths = survey(drawn, rows, processor)
    new_tokens = step.max_new_tokens if step.kind == "grpo" else 0
    guards.fits(lengths.longest, new_tokens, getattr(base.config.get_text_config(), "max_position_embeddings", None))

    policy = adapted(base, step.lora, previous)
    modules = guards.language_only(policy)
    before = digest(policy)
    identity = {
        "base": checkpoint.digest(model),
        "dtype": model.dtype,
        "pixels": [model.min_pixels, model.pixels],
        "adapter_before": before,
        "step": step.shaping(),
        "seed": seed,
        "version": VERSIONS["vltaxon.train.run"],
    }
    options = arguments.common(step, model.dtype, state=state, seed=seed, world=world, gpu=gpu)
    if step.kind == "sft":
        from vltaxon.train import sft

        trainer: Any = sft.trainer(policy, processor, rows, options)
    else:
        from vltaxon.train import grpo

        trainer = grpo.trainer(policy, processor, rows, step, options, longest=lengths.longest)
    if (rank := trainer.args.process_index) and step.kind == "sft":
        set_seed(seed + rank)  # dropout; GRPOTrainer has seeded its processes apart
    trainable = guards.trainable(trainer.accelerator.unwrap_model(trainer.model))
    _quiet(trainer)
    sharded = trainer.is_fsdp_enabled
    with trainer.args.main_process_first(local=False):
        if rank == 0:
            checkpoints.begin(state, identity | {"sharded": sharded, "samples": provenance.digest_text(*map(repr, drawn))})
        start = checkpoints.newest(state)
    if start is not None and (before_it := len(list(start.glob("rng_state*")))) != world and rank == 0:
        print(
            f"{start} is of {before_it} processes, these are {world}: what is drawn from here on is drawn otherwise", flush=True
        )
    with checkpoints.listening() as told:
        checkpoints.keep(trainer, state, step.checkpoint_minutes, told)
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
    if (done := trainer.state.global_step) < trainer.state.max_steps:
        raise checkpoints.Stopped(
            f"{told[0] if told else 'a signal to another process'} has stopped this training after step {done} of "
            f"{trainer.state.max_steps}. Its state is kept in {state}: a rerun goes on from step {done}."
        )

    whole = trainer.accelerator.get_state_dict(trainer.model) if sharded else None  # of all processes together
    if rank:
        return
    trained = trainer.accelerator.unwrap_model(trainer.model)
    curve = curve_of(trainer.state.log_history)
    groups: dict[str, Any] = {}
    if step.kind == "grpo":
        shares = [value for _, metric, value in curve if metric == "frac_zero_variance"]
        groups = {
            "zero_variance_share": guards.varied(shares, step.zero_variance_limit),
            "zero_variance_limit": step.zero_variance_limit,
            "reward": trend([value for _, metric, value in curve if metric == "reward"]),
        }
    guards.moved(before, after := digest(trained, whole))
    record = {
        **identity,
        **groups,
        "step": step.model_dump(mode="json"),
        "adapter_after": after,
        "previous": None if previous is None else provenance.digest_file(previous / "adapter_model.safetensors"),
        "trainable_parameters": trainable,
        "adapted_modules": len(modules),
        "adapted_kinds": sorted({name.rpartition(".")[2] for name in modules}),
        "samples": len(drawn),
        "images": len({sample.image_id for sample in drawn}),
        "longest_sample_tokens": lengths.longest,
        "trained_tokens_per_sample": lengths.target if step.kind == "sft" else None,
        "steps": trainer.state.global_step,
        "devices": world,
        "wall_seconds": round(time.monotonic() - started, 1),
    }
    with provenance.whole_folder(output) as part:
        trained.save_pretrained(part, selected_adapters=["default"], save_embedding_layers=False, state_dict=whole)
        (part / "README.md").unlink(missing_ok=True)
        _write(part, curve, record, seed)
    shutil.rmtree(state, ignore_errors=True)


def adapted(base: "PreTrainedModel", lora: "Lora", previous: Path | None) -> "PeftModel":
    """The base with a fresh adapter, or with that of the step before, trainable.

    Raises:
        UserError: the step before has an adapter of another shape.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    wanted: Any = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.targets, task_type="CAUSAL_LM"
    )
    if previous is None:
        try:
            return get_peft_model(base, wanted)
        except ValueError as error:  # PEFT's word for a pattern that matches nothing
            raise UserError(f"`lora.targets` {lora.targets} does not fit the model: {error}") from error
    config: Any = LoraConfig.from_pretrained(str(previous))
    for field in ("r", "lora_alpha", "target_modules"):
        if getattr(config, field) != getattr(wanted, field):
            raise UserError(
                f"{previous}: its adapter has {field} {getattr(config, field)}, this step asks for {getattr(wanted, field)}. "
                "Steps of a recipe continue one adapter: give them the same `lora`."
            )
    config.lora_dropout, config.inference_mode = lora.dropout, False
    return PeftModel.from_pretrained(base, str(previous), config=config, is_trainable=True)


@dataclass(frozen=True)
class Lengths:
    """Tokens of the longest sample (prompt with image, and target), and the mean of the targets."""

    longest: int
    target: float


def survey(drawn: Sequence[samples.Sample], rows: Any, processor: Any) -> Lengths:
    """Render every sample as TRL will, check its placeholder, and count tokens; the longest is counted with its pixels."""
    from trl import apply_chat_template

    tokens = processor.tokenizer
    rendered = [apply_chat_template({"prompt": s.prompt, "completion": s.completion}, processor) for s in drawn]
    guards.one_image_each(
        ((s.image_id, text["prompt"] + text["completion"]) for s, text in zip(drawn, rendered, strict=True)),
        processor.image_token,
    )
    prompts = [len(ids) for ids in tokens([text["prompt"] for text in rendered])["input_ids"]]
    answers = [len(ids) for ids in tokens([text["completion"] for text in rendered])["input_ids"]]
    learnt = [  # of several turns the questions between the answers are not
        len(tokens(s.target + "".join(t for _, t in s.turns))["input_ids"]) if s.turns else n
        for s, n in zip(drawn, answers, strict=True)
    ]
    worst = max(range(len(drawn)), key=lambda i: prompts[i] + answers[i])
    seen = processor(text=[rendered[worst]["prompt"]], images=[rows[worst]["image"]], return_tensors="pt")
    return Lengths(seen["input_ids"].shape[1] + answers[worst], sum(learnt) / len(learnt))


def digest(policy: "PeftModel", weights: Mapping[str, Any] | None = None) -> str:
    """SHA-256 of the trained adapter's weights, by name; `weights` are the model's, where it holds only a share of them."""
    from peft import get_peft_model_state_dict

    total = hashlib.sha256()
    for name, tensor in sorted(get_peft_model_state_dict(policy, weights, adapter_name="default").items()):
        total.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def curve_of(history: Sequence[Mapping[str, Any]]) -> list[tuple[int, str, float]]:
    """(step, metric, value) of a trainer's log, in steps' order, with our names for TRL's metrics."""
    return [
        (entry["step"], name, float(entry[key])) for entry in history for key, name in CURVE.items() if entry.get(key) is not None
    ]


def trend(rewards: Sequence[float]) -> dict[str, float]:
    """Whether the reward rose: its mean in the first and last third of the steps, and Kendall's tau with the step, with its p.

    A test by ranks, since a step's mean is of few prompts and far from normal.
    """
    from scipy.stats import kendalltau

    third = max(1, len(rewards) // 3)
    first, last = (sum(part) / third for part in (rewards[:third], rewards[-third:]))
    tau = kendalltau(range(len(rewards)), rewards)
    return {"first_third": first, "last_third": last, "tau": float(tau.statistic), "p": float(tau.pvalue)}


def _write(folder: Path, curve: Sequence[tuple[int, str, float]], record: Mapping[str, Any], seed: int) -> None:
    import pyarrow as pa

    table = pa.table(dict(zip(schemas.CURVE.names, map(list, zip(*curve, strict=True)), strict=True)))
    provenance.write_parquet(
        table, folder / "curve.parquet", schemas.CURVE, rule="train", seed=seed, adapter=record["adapter_after"]
    )
    facts = provenance.origin() | {"python": platform.python_version()}
    facts["packages"] = json.loads(str(facts["packages"]))
    (folder / "record.json").write_text(json.dumps({**record, **facts}, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _quiet(trainer: Any) -> None:
    """Replace TRL's dictionary a step by one progress bar with loss and reward, and stop at the first number that is none."""
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    class Watch(ProgressCallback):  # type: ignore[misc]  # a class of a library without types
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
            found = logs or {}
            guards.finite(state.global_step, found)
            if self.training_bar is not None:
                self.training_bar.set_postfix({key: f"{found[key]:.3g}" for key in ("loss", "reward") if key in found})

    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Watch())
