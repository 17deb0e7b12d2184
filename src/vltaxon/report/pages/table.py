"""The main table, and that of seen and unseen species."""

from vltaxon.report.compared import Pairs
from vltaxon.report.sections import Content, Section
from vltaxon.report.tables import blocks, caption, main_columns, species_columns, written

SECTION = Section(10, "Table", "table")


def context(content: Content) -> dict[str, object]:
    """Return the blocks of both tables."""
    scores, labels, metrics, task = content.scores, content.labels, content.metrics, content.task
    pairs = Pairs.read(task.compare, task.database, task.bootstrap, task.seed)
    return {
        "main": [block.spared() for block in blocks(scores, labels, main_columns(metrics), pairs)],
        "species": blocks(scores, labels, species_columns(metrics)),
        "caption": caption(metrics),
        "written": written,
    }
