"""Where the answers of a job come from: the model that its engine loads, or the endpoint that it asks."""

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vltaxon.inference.engine import Engine
from vltaxon.plugins import find_plugins
from vltaxon.tasks.asking import Asking, AskingTask


@dataclass(frozen=True)
class Source:
    """Where a job's answers come from: what they have in common, and an engine that is made when needed.

    Attributes:
        weights: digest of weights and adapter, which the engine will have.
        called: what readers may call it.
        identity: all that shapes its answers beside the requests; answers are kept by it.
        start: makes the engine, for a block.
        max_errors: share of the requests that may end as errors.
    """

    weights: str
    called: str
    identity: Mapping[str, Any]
    start: Callable[[], AbstractContextManager[Engine]]
    max_errors: float = 0.0


def source_of(task: AskingTask, asking: Asking, images: pa.Table) -> Source:
    """Return where the answers of a job come from.

    Args:
        task: the job.
        asking: what it asks, of which model.
        images: rows of the images that it may ask about, schema `IMAGES`.
    """
    engine = find_plugins("vltaxon.engines")[asking.model.engine]
    module = importlib.import_module(asking.model.source) if asking.model.source else engine
    made: Source = module.source(task, asking, images)
    return made
