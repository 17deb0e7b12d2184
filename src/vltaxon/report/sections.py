"""What the sections of the page share: where one stands, what they are made of, how values are shown."""

import base64
import json
from collections.abc import Mapping
from typing import NamedTuple

from vltaxon.metrics.heads import Metrics
from vltaxon.report.estimates import Scores
from vltaxon.tasks.scoring import ReportTask


class Section(NamedTuple):
    """Where a section stands: sections come in their order, those below 0 in the header of the page.

    One without a link belongs to the section before it; one with a link has an anchor of its own.
    """

    order: int
    link: str | None = None
    anchor: str | None = None


class Content(NamedTuple):
    """What sections are made of: the task, and what is read once for all of them."""

    task: ReportTask
    scores: Scores
    metrics: Metrics
    labels: dict[str, str]


def uri(data: bytes, kind: str) -> str:
    """Return a file as an address that holds it.

    Args:
        data: its bytes.
        kind: its media type.
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def flat(value: object) -> dict[str, str]:
    """Return a value as named texts: a mapping line by line, anything else under an empty name."""
    items = value.items() if isinstance(value, Mapping) else [("", value)]
    return {
        str(name): item if isinstance(item, str) else json.dumps(item, default=str) for name, item in items
    }
