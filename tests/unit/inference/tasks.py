"""Tasks of prediction in the small world, as the plan would make them."""

from pathlib import Path
from typing import Any

from tests.unit.conftest import RANKS, WORDING, World
from vltaxon.config.models import GenerativeSpec
from vltaxon.config.protocols import Prompt, Stage
from vltaxon.tasks.asking import Answering, Asking
from vltaxon.tasks.prediction import AnswerTask, PredictLeafTask

ANY = GenerativeSpec(engine="scripted", pixels=3136, licence="MIT")  # of an engine that stands in for a model


def asking(stage: Stage, prompt: Prompt, model: GenerativeSpec = ANY, **more: Any) -> Asking:
    words = {"wording": WORDING, "word": "plant", "ranks": RANKS, "seed": 0}
    return Asking(stage=stage, prompt=prompt, model=model, **(words | more))


def leaf_task(world: World, output: Path, asked: Asking, **more: Any) -> PredictLeafTask:
    files = {name: world.tables[name] for name in ("images", "taxa")}
    given = {"shard": 0, "shards": 1, "state": world.folder / ".state"} | files
    return PredictLeafTask(asking=asked, predictions=output, **(given | more))


def answer_task(world: World, output: Path, asked: Answering, **more: Any) -> AnswerTask:
    files = {name: world.tables[name] for name in ("images", "taxa", "questions")}
    given = {"shard": 0, "shards": 1, "state": world.folder / ".state"} | files
    return AnswerTask(asking=asked, predictions=output, **(given | more))


def unasked(by: str, seed: int = 0) -> Answering:
    """A stage 2 that asks no model."""
    return Answering(stage=Stage(name="answer", by=by), seed=seed)
