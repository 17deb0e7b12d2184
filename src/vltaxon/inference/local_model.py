"""Answers of a checkpoint that the job itself loads: the engine `transformers`."""

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from vltaxon import checkpoint, provenance
from vltaxon.adapters import adapted
from vltaxon.data.images import ImageStore
from vltaxon.engines.transformers import Vlm
from vltaxon.inference.engine import Engine
from vltaxon.inference.source import Source
from vltaxon.tasks.asking import Asking, AskingTask
from vltaxon.versions import VERSIONS


def identity(model: Vlm, weights: str) -> dict[str, Any]:
    """Return what of a model shapes all its answers: engine, weights, number format, pixels shown.

    The package that runs it is part of it, as predictions are stamped with its version.

    Args:
        model: the model file.
        weights: digest of weights and adapter.
    """
    shown = model.model_dump(include={"engine", "dtype", "pixels", "min_pixels"})
    shown |= {"template": model.template} if model.template else {}
    if checkpoint.generates_otherwise(model):  # what was answered before it was left out of account
        shown |= {"generation": "as told"}
    package = f"transformers {json.loads(provenance.origin()['packages'])['transformers']}"
    return shown | {"version": VERSIONS["vltaxon.inference.run"], "package": package, "weights": weights}


def source(task: AskingTask, asking: Asking, images: pa.Table) -> Source:
    """Return the model of a job, to be loaded with its adapter: see `source.source_of`.

    Args:
        task: the job.
        asking: what it asks.
        images: that it may ask about.
    """
    assert isinstance(asking.model, Vlm)
    sized = {"batch_size": task.batch_size, "gpus": max(1, task.gpu)}
    model = checkpoint.pinned(asking.model.model_copy(update=sized))
    adapter = task.adapter.parent if task.adapter is not None else None
    weights, called = checkpoint.digest(model), model.checkpoint
    if adapter is not None:
        weights, called = adapted(weights, adapter), f"{called} + {adapter}"
    start = functools.partial(_loaded, model, adapter, images)
    return Source(weights, called, identity(model, weights), start)


@contextmanager
def _loaded(model: Vlm, adapter: Path | None, images: pa.Table) -> Iterator[Engine]:
    from vltaxon.inference.transformers_engine import TransformersEngine

    yield TransformersEngine(model, adapter, ImageStore(images))
