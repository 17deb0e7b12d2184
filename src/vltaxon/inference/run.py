"""The jobs of prediction: each takes its task and writes one table, asking only what nobody asked before."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vltaxon import checkpoint, layout, provenance, schemas
from vltaxon.adapters import adapted
from vltaxon.data.images import digests
from vltaxon.inference import local_model
from vltaxon.inference.engine import Engine
from vltaxon.inference.journal import statistics
from vltaxon.inference.journal.engine import Journaled, Lazy
from vltaxon.inference.journal.folder import JournalFolder
from vltaxon.inference.source import source_of
from vltaxon.inference.stages.answers import ask_questions
from vltaxon.inference.stages.chance import answer_by_chance
from vltaxon.inference.stages.failures import FailedRequests
from vltaxon.inference.stages.images import expected_costs, images_of_shard
from vltaxon.inference.stages.leaf import name_leaves
from vltaxon.inference.stages.lookup import answer_by_lookup
from vltaxon.inference.stages.similarity import answer_by_similarity
from vltaxon.partition import allowed_parts, training_images
from vltaxon.tasks.asking import Asking, AskingTask, LeafTask
from vltaxon.tasks.prediction import AnswerTask, PredictLeafTask, PruneJournalTask
from vltaxon.tasks.training import NameTrainingTask


@contextmanager
def engine_for(
    task: AskingTask, asking: Asking, ids: Sequence[str]
) -> Iterator[tuple[Engine, FailedRequests]]:
    """Yield who answers about some images: the journal, then the model, made when something is left to ask.

    Args:
        task: the job.
        asking: what it asks.
        ids: images that it may ask about.

    Yields:
        The engine, and where requests that fail for good are recorded.
    """
    wanted = pc.field("image_id").isin(pa.array(ids, pa.string()))
    images = provenance.read_parquet(task.images, schemas.IMAGES, rows=wanted)
    source = source_of(task, asking, images)
    kept = JournalFolder(task.state / "journal", source.identity, source.called)
    with ExitStack() as held:
        engine = Lazy(source.weights, lambda: held.enter_context(source.start()))
        failures = FailedRequests(errors_file(task), source.max_errors)
        yield Journaled(engine, kept, digests(images), asking.repeat), failures


def errors_file(task: AskingTask) -> Path:
    """Return where requests that failed for good are recorded: as the job's log lies among the logs."""
    parts = task.log.with_suffix(".jsonl").parts
    return task.state / "errors" / Path(*parts[parts.index("logs") + 1 :] if "logs" in parts else parts[-1:])


def predict_leaf(task: PredictLeafTask) -> None:
    """Run stage 1 of a shard."""
    ids = images_of_shard(task.images, task.shard, task.shards, costs=expected_costs(task.asking))
    _name(task, ids)


def name_training(task: NameTrainingTask) -> None:
    """Run stage 1 of the training images of a part, on which the samples of the next step are conditioned."""
    images = training_images(task.images, task.parts, allowed_parts(task.part))
    _name(task, [image_id for image_id, _ in images])


def _name(task: LeafTask, ids: Sequence[str]) -> None:
    with engine_for(task, task.asking, ids) as (engine, failures):
        name_leaves(task, engine, ids, failures)


def _answer_by_model(task: AnswerTask, ids: Sequence[str]) -> None:
    assert isinstance(task.asking, Asking), "a model is asked"
    with engine_for(task, task.asking, ids) as (engine, failures):
        ask_questions(task, engine, ids, failures)


_ANSWER: dict[str, Callable[[AnswerTask, Sequence[str]], None]] = {  # by who answers a stage
    "model": _answer_by_model,
    "lookup": answer_by_lookup,
    "similarity": answer_by_similarity,
    "chance": answer_by_chance,
}


def answer_questions(task: AnswerTask) -> None:
    """Run stage 2 of a shard, by whoever the protocol says answers."""
    costs = expected_costs(task.asking)
    ids = images_of_shard(task.images, task.shard, task.shards, task.questions, costs)
    _ANSWER[task.asking.stage.by](task, ids)


def prune_journal(task: PruneJournalTask) -> None:
    """Delete what models answered with weights or settings that they no longer have, and tell what it was.

    What a model has answered as it is now, bare or with one of its adapters, is kept; so is all of
    checkpoints that none of them has: another config may.
    """
    wanted, ours = [], set()
    for name, model in task.models.items():
        bare = checkpoint.digest(checkpoint.pinned(model))
        ours.add(model.checkpoint)
        trained = sorted(path.parent for path in (task.adapters / name).rglob(layout.WEIGHTS))
        weights = [bare, *(adapted(bare, adapter) for adapter in trained)]
        wanted += [local_model.identity(model, one) for one in weights]
    gone = statistics.prune(task.journal, ours, wanted)
    lines = [
        f"deleted {one.answers:,} answers ({one.bytes:,} bytes) of {one.note.get('called', one.folder)}"
        for one in gone
    ]
    said = "\n".join([*lines, f"identities: {len(gone)} deleted, {len(statistics.kept(task.journal))} kept"])
    task.log.write_text(said + "\n", encoding="utf-8")
    print(said)
