"""The records of training steps."""

import json

from vltaxon.report.sections import Content, Section, flat

SECTION = Section(44)


def context(content: Content) -> dict[str, object]:
    """Return the records by the name to show, each as named texts."""
    records = zip(content.task.steps, content.task.records, strict=True)
    return {"records": {name: flat(json.loads(path.read_text(encoding="utf-8"))) for name, path in records}}
