"""What the jobs took so far, rule by rule."""

from vltaxon.report.sections import Content, Section
from vltaxon.report.usage import HEADINGS, NOTE, usage

SECTION = Section(42)


def context(content: Content) -> dict[str, object]:
    """Return the rows of the table; none where Snakemake kept no figures."""
    rows = [row.written() for row in usage(content.task.benchmarks)]
    return {"usage": rows, "headings": HEADINGS, "note": NOTE}
