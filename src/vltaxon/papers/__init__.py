"""Papers whose tables and figures we make beside our own: a folder each, found by its name.

`paper.yaml` says what tables and figures there are and which data set the paper has in each role; `cells.csv`
has a line per cell of its tables: what was published, and where. Light: read while the Snakefile is parsed,
so that a table asks for its own systems and data sets only.
"""

import csv
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from vltaxon.errors import UserError, suggest

FOLDER = Path(__file__).parent


class Cell(NamedTuple):
    """A cell of a paper's table.

    `dataset` is a role, `system` the name that experiments give it, `metric` the name of a metric or of one
    of the paper's own columns. `value` is None where nothing was published.
    """

    table: str
    row: str
    system: str
    dataset: str
    metric: str
    value: float | None
    source: str


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Part):
    """A column of a paper's tables that has a name and a title of its own."""

    metric: str
    stage: Literal[1, 2] = 2
    title: str


class PaperTable(_Part):
    """A table of a paper, and a note for its readers."""

    label: str
    title: str
    note: str | None = None


class PaperFigure(_Part):
    """A figure of a paper, of the systems and data sets of a table, drawn by a module of `report.figures`."""

    label: str
    table: str
    drawing: str
    note: str


class Paper(_Part):
    """What a `paper.yaml` says.

    `roles` has the paper's own data set in each role; `aliases` gives its targets a second name, without that
    of the paper.
    """

    title: str
    source: str
    aliases: bool = False
    roles: dict[str, str]
    columns: dict[str, Column] = {}
    tables: dict[str, PaperTable]
    figures: dict[str, PaperFigure] = {}


@functools.cache
def papers(folder: Path = FOLDER) -> Mapping[str, Paper]:
    """Return the papers of a folder by name, in the order of their names.

    Raises:
        UserError: a `paper.yaml` says what it cannot, or a cell is of a table or a role that it does not
            name.
    """
    return {path.parent.name: _paper(path) for path in sorted(folder.glob("*/paper.yaml"))}


def files(paper: str, folder: Path = FOLDER) -> tuple[Path, Path]:
    """Return the two files of a paper, `paper.yaml` and `cells.csv`.

    Args:
        paper: its name.
        folder: where the papers lie.
    """
    return folder / paper / "paper.yaml", folder / paper / "cells.csv"


@functools.cache
def cells(paper: str, table: str, folder: Path = FOLDER) -> tuple[Cell, ...]:
    """Return the cells of a table, row by row.

    Args:
        paper: its name.
        table: one of its tables.
        folder: where the papers lie.
    """
    return tuple(cell for cell in _cells(files(paper, folder)[1]) if cell.table == table)


@functools.cache
def _cells(path: Path) -> tuple[Cell, ...]:
    """Return every cell of a paper, table by table."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
        if header != list(Cell._fields):
            raise UserError(f"{path}: its columns must be {', '.join(Cell._fields)}")
    return tuple(
        Cell(table, row, system, dataset, metric, float(value) if value else None, source)
        for table, row, system, dataset, metric, value, source in lines
    )


def _paper(path: Path) -> Paper:
    try:
        paper = Paper.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {error}") from error
    named: list[tuple[str, str, Iterable[str]]] = [
        (f"figures.{name}.table", figure.table, paper.tables) for name, figure in paper.figures.items()
    ]
    for cell in _cells(path.with_name("cells.csv")):
        named += [("table of cells.csv", cell.table, paper.tables)]
        named += [("dataset of cells.csv", cell.dataset, paper.roles)]
    if wrong := [
        f'{what}: "{name}" is not {suggest(name, known)}' for what, name, known in named if name not in known
    ]:
        raise UserError("\n".join(f"{path}: {line}" for line in dict.fromkeys(wrong)))
    return paper
