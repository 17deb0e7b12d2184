"""The records of training steps."""

import json

from vltaxon.report.sections import Content, Section, flat

SECTION = Section(44)


def context(content: Content) -> dict[str, object]:
    """Return the records by the name to show, each as named texts, and what they warn of."""
    paths = zip(content.task.steps, content.task.records, strict=True)
    records = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths}
    return {
        "records": {name: flat(record) for name, record in records.items()},
        "warnings": {name: record.get("warnings", []) for name, record in records.items()},
    }
