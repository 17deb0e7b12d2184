"""Answers of an endpoint, or of vLLM that is started for the job: the engine `server`."""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from vltaxon import checkpoint, provenance
from vltaxon.config.base import HOW, Closed
from vltaxon.config.files import read_model
from vltaxon.data.images import ImageStore
from vltaxon.engines.server import Endpoint, Managed
from vltaxon.inference import managed
from vltaxon.inference.engine import Engine
from vltaxon.inference.ledger import Ledger
from vltaxon.inference.served import digest, remote
from vltaxon.inference.server_engine import ServerEngine
from vltaxon.inference.source import Source
from vltaxon.tasks.asking import Asking, AskingTask
from vltaxon.versions import VERSIONS


def source(task: AskingTask, asking: Asking, images: pa.Table) -> Source:
    """Return the endpoint of a job: see `source.source_of`.

    Args:
        task: the job.
        asking: what it asks.
        images: that it may ask about.
    """
    assert isinstance(asking.model, Endpoint) and task.settings is not None, "it is asked as its file says"
    spec = as_its_file_says(asking.model, task.settings)
    if asking.served is not None and asking.served.template:  # as the engine that loads it renders prompts
        body = {"chat_template_kwargs": asking.served.template} | spec.body
        spec = spec.model_copy(update={"body": body})
    identity: dict[str, Any] = {"engine": "server", "version": VERSIONS["vltaxon.inference.run"]}
    weights = None
    if spec.managed is not None:
        assert asking.served is not None, "a server of ours serves a model of the config"
        adapter = task.adapter.parent if task.adapter is not None else None
        merged = None if spec.managed.lora else task.merged
        weights = managed.Weights(checkpoint.pinned(asking.served), adapter, merged)
        served = {"engine", "checkpoint", "revision", "dtype", "pixels", "min_pixels", "max_new_tokens"}
        identity |= {
            "served": asking.served.model_dump(mode="json", include=served) | {"licence": "none"},
            "serving": spec.managed.model_dump(mode="json", include={"arguments", "lora"}),
            "package": managed.version(spec.managed),
        }
    of_all = digest(spec, None if weights is None else weights.digest)
    called = str(spec.model or spec.description) if spec.url is None else f"{spec.model} at {spec.url}"
    start = functools.partial(_reached, task, spec, weights, images)
    return Source(of_all, called, identity | {"weights": of_all}, start, spec.max_errors)


def as_its_file_says(planned: Endpoint, file: Path) -> Endpoint:
    """Return how to ask: what shapes answers as it was planned, all else as the model's file says now.

    Args:
        planned: how it was to be asked.
        file: of the model.

    Raises:
        UserError: the file is gone, or no YAML any more.
    """
    now = read_model(file)
    values = _shaping(planned) | _how(Endpoint, now)
    if planned.managed is not None:
        values["managed"] = _shaping(planned.managed) | _how(Managed, now.get("managed") or {})
    return Endpoint.model_validate(values)


def _shaping(planned: Closed) -> dict[str, Any]:
    fields = type(planned).model_fields.items()
    return {name: getattr(planned, name) for name, field in fields if not HOW.on(field)}


def _how(kind: type[Closed], said: dict[str, Any]) -> dict[str, Any]:
    return {name: said[name] for name, field in kind.model_fields.items() if HOW.on(field) and name in said}


@contextmanager
def _reached(
    task: AskingTask, spec: Endpoint, weights: managed.Weights | None, images: pa.Table
) -> Iterator[Engine]:
    """Make the engine: of an address with its ledger, or of servers that are started for the block."""
    store, spent = ImageStore(images), task.state / "spent"
    if weights is None:
        served = remote(spec)
        name = provenance.digest_text(str(spec.url), str(spec.model))
        file = spent / f"{urlsplit(str(spec.url)).hostname}-{name}.jsonl"
        with Ledger(file, spec.price, spec.budget) as ledger:
            yield ServerEngine(spec, served, store, ledger, passed=task.state / "seen")
        return
    devices = [device for device in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]
    log = task.log.with_suffix(f".vllm{task.log.suffix}")
    with managed.serving(spec, weights, devices, log) as served:
        yield ServerEngine(spec, served, store, Ledger(spent))
