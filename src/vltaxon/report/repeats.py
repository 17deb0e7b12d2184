"""Repeats: how many answers change when a system is asked the very same again.

Where decoding is greedy, sums of a batch depend on what else is in it; where two tokens are nearly equally likely, that decides.
What is drawn is drawn anew in each run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vltaxon import schemas
from vltaxon.metrics.uncertainty import wilson
from vltaxon.provenance import read_parquet
from vltaxon.report.estimates import OPEN
from vltaxon.report.tables import as_csv, as_markdown, write
from vltaxon.taxonomy import normalise

FIELDS = ("repeats", "dataset", "choices", "times", "flip_rate", "low", "high", "flips", "n")


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


def _answers(shards: Sequence[str]) -> tuple[pa.Table, pa.ChunkedArray]:
    """Which questions a run answered, and how each was read: outcome, option, and the name by its key."""
    columns = ["image_id", "level", "outcome", "answer_index", "answer"]
    table = pa.concat_tables([read_parquet(path, schemas.PREDICTIONS, columns) for path in shards]).combine_chunks()
    coded = table["answer"].combine_chunks().dictionary_encode()
    keys = pa.array([normalise(name) for name in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)
    parts = [table["outcome"], pc.cast(table["answer_index"], pa.string()), keys]
    read = pc.binary_join_element_wise(*parts, "|", null_handling="replace", null_replacement="")
    return table.select(["image_id", "level"]), read


def flips(name: str, dataset: str, choices: str, runs: Sequence[Sequence[str]]) -> Flips:
    """Compare the runs of a system, question by question.

    Raises:
        ValueError: the runs were not asked the same; then their tables are of different questions, a defect of the workflow.
    """
    asked, first = _answers(runs[0])
    differ = np.zeros(len(asked), bool)
    for shards in runs[1:]:
        also, answers = _answers(shards)
        if not also.equals(asked):
            raise ValueError(f"{name}, {dataset}, {choices}: the runs answer different questions")
        differ |= pc.not_equal(first, answers).to_numpy()
    count, n = int(differ.sum()), len(differ)
    low, high = wilson(np.array(count / n), np.array(float(n))) if n else (0.0, 1.0)
    return Flips(name, dataset, OPEN if choices == "leaf" else choices, len(runs), count, n, float(low), float(high))


def tabulate_repeats(repeats: Mapping[str, Mapping[str, Any]], csv: Path, md: Path) -> None:
    """Write the table of the repeats.

    Args:
        repeats: by name, the `label` of its system and the tables of its runs (`answers`, by data set and choices).
        csv: a line per repeated system, data set and choices, in percent.
        md: the same for readers.
    """
    found = []
    for name, repeated in repeats.items():
        for key, runs in repeated["answers"].items():
            dataset, choices = key.split("/")
            found.append(flips(name, dataset, choices, runs))
    rate = {flip: 100 * flip.flips / max(flip.n, 1) for flip in found}
    lines = [
        flip._asdict() | {"flip_rate": round(rate[flip], 4), "low": round(100 * flip.low, 4), "high": round(100 * flip.high, 4)}
        for flip in found
    ]
    write(csv, as_csv(lines, FIELDS))
    markdown = ["# Repeats"]
    for name, repeated in repeats.items():
        mine = [flip for flip in found if flip.repeats == name]
        rows = [
            [f.dataset, f.choices, f"{rate[f]:.2f} [{100 * f.low:.2f}, {100 * f.high:.2f}]", str(f.flips), str(f.n)] for f in mine
        ]
        title = f"## {name}: {repeated['label']}, {mine[0].times} runs"
        markdown += [title, as_markdown(rows, ["Data set", "Choices", "Flip rate", "Flips", "Questions"], left=2)]
    markdown += ["# How to read this", "\n".join(f"- {line}" for line in caption())]
    write(md, "\n\n".join(markdown) + "\n")


def caption() -> list[str]:
    """What the numbers mean, a line each."""
    return [
        "Flip rate: percent of the questions that are not read alike in all runs (outcome, option or name), with Wilson's 95 %"
        " interval, for which questions are independent of each other. Open set: the leaf that stage 1 names.",
        "The runs differ in nothing but time. The first is that of the system itself.",
    ]
