"""The figures of the main systems."""

from vltaxon.report.figures import FIGURES
from vltaxon.report.sections import Content, Section, uri

SECTION = Section(20, "Figures", "figures")


def context(content: Content) -> dict[str, object]:
    """Return title, caption and picture of each figure."""
    paths = [path for path in content.task.figures if path.stem != "training" or content.task.steps]
    return {
        "figures": [
            (FIGURES[path.stem].TITLE, FIGURES[path.stem].CAPTION, uri(path.read_bytes(), "image/svg+xml"))
            for path in paths
        ]
    }
