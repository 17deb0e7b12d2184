"""A value that equals its default is no part of what makes a job run again, so a default that moves needs a
decision.

After the decision: python -m tests.unit.test_defaults
"""

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vltaxon.config.base import Closed, Mark, default_of, plain
from vltaxon.config.files import KINDS
from vltaxon.plugins import find_plugins
from vltaxon.tasks.base import Task

RECORD = Path(__file__).parents[1] / "data" / "defaults.json"


def models() -> dict[str, type[Closed]]:
    """Every model that a task or a file of the config may hold, by name."""
    find_plugins("vltaxon.tasks")
    found: dict[str, type[Closed]] = {}
    queue: list[Any] = [*_below(Task), *KINDS.values()]
    while queue:
        kind = queue.pop()
        if isinstance(kind, type) and issubclass(kind, Closed):
            if kind.__name__ not in found:
                found[kind.__name__] = kind
                queue += [field.annotation for field in kind.model_fields.values()]
        else:
            queue += typing.get_args(kind)
    return dict(sorted(found.items()))


def _below(kind: type[Any]) -> Iterator[type[Any]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


def defaults() -> dict[str, Any]:
    """The default of every field that shapes a result, as the rerun rule writes it."""
    return {
        f"{name}.{key}": plain(default_of(field))
        for name, model in models().items()
        for key, field in model.model_fields.items()
        if not field.is_required() and not any(isinstance(mark, Mark) for mark in field.metadata)
    }


def test_no_default_has_moved_without_a_decision() -> None:
    recorded, now = json.loads(RECORD.read_text()), defaults()
    moved = {
        name: (recorded[name], now[name])
        for name in recorded.keys() & now.keys()
        if recorded[name] != now[name]
    }
    assert not moved, (
        f"{moved}: results that were made with the old default would be taken for results of the new one. Raise the number "
        "in src/vltaxon/versions.py of what reads it (or keep the old default and write the new value where it is wanted); "
        "then record the defaults: python -m tests.unit.test_defaults"
    )
    assert recorded.keys() == now.keys(), (
        "fields came or went: record the defaults, python -m tests.unit.test_defaults"
    )


def test_the_record_would_notice() -> None:
    assert len(defaults()) > 60 and "Stage.temperature" in defaults() and "Vlm.batch_size" not in defaults()


@pytest.mark.parametrize("name", ["Vlm", "Stage", "Dataset"])
def test_a_value_that_equals_its_default_shapes_nothing(name: str) -> None:
    model = models()[name]
    assert not {key for key, field in model.model_fields.items() if not field.is_required()} & set(
        model.model_construct(**{k: "x" for k, f in model.model_fields.items() if f.is_required()}).shaping()
    )


if __name__ == "__main__":
    RECORD.write_text(json.dumps(defaults(), indent=1, sort_keys=True, default=str) + "\n")
