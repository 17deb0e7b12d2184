"""The doors of prediction: values of a rule in, one shard's table out."""

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from vltaxon import checkpoint, config, provenance, schemas, shards
from vltaxon.config import HOW, Endpoint, Prompt, Stage, Vlm
from vltaxon.data.images import ImageStore, digests
from vltaxon.inference import journal, stages
from vltaxon.inference.engine import Engine
from vltaxon.inference.journal import Journal, Journaled, Lazy
from vltaxon.partition import allowed_parts, training_images
from vltaxon.versions import VERSIONS

if TYPE_CHECKING:
    from vltaxon.inference import managed


@dataclass(frozen=True)
class Around:
    """What a job finds around it, none of which shapes its results."""

    log: Path  # of the job; those of servers lie beside it
    settings: Path | None = None  # the model's file: how to ask an endpoint
    merged: Path | None = None  # checkpoint with the adapter merged in
    state: Path = Path("results/.state")

    @property
    def errors(self) -> Path:
        """Where requests that failed for good are recorded."""
        parts = self.log.with_suffix(".jsonl").parts
        return self.state / "errors" / Path(*parts[parts.index("logs") + 1 :] if "logs" in parts else parts[-1:])

    @property
    def journal(self) -> Path:
        """Where answers are kept."""
        return self.state / "journal"


@contextmanager
def _engine(
    images: Path,
    ids: Sequence[str],
    adapter: Path | None,
    values: Mapping[str, Any],
    batch_size: int,
    gpus: int,
    around: Around | None,
) -> Iterator[Engine]:
    """Who answers about some images, for the block: what the journal has, then the model, made when something is left to ask."""
    table = provenance.read_parquet(images, schemas.IMAGES, rows=pc.field("image_id").isin(pa.array(ids, pa.string())))
    make: Callable[[], AbstractContextManager[Engine]]
    if values["model"]["engine"] == "server":
        assert around is not None, "an endpoint is asked as its file says"
        from vltaxon.inference import managed, server_engine

        spec = _endpoint(values["model"], around)
        serves = None
        if spec.managed is not None:
            base = checkpoint.pinned(Vlm.model_validate(values["served"]))
            serves = managed.Weights(base, adapter, None if spec.managed.lora else around.merged)
        digest = server_engine.digest(spec, None if serves is None else serves.digest)
        called = str(spec.model or spec.description)
        who: dict[str, Any] = {"engine": "server", "version": VERSIONS["vltaxon.inference.run"], "weights": digest}
        if spec.managed is not None:
            who |= {"served": values["served"], "serving": values["model"]["serving"], "package": managed.version(spec.managed)}
        make = functools.partial(_server, spec, serves, table, around)
    else:
        model = checkpoint.pinned(Vlm.model_validate({**values["model"], "batch_size": batch_size, "gpus": max(1, gpus)}))
        digest = checkpoint.digest(model) if adapter is None else checkpoint.adapted(checkpoint.digest(model), adapter)
        called = model.checkpoint if adapter is None else f"{model.checkpoint} + {adapter}"
        who = identity(model, digest)
        make = functools.partial(_loaded, model, adapter, table)
    with ExitStack() as held:
        engine = Lazy(digest, lambda: held.enter_context(make()))
        if around is None:
            yield engine
        else:
            yield Journaled(engine, Journal(around.journal, who, called), digests(table), values.get("repeat", 0))


@contextmanager
def _loaded(model: Vlm, adapter: Path | None, images: pa.Table) -> Iterator[Engine]:
    from vltaxon.inference.transformers_engine import TransformersEngine

    yield TransformersEngine(model, adapter, ImageStore(images))


def identity(model: Vlm, weights: str) -> dict[str, Any]:
    """What of a model all its answers hang on: engine, weights and adapter, number format and the pixels it is shown.

    The package that runs it is part of it, as predictions are stamped with its version.
    """
    shown = model.model_dump(include={"engine", "dtype", "pixels", "min_pixels"})
    package = f"transformers {json.loads(provenance.origin()['packages'])['transformers']}"
    return shown | {"version": VERSIONS["vltaxon.inference.run"], "package": package, "weights": weights}


def prune_journal(models: Mapping[str, Mapping[str, Any]], adapters: Path, state: Path) -> str:
    """Delete what these models answered with weights or settings that they no longer have; what was deleted, in words.

    What a model has answered as it is now, bare or with one of its adapters, is kept; so is all of checkpoints that none of them
    has: another config may.

    Args:
        models: values of the models, by name.
        adapters: folder of all adapters, by model.
        state: folder of the journals.
    """
    wanted, ours = [], set()
    for name, values in models.items():
        model = Vlm.model_validate(values)
        bare = checkpoint.digest(checkpoint.pinned(model))
        ours.add(model.checkpoint)
        trained = sorted(path.parent for path in (adapters / name).rglob("adapter_model.safetensors"))
        wanted += [identity(model, weights) for weights in (bare, *(checkpoint.adapted(bare, adapter) for adapter in trained))]
    gone = journal.prune(state, ours, wanted)
    lines = [f"deleted {one.answers:,} answers ({one.bytes:,} bytes) of {one.note.get('called', one.folder)}" for one in gone]
    return "\n".join([*lines, f"identities: {len(gone)} deleted, {len(journal.kept(state))} kept"])


def _endpoint(model: Mapping[str, Any], around: Around) -> Endpoint:
    """How to ask, as the model's file says now; what shapes results, as it said when the job was planned."""
    assert around.settings is not None, "an endpoint is asked as its file says"
    said = config.read_model(around.settings)
    shaping = {name for name, field in Endpoint.model_fields.items() if not HOW.on(field)}
    kept = {key: value for key, value in said.items() if key not in shaping}
    managed = dict(said.get("managed") or {}) | dict(model.get("managed") or {})
    return Endpoint.model_validate(kept | dict(model) | ({"managed": managed} if managed else {}))


@contextmanager
def _server(spec: Endpoint, serves: "managed.Weights | None", images: pa.Table, around: Around) -> Iterator[Engine]:
    from vltaxon.inference import managed
    from vltaxon.inference.ledger import Ledger
    from vltaxon.inference.server_engine import ServerEngine, remote

    if serves is None:
        served = remote(spec)
        name = provenance.digest_text(str(spec.url), str(spec.model))
        file = around.state / "spent" / f"{urlsplit(str(spec.url)).hostname}-{name}.jsonl"
        with Ledger(file, spec.price, spec.budget) as ledger:
            yield ServerEngine(spec, served, ImageStore(images), ledger)
        return
    devices = [device for device in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]
    log = around.log.with_suffix(f".vllm{around.log.suffix}")
    with managed.serving(spec, serves, devices, log) as served:
        yield ServerEngine(spec, served, ImageStore(images), Ledger(around.state))


def _stage(values: Mapping[str, Any]) -> Stage:
    """The stage, its token limit capped by the model's own."""
    stage, cap = Stage.model_validate(values["stage"]), values.get("model", {}).get("max_new_tokens")
    return stage if cap is None else stage.model_copy(update={"max_new_tokens": min(cap, stage.max_new_tokens)})


def _cost(values: Mapping[str, Any], stage: Stage) -> stages.Costs:
    """What images and requests about them are expected to cost, so that shards take equally long."""
    if stage.by != "model":
        return lambda pixels, requests: requests
    most, least = values["model"]["pixels"], values["model"].get("min_pixels", 0)
    each = shards.cost(stage, Prompt.model_validate(values["prompt"]), 0)

    def of(pixels: int, requests: int) -> int:
        return each._replace(image=min(max(pixels, least), most) / shards.PIXELS).of(requests)

    return of


def _asking(values: Mapping[str, Any]) -> stages.Asking:
    prompt, own = Prompt.model_validate(values["prompt"]), values["model"].get("system")
    said = prompt if own is None else prompt.model_copy(update={"system": own})
    return stages.Asking(said, values["wording"], values["word"], tuple(values["ranks"]))


def predict_leaf(
    values: Mapping[str, Any],
    images: Path,
    adapter: Path | None,
    shard: int,
    batch_size: int,
    output: Path,
    taxa: Path | None = None,
    gpus: int = 1,
    around: Around | None = None,
) -> None:
    """Stage 1 of a shard. `values` are those of `plan.Plan.stage_values`."""
    ids = stages.test_images(images, shard, values["shards"], cost=_cost(values, _stage(values)))
    _name(values, images, adapter, ids, batch_size, output, taxa, gpus, around)


def name_training(
    values: Mapping[str, Any],
    images: Path,
    parts: Path,
    adapter: Path | None,
    batch_size: int,
    output: Path,
    gpus: int = 1,
    around: Around | None = None,
) -> None:
    """Stage 1 of the training images of a part, on which the samples of the next step are conditioned."""
    ids = [image_id for image_id, _ in training_images(images, parts, allowed_parts(values["part"]))]
    _name(values, images, adapter, ids, batch_size, output, None, gpus, around)


def _name(
    values: Mapping[str, Any],
    images: Path,
    adapter: Path | None,
    ids: Sequence[str],
    batch_size: int,
    output: Path,
    taxa: Path | None,
    gpus: int,
    around: Around | None,
) -> None:
    stage = _stage(values)
    gold, only = _gold(stage, images, taxa, ids), stages.lineages(taxa, stage) if stage.constrained and taxa is not None else ()
    worth = None
    if stage.choose == "best":
        assert taxa is not None, "the best is known by the truth"
        worth = stages.nearness(images, taxa, ids)
    with _engine(images, ids, adapter, values, batch_size, gpus, around) as engine:
        stages.predict_leaf(engine, ids, stage, _asking(values), output, values["seed"], gold, only, _errors(around), worth)


def _errors(around: Around | None) -> stages.Errors | None:
    """Where requests that fail for good are recorded, and how many of them a table may hold."""
    if around is None or around.settings is None:
        return None
    return stages.Errors(around.errors, float(config.read_model(around.settings).get("max_errors", 0)))


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
    around: Around | None = None,
) -> None:
    """Stage 2 of a shard, by whoever the protocol says answers. `values` are those of `plan.Plan.stage_values`."""
    stage, seed = _stage(values), values["seed"]
    ids = stages.test_images(images, shard, values["shards"], questions, _cost(values, stage))
    match stage.by:
        case "model":
            gold, asking, rotation = _gold(stage, images, taxa, ids), _asking(values), values["rotation"]
            with _engine(images, ids, adapter, values, batch_size, gpus, around) as engine:
                stages.answer_by_model(
                    engine, ids, stage, asking, questions, leaves, output, seed, gold, rotation, _errors(around)
                )
        case "lookup":
            assert taxa is not None
            stages.answer_by_lookup(ids, taxa, questions, leaves, output, seed)
        case "similarity":
            assert taxa is not None
            of_images, of_taxa = vectors
            stages.answer_by_similarity(ids, of_images, of_taxa, taxa, questions, output, seed)
        case "chance":
            stages.answer_by_chance(ids, questions, output, seed)
