"""The flip rate: which differences between runs count."""

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vltaxon import schemas
from vltaxon.provenance import write_parquet
from vltaxon.report.repeats import flips, tabulate
from vltaxon.tasks.scoring import RepeatedSystem, RepeatsTableTask


def run(path: Path, *answers: tuple[str, int | None, str | None]) -> list[Path]:
    """Two shards of a run."""
    rows: list[dict[str, Any]] = [
        dict.fromkeys(schemas.PREDICTIONS.names)
        | {
            "image_id": f"i{at // 2}",
            "level": at % 2,
            "outcome": outcome,
            "answer_index": index,
            "answer": answer,
        }
        | {"seconds": float(at), "completion": f"{path} says {answer}"}
        for at, (outcome, index, answer) in enumerate(answers)
    ]
    half, files = len(rows) // 2, [path.with_suffix(".0"), path.with_suffix(".1")]
    for file, part in zip(files, (rows[:half], rows[half:]), strict=True):
        write_parquet(pa.Table.from_pylist(part, schemas.PREDICTIONS), file, schemas.PREDICTIONS)
    return files


SAME = [
    ("answered", 0, "Rosa"),
    ("unparsed", None, None),
    ("answered", None, "Quercus robur"),
    ("answered", 1, "Poa"),
]


def test_what_is_read_alike_is_no_flip(tmp_path: Path) -> None:
    other = [
        ("answered", 0, "Rosa"),
        ("unparsed", None, None),
        ("answered", None, " QUERCUS  robur."),
        ("answered", 1, "Poa"),
    ]
    found = flips("r", "d", "leaf", [run(tmp_path / "a", *SAME), run(tmp_path / "b", *other)])
    assert (found.flips, found.n, found.low, found.choices) == (
        0,
        4,
        0.0,
        "open_set",
    ) and 0.4 < found.high < 0.6


@pytest.mark.parametrize(
    "changed",
    [("answered", 1, "Rosa"), ("truncated", None, None), ("answered", None, "Rosa"), ("answered", 0, "Poa")],
)
def test_another_option_outcome_or_name_is_a_flip(
    tmp_path: Path, changed: tuple[str, int | None, str | None]
) -> None:
    runs = [run(tmp_path / name, *SAME) for name in "ab"] + [run(tmp_path / "c", changed, *SAME[1:])]
    for order in (runs, runs[::-1]):
        assert flips("r", "d", "similar", order)[3:6] == (3, 1, 4)


def test_the_table(tmp_path: Path) -> None:
    runs = [run(tmp_path / "a", *SAME), run(tmp_path / "b", ("empty", None, None), *SAME[1:])]
    answers = {("d", "similar"): runs, ("d", "leaf"): [runs[0], runs[0]]}
    forms = {suffix: tmp_path / f"t.{suffix}" for suffix in ("csv", "md", "tex")}
    repeats = {"again": RepeatedSystem(label="Base", answers=answers)}
    tabulate(RepeatsTableTask(scope="repeats", metrics=(), repeats=repeats, answers=(), **forms))
    with (tmp_path / "t.csv").open() as file:
        lines = [
            (line["choices"], line["flip_rate"], line["flips"], line["n"]) for line in csv.DictReader(file)
        ]
    assert lines == [("similar", "25.0", "1", "4"), ("open_set", "0.0", "0", "4")]
    assert (
        "## again: Base, 2 runs" in (text := (tmp_path / "t.md").read_text())
        and "25.00 [4.56, 69.94]" in text
    )
    assert r"\label{tab:repeats-again}" in (tmp_path / "t.tex").read_text()


def test_runs_of_other_questions_are_a_defect(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different questions"):
        flips("r", "d", "similar", [run(tmp_path / "a", *SAME), run(tmp_path / "b", *SAME[:2])])
