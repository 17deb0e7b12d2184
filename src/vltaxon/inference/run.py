"""The doors of prediction: values of a rule in, one shard's table out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vltaxon.config import Prompt, Stage, Vlm
from vltaxon.inference import stages
from vltaxon.inference.engine import Engine
from vltaxon.partition import allowed_parts, training_images


def _engine(images: Path, adapter: Path | None, model: Mapping[str, Any], batch_size: int, gpus: int) -> Engine:
    from vltaxon.data.images import ImageStore
    from vltaxon.inference.transformers_engine import TransformersEngine

    return TransformersEngine(
        Vlm.model_validate({**model, "batch_size": batch_size, "gpus": max(1, gpus)}), adapter, ImageStore(images)
    )


def _stage(values: Mapping[str, Any]) -> Stage:
    """The stage, its token limit capped by the model's own."""
    stage, cap = Stage.model_validate(values["stage"]), values.get("model", {}).get("max_new_tokens")
    return stage if cap is None else stage.model_copy(update={"max_new_tokens": min(cap, stage.max_new_tokens)})


def _asking(values: Mapping[str, Any]) -> stages.Asking:
    return stages.Asking(Prompt.model_validate(values["prompt"]), values["wording"], values["word"], tuple(values["ranks"]))


def predict_leaf(
    values: Mapping[str, Any],
    images: Path,
    adapter: Path | None,
    shard: int,
    batch_size: int,
    output: Path,
    taxa: Path | None = None,
    gpus: int = 1,
) -> None:
    """Stage 1 of a shard. `values` are those of `plan.Plan.stage_values`."""
    ids = stages.test_images(images, shard, values["shards"])
    _name(values, images, adapter, ids, batch_size, output, taxa, gpus)


def name_training(
    values: Mapping[str, Any],
    images: Path,
    parts: Path,
    adapter: Path | None,
    batch_size: int,
    output: Path,
    gpus: int = 1,
) -> None:
    """Stage 1 of the training images of a part, on which the samples of the next step are conditioned."""
    ids = [image_id for image_id, _ in training_images(images, parts, allowed_parts(values["part"]))]
    _name(values, images, adapter, ids, batch_size, output, None, gpus)


def _name(
    values: Mapping[str, Any],
    images: Path,
    adapter: Path | None,
    ids: Sequence[str],
    batch_size: int,
    output: Path,
    taxa: Path | None,
    gpus: int,
) -> None:
    stage = _stage(values)
    gold, only = _gold(stage, images, taxa), stages.lineages(taxa, stage) if stage.constrained and taxa is not None else ()
    engine = _engine(images, adapter, values["model"], batch_size, gpus)
    stages.predict_leaf(engine, ids, stage, _asking(values), output, values["seed"], gold, only)


def _gold(stage: Stage, images: Path, taxa: Path | None) -> Mapping[str, str] | None:
    """The true leaves, for a stage that is given them."""
    return stages.true_leaves(images, taxa) if stage.condition == "gold" and taxa is not None else None


def answer_questions(
    values: Mapping[str, Any],
    images: Path,
    questions: Path,
    output: Path,
    shard: int,
    batch_size: int,
    adapter: Path | None = None,
    leaves: Sequence[Path] = (),
    taxa: Path | None = None,
    vectors: Sequence[Path] = (),
    gpus: int = 1,
) -> None:
    """Stage 2 of a shard, by whoever the protocol says answers. `values` are those of `plan.Plan.stage_values`."""
    stage, seed = _stage(values), values["seed"]
    ids = stages.test_images(images, shard, values["shards"])
    match stage.by:
        case "model":
            engine, gold = _engine(images, adapter, values["model"], batch_size, gpus), _gold(stage, images, taxa)
            rotation = values["rotation"]
            stages.answer_by_model(engine, ids, stage, _asking(values), questions, leaves, output, seed, gold, rotation)
        case "lookup":
            assert taxa is not None
            stages.answer_by_lookup(ids, taxa, questions, leaves, output, seed)
        case "similarity":
            assert taxa is not None
            of_images, of_taxa = vectors
            stages.answer_by_similarity(ids, of_images, of_taxa, taxa, questions, output, seed)
        case "chance":
            stages.answer_by_chance(ids, questions, output, seed)
