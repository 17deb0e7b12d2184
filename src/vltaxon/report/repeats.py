"""Repeats: how many answers change when a system is asked the very same again.

Where decoding is greedy, sums of a batch depend on what else is in it; where two tokens are nearly equally
likely, that decides. What is drawn is drawn anew in each run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from vltaxon import schemas
from vltaxon.metrics.heads import OPEN
from vltaxon.metrics.uncertainty import wilson
from vltaxon.provenance import read_parquet, write_text
from vltaxon.report.forms import as_csv, as_latex, as_markdown, comments, plain
from vltaxon.tasks.scoring import RepeatsTableTask
from vltaxon.taxonomy import normalise

FIELDS = ("repeats", "dataset", "choices", "times", "flip_rate", "low", "high", "flips", "n")
CAPTION = (
    "Flip rate: percent of the questions that are not read alike in all runs (outcome, option or name),"
    " with Wilson's 95 %"
    " interval, for which questions are independent of each other. Open set: the leaf that stage 1 names.",
    "The runs differ in nothing but time. The first is that of the system itself.",
)
_HEADER = ("Data set", "Choices", "Flip rate", "Flips", "Questions")


class Flips(NamedTuple):
    """Of `n` questions, those on which not all of the runs agree; bounds are shares."""

    repeats: str
    dataset: str
    choices: str
    times: int
    flips: int
    n: int
    low: float
    high: float

    @property
    def percent(self) -> tuple[float, float, float]:
        """Return the flip rate and its bounds in percent."""
        return 100 * self.flips / max(self.n, 1), 100 * self.low, 100 * self.high

    def line(self) -> dict[str, object]:
        """Return it as a line of the CSV."""
        numbers = zip(("flip_rate", "low", "high"), self.percent, strict=True)
        return self._asdict() | {name: round(number, 4) for name, number in numbers}

    def row(self) -> list[str]:
        """Return it as a row for readers."""
        rate, low, high = self.percent
        return [
            self.dataset,
            self.choices,
            f"{rate:.2f} [{low:.2f}, {high:.2f}]",
            str(self.flips),
            str(self.n),
        ]


def _answers(shards: Sequence[Path]) -> pl.DataFrame:
    """Return which questions a run answered, and how each was read: outcome, option, and the name's key."""
    columns = ["image_id", "level", "outcome", "answer_index", "answer"]
    frame = pl.concat([pl.DataFrame(read_parquet(path, schemas.PREDICTIONS, columns)) for path in shards])
    names = frame["answer"].drop_nulls().unique()
    keys = pl.DataFrame(
        {"answer": names, "key": [normalise(name) for name in names]}, {"answer": pl.String, "key": pl.String}
    )
    return frame.join(keys, on="answer", how="left", maintain_order="left").with_columns(
        pl.col("key").fill_null("")
    )


def flips(name: str, dataset: str, choices: str, runs: Sequence[Sequence[Path]]) -> Flips:
    """Compare the runs of a system, question by question.

    Args:
        name: of the repeated system.
        dataset: that it was asked about.
        choices: of the questions, `leaf` for stage 1.
        runs: the tables of each run.

    Raises:
        ValueError: the runs were not asked the same; then their tables are of different questions, a defect
            of the workflow.
    """
    first, asked, differ = _answers(runs[0]), ["image_id", "level"], pl.lit(False)
    for shards in runs[1:]:
        other = _answers(shards)
        if not other.select(asked).equals(first.select(asked)):
            raise ValueError(f"{name}, {dataset}, {choices}: the runs answer different questions")
        for column in ("outcome", "answer_index", "key"):
            differ |= first[column].ne_missing(other[column])
    count, n = first.select(differ.sum()).item(), len(first)
    low, high = wilson(np.array(count / n), np.array(float(n))) if n else (0.0, 1.0)
    return Flips(
        name, dataset, OPEN if choices == "leaf" else choices, len(runs), count, n, float(low), float(high)
    )


def tabulate(task: RepeatsTableTask) -> None:
    """Write the table of the repeats: a line per repeated system, data set and choices, in percent."""
    found = [
        flips(name, dataset, choices, runs)
        for name, repeated in task.repeats.items()
        for (dataset, choices), runs in repeated.answers.items()
    ]
    write_text(task.csv, as_csv([flip.line() for flip in found], FIELDS))
    markdown, latex = ["# Repeats"], ["% Needs booktabs and graphicx.", *comments(CAPTION)]
    for name, repeated in task.repeats.items():
        mine = [flip for flip in found if flip.repeats == name]
        title, rows = f"{name}: {repeated.label}, {mine[0].times} runs", [flip.row() for flip in mine]
        markdown += [f"## {plain(title)}", as_markdown(rows, _HEADER, left=2)]
        latex.append(as_latex(rows, _HEADER, title, f"repeats-{name}", left=2))
    markdown += ["# How to read this", "\n".join(f"- {line}" for line in CAPTION)]
    write_text(task.md, "\n\n".join(markdown) + "\n")
    write_text(task.tex, "\n".join(latex) + "\n")
