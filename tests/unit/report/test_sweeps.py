"""The table of the sweeps, against numbers that can be added up by hand."""

import csv
from pathlib import Path

import pyarrow as pa
import pytest

from vltaxon import schemas
from vltaxon.metrics import heads
from vltaxon.provenance import write_parquet
from vltaxon.report.estimates import Scores
from vltaxon.report.sweeps import parts, tabulate
from vltaxon.tasks.scoring import SweepTableTask, SweptSystem

SWEEPS = {"asked": SweptSystem(label="Base | x", variants=(0, 2), rotations=(0, 1, 3))}
COLUMNS = heads.columns(heads.read(heads.files()), "sweep")
HCA = {(0, 0): 0.1, (0, 1): 0.2, (0, 3): 0.3, (2, 0): 0.4, (2, 1): 0.5, (2, 3): 0.6}


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """HCA as above and leaf one tenth above it, on one data set; on another one member only."""
    rows = [
        {"dataset": "d", "choices": "similar", "system": f"asked.v{v}.r{r}", "metric": metric, "level": None, "subset": "all",
         "value": value + more, "low": value - 0.05, "high": value + 0.05, "n": 50}
        for (v, r), value in HCA.items() for metric, more in (("hca", 0.0), ("leaf", 0.1))
    ]  # fmt: skip
    rows.append(rows[0] | {"dataset": "e"})
    rows.append(rows[0] | {"system": "base", "value": 0.9})
    write_parquet(
        pa.Table.from_pylist(rows, schema=schemas.SCORES), tmp_path / "sweep.parquet", schemas.SCORES
    )
    return tmp_path / "sweep.parquet"


def test_means_over_both_and_over_each(scores: Path) -> None:
    hca = next(
        part
        for part in parts(Scores.read(scores), SWEEPS, COLUMNS)
        if (part.dataset, part.metric) == ("d", "hca")
    )
    assert hca.every.facts == {"value": 35, "sd": 17.0783, "min": 10, "max": 60}
    assert {v: summary.facts["value"] for v, summary in hca.variants.items()} == {0: 20, 2: 50}
    assert {r: summary.facts["value"] for r, summary in hca.rotations.items()} == {0: 25, 1: 35, 3: 45}
    assert hca.rotations[1].facts["sd"] == 15 and str(hca.variants[0]) == "20.0 ± 8.2 (10.0 to 30.0)"


def test_three_forms(scores: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"sweep.{suffix}" for suffix in ("csv", "md", "tex")]
    forms = dict(zip(("csv", "md", "tex"), paths, strict=True))
    tabulate(SweepTableTask(scope="sweep", metrics=heads.files(), sweeps=SWEEPS, scores=scores, **forms))
    lines = list(csv.DictReader(paths[0].open(encoding="utf-8")))
    mine = [line for line in lines if (line["dataset"], line["metric"]) == ("d", "hca")]
    assert [line["over"] for line in mine] == ["all"] + ["rotations"] * 2 + ["variants"] * 3 + ["none"] * 6
    last = mine[-1]
    assert [last[k] for k in ("variant", "rotation", "value", "low", "high", "n")] == [
        "2",
        "3",
        "60.0",
        "55.0",
        "65.0",
        "50",
    ]
    assert last["sd"] == "" and mine[0]["variant"] == ""
    assert [line["value"] for line in lines if line["dataset"] == "e"] == ["10.0"] * 4
    md = paths[1].read_text("utf-8")
    assert "## asked: Base | x, 2 wordings x 3 rotations of the options" in md
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in md.splitlines() if line.startswith("|")
    ]
    assert rows[2] == ["d", "similar", "all", "35.0 ± 17.1 (10.0 to 60.0)", "45.0 ± 17.1 (20.0 to 70.0)"]
    assert rows[3] == [
        "",
        "",
        "wording 0, all rotations",
        "20.0 ± 8.2 (10.0 to 30.0)",
        "30.0 ± 8.2 (20.0 to 40.0)",
    ]
    assert rows[8] == ["e", "similar", "all", "10.0 ± 0.0 (10.0 to 10.0)", "-"]
    assert r"\label{tab:sweep-asked}" in paths[2].read_text("utf-8")
