"""What was run: the systems."""

from vltaxon.report.sections import Content, Section

SECTION = Section(40, "What was run", "run")


def context(content: Content) -> dict[str, object]:
    """Return the systems by name, in the order of the tables."""
    return {"systems": content.task.systems}
