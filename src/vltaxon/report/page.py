"""The report: one HTML file with everything in it, put together of the sections in `pages`."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from vltaxon.metrics import heads
from vltaxon.provenance import write_text
from vltaxon.report.estimates import Scores
from vltaxon.report.sections import Content, Section
from vltaxon.tasks.scoring import ReportTask

_SITE = Path(__file__).parent / "site"


class Page(Protocol):
    """A module of `pages`."""

    SECTION: Section
    __name__: str

    def context(self, content: Content) -> dict[str, object]:
        """Return what its template shows."""
        ...


def write_report(task: ReportTask) -> None:
    """Write the report page. The relative paths of the database must hold where this is called."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(_SITE)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    labels = {name: system.label or name for name, system in task.systems.items()}
    content = Content(task, Scores.read(task.scores), heads.read(task.metrics), labels)
    shown: list[tuple[Section, str]] = []
    for page in pages(task.pages):
        template = environment.get_template(f"{page.__name__.rpartition('.')[2]}.html.j2")
        shown.append((page.SECTION, Markup(template.render(labels=labels, **page.context(content)))))
    whole = environment.get_template("index.html.j2").render(
        css=(_SITE / "style.css").read_text(encoding="utf-8"),
        script=(_SITE / "sort.js").read_text(encoding="utf-8"),
        header=[text for section, text in shown if section.order < 0],
        sections=_grouped([one for one in shown if one[0].order >= 0]),
    )
    write_text(task.page, whole)


def pages(modules: Sequence[str]) -> list[Page]:
    """Return the sections of the page in their order, by the names of their modules."""
    sections: list[Page] = [importlib.import_module(module) for module in modules]
    return sorted(sections, key=lambda page: page.SECTION.order)


def _grouped(shown: Sequence[tuple[Section, str]]) -> list[tuple[Section, list[str]]]:
    """Return the sections that have a link, each with the text of those without that follow it."""
    groups: list[tuple[Section, list[str]]] = []
    for section, text in shown:
        if section.link is not None or not groups:
            groups.append((section, []))
        groups[-1][1].append(text)
    return groups
