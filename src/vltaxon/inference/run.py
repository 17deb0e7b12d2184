"""The doors of prediction: values of a rule in, one shard's table out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vltaxon import checkpoint, schemas
from vltaxon.config import Prompt, Stage, Vlm
from vltaxon.data.images import ImageStore, digests
from vltaxon.inference import journal, stages
from vltaxon.inference.engine import Engine
from vltaxon.inference.journal import Journal, Journaled, Lazy
from vltaxon.partition import allowed_parts, training_images
from vltaxon.provenance import origin, read_parquet
from vltaxon.versions import VERSIONS


def _engine(
    images: Path,
    ids: Sequence[str],
    adapter: Path | None,
    values: Mapping[str, Any],
    batch_size: int,
    gpus: int,
    state: Path | None,
) -> Engine:
    """Who answers about some images: what the journal has, then the model, which is loaded when something is left to ask."""
    model = checkpoint.pinned(Vlm.model_validate({**values["model"], "batch_size": batch_size, "gpus": max(1, gpus)}))
    table = read_parquet(images, schemas.IMAGES, rows=pc.field("image_id").isin(pa.array(ids, pa.string())))

    def load() -> Engine:
        from vltaxon.inference.transformers_engine import TransformersEngine

        return TransformersEngine(model, adapter, ImageStore(table))

    weights = checkpoint.digest(model)
    if adapter is not None:
        weights = checkpoint.adapted(weights, adapter)
    engine = Lazy(weights, load)
    if state is None:
        return engine
    called = model.checkpoint if adapter is None else f"{model.checkpoint} + {adapter}"
    return Journaled(engine, Journal(state, identity(model, weights), called), digests(table), values.get("repeat", 0))


def identity(model: Vlm, weights: str) -> dict[str, Any]:
    """What of a model all its answers hang on: engine, weights and adapter, number format and the pixels it is shown.

    The package that runs it is part of it, as predictions are stamped with its version.
    """
    shown = model.model_dump(include={"engine", "dtype", "pixels", "min_pixels"})
    package = f"transformers {json.loads(origin()['packages'])['transformers']}"
    return shown | {"version": VERSIONS["vltaxon.inference.run"], "package": package, "weights": weights}


def prune_journal(models: Mapping[str, Mapping[str, Any]], adapters: Path, state: Path) -> str:
    """Delete what no model has answered as it is now, bare or with one of its adapters; what was deleted, in words.

    Args:
        models: values of the models, by name.
        adapters: folder of all adapters, by model.
        state: folder of the journals.
    """
    wanted = []
    for name, values in models.items():
        model = Vlm.model_validate(values)
        bare = checkpoint.digest(checkpoint.pinned(model))
        trained = sorted(path.parent for path in (adapters / name).rglob("adapter_model.safetensors"))
        wanted += [identity(model, weights) for weights in (bare, *(checkpoint.adapted(bare, adapter) for adapter in trained))]
    gone = journal.prune(state, "transformers", wanted)
    lines = [f"deleted {one.answers:,} answers ({one.bytes:,} bytes) of {one.note.get('called', one.folder)}" for one in gone]
    return "\n".join([*lines, f"identities: {len(gone)} deleted, {len(journal.kept(state))} kept"])


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
    state: Path | None = None,
) -> None:
    """Stage 1 of a shard. `values` are those of `plan.Plan.stage_values`; `state` is where answers are kept, if they are."""
    ids = stages.test_images(images, shard, values["shards"])
    _name(values, images, adapter, ids, batch_size, output, taxa, gpus, state)


def name_training(
    values: Mapping[str, Any],
    images: Path,
    parts: Path,
    adapter: Path | None,
    batch_size: int,
    output: Path,
    gpus: int = 1,
    state: Path | None = None,
) -> None:
    """Stage 1 of the training images of a part, on which the samples of the next step are conditioned."""
    ids = [image_id for image_id, _ in training_images(images, parts, allowed_parts(values["part"]))]
    _name(values, images, adapter, ids, batch_size, output, None, gpus, state)


def _name(
    values: Mapping[str, Any],
    images: Path,
    adapter: Path | None,
    ids: Sequence[str],
    batch_size: int,
    output: Path,
    taxa: Path | None,
    gpus: int,
    state: Path | None,
) -> None:
    stage = _stage(values)
    gold, only = _gold(stage, images, taxa, ids), stages.lineages(taxa, stage) if stage.constrained and taxa is not None else ()
    engine = _engine(images, ids, adapter, values, batch_size, gpus, state)
    stages.predict_leaf(engine, ids, stage, _asking(values), output, values["seed"], gold, only)


def _gold(stage: Stage, images: Path, taxa: Path | None, ids: Sequence[str]) -> Mapping[str, str] | None:
    """The true leaves, for a stage that is given them."""
    return stages.true_leaves(images, taxa, ids) if stage.condition == "gold" and taxa is not None else None


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
    state: Path | None = None,
) -> None:
    """Stage 2 of a shard, by whoever the protocol says answers. `values` are those of `plan.Plan.stage_values`."""
    stage, seed = _stage(values), values["seed"]
    ids = stages.test_images(images, shard, values["shards"])
    match stage.by:
        case "model":
            gold = _gold(stage, images, taxa, ids)
            engine = _engine(images, ids, adapter, values, batch_size, gpus, state)
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
