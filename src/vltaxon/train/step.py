"""One step of a recipe, from tables to an adapter folder: load, guard, train, guard, write."""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow.compute as pc

from vltaxon import adapters, chat, checkpoint, provenance, schemas
from vltaxon.errors import UserError
from vltaxon.partition import allowed_parts, training_images
from vltaxon.prepared import Prepared
from vltaxon.train import (
    adapter,
    arguments,
    guards,
    lengths,
    progress,
    record,
    samples,
    trainer_state,
)
from vltaxon.versions import VERSIONS

OBJECTIVES = "vltaxon.train.objectives"  # named for `code_versions`: each kind of step has its trainer there

if TYPE_CHECKING:
    from vltaxon.tasks.training import TrainTask


class _Setup(NamedTuple):
    """What is trained, and what identifies it: a state of another identity is not continued."""

    prepared: Prepared
    identity: Mapping[str, Any]
    modules: Sequence[str]  # names of the adapted ones
    share: float  # of the decoder's weights that they hold


def train_step(task: "TrainTask") -> None:
    """Train an adapter and write it whole, with its curve and record.

    A killed training goes on from its newest state, if that is of the same step.

    Raises:
        UserError: a guard found something that would make the result wrong or empty.
    """
    started, world, step = time.monotonic(), int(os.environ.get("WORLD_SIZE", "1")), task.running_step
    _check(task, world)
    drawn = _draw(task)
    setup = _set_up(task, drawn, world)
    trainer = step.trainer(setup.prepared)
    trainable = guards.count_trainable(trainer.accelerator.unwrap_model(trainer.model))
    progress.show_progress(trainer)
    _train(task, trainer, {**setup.identity, "samples": provenance.digest_text(*map(repr, drawn))}, world)

    weights = None
    if trainer.is_fsdp_enabled:  # each process holds a share: all together
        weights = trainer.accelerator.get_state_dict(trainer.model)
    if trainer.args.process_index:
        return
    trained = trainer.accelerator.unwrap_model(trainer.model)
    curve = record.curve_of(trainer.state.log_history, step.columns())
    findings = step.findings(curve, setup.prepared)
    after = adapters.digest_adapter(trained, weights)
    guards.check_moved(setup.identity["adapter_before"], after)
    facts = {
        **setup.identity,
        "trained_tokens_per_sample": None,
        **findings,
        "step": step.model_dump(mode="json"),
        "adapter_after": after,
        "previous": None if task.previous is None else provenance.digest_file(task.previous),
        "trainable_parameters": trainable,
        "adapted_modules": len(setup.modules),
        "adapted_share": round(setup.share, 4),
        "adapted_kinds": sorted({name.rpartition(".")[2] for name in setup.modules}),
        "samples": len(drawn),
        "images": len({sample.image_id for sample in drawn}),
        "longest_sample_tokens": setup.prepared.lengths.longest,
        "steps": trainer.state.global_step,
        "devices": world,
        "wall_seconds": round(time.monotonic() - started, 1),
    }
    with provenance.whole_folder(task.adapter.parent) as part:
        trained.save_pretrained(
            part, selected_adapters=["default"], save_embedding_layers=False, state_dict=weights
        )
        (part / "README.md").unlink(missing_ok=True)
        record.write_record(part, curve, facts, task.seed)
    shutil.rmtree(task.state, ignore_errors=True)


def _check(task: "TrainTask", world: int) -> None:
    """Check what can be checked before a model is loaded."""
    import torch

    step = task.running_step
    step.accumulation(world)
    guards.check_devices(torch.cuda.device_count(), world, task.running_model.gpus)
    step.check_environment()


def _draw(task: "TrainTask") -> list[samples.Sample]:
    """Draw the samples of the step, and check that all of them may be trained on, and are enough.

    So are those of the steps after it, which would else be found wanting once this one is trained.
    """
    drawn = samples.draw(task)
    guards.check_leaks(drawn, task.images, task.parts, allowed_parts(task.step.part))
    guards.check_enough(len(drawn), task.step.least_samples, task.step.part)
    task.step.check_learns(len(drawn))
    for later in task.later:
        scored = (pc.field("split") == "train") & pc.field("scored")
        levels = provenance.read_parquet(task.questions, schemas.QUESTIONS, ["level"], scored)["level"]
        images = training_images(task.images, task.parts, allowed_parts(later.part))
        each = sum(spec.per_image(len(levels.unique())) for spec in later.samples)
        try:
            later.check_learns(len(images) * each)
        except UserError as error:
            raise UserError(f"the {later.kind} step after this one: {error}") from error
    return drawn


def _set_up(task: "TrainTask", drawn: Sequence[samples.Sample], world: int) -> _Setup:
    """Load the model with its adapter, and measure the samples."""
    import torch
    from transformers import set_seed

    from vltaxon.data.images import ImageStore

    step = task.running_step
    set_seed(task.seed)
    model = checkpoint.pinned(task.running_model)
    processor, base = checkpoint.load(model)
    guards.check_dtype(base, model.dtype)
    checkpoint.generate_as_told(base)
    if any(sample.system is not None for sample in drawn):
        chat.check_template(processor, model.checkpoint, system=True)
    rows = samples.dataset(drawn, ImageStore(task.images), model.pixels, model.min_pixels)
    measured = lengths.measure_lengths(drawn, rows, processor)
    context = getattr(base.config.get_text_config(), "max_position_embeddings", None)
    guards.check_context(measured.longest, step.new_tokens, context)
    policy = adapter.with_adapter(base, step.lora, None if task.previous is None else task.previous.parent)
    modules = guards.list_adapted_modules(policy)
    share = guards.share_adapted(policy, named="targets" in step.lora.model_fields_set)
    identity = {
        "base": checkpoint.digest(model),
        "dtype": model.dtype,
        "pixels": [model.min_pixels, model.pixels],
        "adapter_before": adapters.digest_adapter(policy),
        "step": step.shaping(),
        "seed": task.seed,
        "version": VERSIONS["vltaxon.train.step"],
    }
    if model.template:  # of a file that sets something
        identity["template"] = model.template
    if task.files:  # of an objective that reads more
        identity["files"] = [provenance.digest_file(path) for path in task.files]
    common = arguments.common_arguments(task, world, torch.cuda.is_available())
    return _Setup(Prepared(policy, processor, rows, common, measured, task.files), identity, modules, share)


def _train(task: "TrainTask", trainer: Any, identity: Mapping[str, Any], world: int) -> None:
    """Train to the end, from the newest state of the step if there is one.

    Raises:
        Stopped: the job was asked to stop, and its state is written.
    """
    first = trainer.args.process_index == 0
    with trainer.args.main_process_first(local=False):
        if first:
            trainer_state.open_states(task.state, {**identity, "sharded": trainer.is_fsdp_enabled})
        state = trainer_state.newest_state(task.state)
    if first and state is not None and (before := len(list(state.glob("rng_state*")))) != world:
        print(
            f"{state} is of {before} processes, these are {world}: what is drawn from here on is drawn "
            "otherwise",
            flush=True,
        )
    with trainer_state.catch_signals() as signals, provenance.fits(task.state):
        trainer_state.save_states(trainer, task.state, task.checkpoint_minutes, signals)
        trainer.train(resume_from_checkpoint=None if state is None else str(state))
    if (done := trainer.state.global_step) < trainer.state.max_steps:
        raise trainer_state.Stopped(
            f"{signals[0] if signals else 'a signal to another process'} has stopped this training after "
            f"step {done} of {trainer.state.max_steps}. Its state is kept in {task.state}: a rerun goes on "
            f"from step {done}."
        )
