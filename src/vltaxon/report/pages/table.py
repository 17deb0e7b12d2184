"""The main table, and that of seen and unseen species."""

from vltaxon.report.sections import Content, Section
from vltaxon.report.tables import blocks, caption, main_columns, species_columns, written

SECTION = Section(10, "Table", "table")


def context(content: Content) -> dict[str, object]:
    """Return the blocks of both tables."""
    scores, labels, metrics = content.scores, content.labels, content.metrics
    return {
        "main": [block.spared() for block in blocks(scores, labels, main_columns(metrics))],
        "species": blocks(scores, labels, species_columns(metrics)),
        "caption": caption(metrics),
        "written": written,
    }
