"""The versions of the code and of packages that made the page."""

from vltaxon.provenance import facts, origin
from vltaxon.report.sections import Content, Section

SECTION = Section(43)


def context(content: Content) -> dict[str, object]:
    """Return the versions, with the commit that the scores are of."""
    return {"origin": origin() | {"scored by": facts(content.task.scores).get("commit", "unknown")}}
