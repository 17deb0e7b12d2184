"""The cells of the paper's tables (VL-Taxon, arXiv 2601.14610): what stands where, what was published, and where.

Light: also read while the Snakefile is parsed, so that a table asks for its own systems and data sets only. The numbers are data
(`paper.csv`): a line per cell, its data set by its role (animal, plant, bird), its system by the name that experiments give it.
"""

import csv
import functools
from pathlib import Path
from typing import NamedTuple

PAPER = Path(__file__).parent / "paper.csv"
ROLES = {"animal": "inat21_animals", "plant": "inat21_plants", "bird": "cub200"}  # the data set that the paper has in each role
FIGURES = {"figure2": "table1", "figure4": "table5"}  # a figure shows the systems and data sets of a table
TITLES = {
    "table1": "Pilot study: naming all levels before answering",
    "table2": "Whole lineages written without options, without and with the true leaf",
    "table3": "Models on similar choices",
    "table4": "VL-Taxon without its reasoning, and without its first stage",
    "table5": "How far a right leaf implies the lineage",
    "table6": "GRPO alone against SFT, then GRPO",
    "table7": "Open set: the lineage written in stage 1, without options",
}


class Cell(NamedTuple):
    """A cell of the paper's tables; `value` is None where nothing was published."""

    table: str
    row: str
    system: str
    dataset: str
    metric: str
    value: float | None
    source: str

    @property
    def stage1(self) -> bool:
        """Whether it is about stage 1, without options."""
        return self.metric.startswith(("open_", "stage1_"))

    @property
    def scored(self) -> str:
        """Name of its metric in the scores, where stage 1 is told by the choices."""
        return {"stage1_tokens": "completion_tokens"}.get(self.metric, self.metric)


@functools.cache
def cells() -> tuple[Cell, ...]:
    """Every cell, table by table, row by row."""
    with PAPER.open(encoding="utf-8", newline="") as file:
        _, *lines = csv.reader(file)
    return tuple(
        Cell(table, row, system, dataset, metric, float(value) if value else None, source)
        for table, row, system, dataset, metric, value, source in lines
    )


def of_table(table: str) -> list[Cell]:
    """The cells of a table."""
    return [cell for cell in cells() if cell.table == table]
