"""Targets of Snakemake on demand: papers, their tables and figures, comparisons, sweeps, repeats."""

from pathlib import Path

from vltaxon import layout
from vltaxon.papers import papers
from vltaxon.plan.scopes import Scopes


def tables(scope: str) -> list[Path]:
    """Return the three forms of the table of a scope: CSV, Markdown, LaTeX."""
    return [layout.fill(f"{layout.TABLE}.{suffix}", scope=scope) for suffix in ("csv", "md", "tex")]


class Targets:
    """The targets by name: `PAPER`, `PAPER.NAME` of its tables and figures, shorter where it has aliases."""

    def __init__(self, scopes: Scopes) -> None:
        """Name the targets; whether an experiment has everything for one, its scope says when it is used."""
        self._scopes = scopes
        self._parts = _parts()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all targets."""
        return (*self._parts, "comparisons", "sweep", "repeats")

    def files(self, target: str) -> list[Path]:
        """Return the tables and figures of a target.

        Raises:
            UserError: the config lacks what it is made of.
        """
        if target == "comparisons":
            return [file for name in self._scopes.comparisons() for file in tables(name)]
        files: list[Path] = []
        for part in self._parts.get(target, (target,)):
            paper, _, name = part.partition(".")
            figure = papers()[paper].figures.get(name) if paper in papers() else None
            if figure is None:
                files += tables(self._scopes[part].name)
            else:
                self._scopes[f"{paper}.{figure.table}"]  # raises where the config lacks something for it
                drawn = layout.PAPER_FIGURE.format(paper=paper, figure=name)
                files += [Path(f"{drawn}.{suffix}") for suffix in ("svg", "png")]
        return files


def _parts() -> dict[str, tuple[str, ...]]:
    """Return the tables and figures of each target of a paper, all as `PAPER.NAME`."""
    targets: dict[str, tuple[str, ...]] = {}
    for name, paper in papers().items():
        parts = tuple(f"{name}.{part}" for part in (*paper.tables, *paper.figures))
        targets |= {part: (part,) for part in parts} | {name: parts}
        if paper.aliases:
            targets |= {part.partition(".")[2]: (part,) for part in parts} | {"paper": parts}
    return targets
