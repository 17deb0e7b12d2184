"""The paper's tables beside ours: every cell, in three forms, and what is said where there is no number."""

import csv
import re
from pathlib import Path

import pytest

from vltaxon.metrics import heads
from vltaxon.metrics.heads import OPEN
from vltaxon.papers import Cell, cells, files, papers
from vltaxon.report.estimates import Estimate, Scores
from vltaxon.report.paper import ABSENT, FIELDS, Compared, caption, column, compare, tabulate
from vltaxon.tasks.scoring import PaperTableTask, Setting

SCORES = Path("results/metrics/scores.parquet")
METRICS = heads.read(heads.files())
ROLES, TABLES = papers()["vl_taxon"].roles, papers()["vl_taxon"].tables
DEMO = Setting(
    paper="vl_taxon",
    datasets={"animal": "demo_animals", "plant": "demo_plants", "bird": "demo_birds"},
    comparable=dict.fromkeys(ROLES, False),
    choices="similar",
    systems={
        "base": "tiny, asked by direct",
        "vl_taxon": "tiny, trained by x, asked by y",
        "base_open": "tiny, asked by z",
    },
)
OURS = DEMO.model_copy(update={"datasets": ROLES, "comparable": dict.fromkeys(ROLES, True)})


def made(
    table: str, setting: Setting = DEMO, scores: Path | None = SCORES
) -> tuple[list[dict[str, str]], str, str]:
    paths = [Path(f"results/tables/{table}.{suffix}") for suffix in ("csv", "md", "tex")]
    forms = dict(zip(("csv", "md", "tex"), paths, strict=True))
    task = PaperTableTask(
        scope=f"vl_taxon.{table}",
        metrics=heads.files(),
        table=table,
        setting=setting,
        paper=files("vl_taxon"),
        scores=scores,
        **forms,
    )
    tabulate(task)
    lines = list(csv.DictReader(paths[0].open(encoding="utf-8")))
    return lines, paths[1].read_text("utf-8"), paths[2].read_text("utf-8")


@pytest.mark.parametrize("table", TABLES)
def test_each_table_has_the_rows_and_columns_of_the_paper(table: str) -> None:
    lines, md, tex = made(table)
    wanted = cells("vl_taxon", table)
    assert [(line["row"], line["metric"]) for line in lines] == [(cell.row, cell.metric) for cell in wanted]
    assert list(lines[0]) == list(FIELDS)
    for line, cell in zip(lines, wanted, strict=True):
        assert line["published"] == ("" if cell.value is None else f"{cell.value:.2f}")
        assert line["dataset"] == DEMO.datasets[cell.dataset] and line["comparable"] == "false"
        assert (line["note"] == ABSENT) == (cell.system not in DEMO.systems)
        assert (line["ours"] == "") == bool(line["note"])
    grid = [line for line in md.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in grid} == {3 + len({(c.dataset, c.metric) for c in wanted})}
    assert len(grid) == 2 + sum(
        1 + (system in DEMO.systems) for system in {c.row: c.system for c in wanted}.values()
    )
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 1
    body = tex[tex.index(r"\begin{table*}") :]
    assert (
        "✓" not in body
        and "✗" not in body
        and not re.search(r"(?<!\\)_(?!\w*[-}])", body.replace(r"\label", ""))
    )


def test_ours_is_the_score_with_its_interval() -> None:
    lines, md, _ = made("table5")
    found = Scores.read(SCORES).found["demo_plants", "similar", "vl_taxon", "leaf", None, "all"]
    line = next(
        x for x in lines if (x["system"], x["dataset"], x["metric"]) == ("vl_taxon", "demo_plants", "leaf")
    )
    assert [float(line[k]) for k in ("ours", "low", "high")] == pytest.approx(
        [100 * e for e in found[:3]], abs=1e-3
    )
    assert line["n"] == "64"
    assert f"{100 * found.value:.2f} [{100 * found.low:.2f}, {100 * found.high:.2f}] (✗)" in md
    assert "plant: demo_plants, n = 64 images" in md


def test_stage_1_is_read_where_it_is_scored() -> None:
    lines, md, _ = made("table6")
    tokens = {
        line["metric"]: line
        for line in lines
        if line["system"] == "vl_taxon" and line["dataset"] == "demo_birds"
    }
    assert float(tokens["stage1_tokens"]["ours"]) == 40 and float(tokens["completion_tokens"]["ours"]) == 62
    assert tokens["completion_tokens"]["within_one_point"] == tokens["stage1_tokens"]["published"] == ""
    assert "62.00 [62.00, 62.00] -31.57" in md and "Which stage's tokens the paper counts is not said" in md
    open_set = {line["metric"]: line for line in made("table7")[0] if line["system"] == "base_open"}
    wanted = Scores.read(SCORES).found["demo_animals", OPEN, "base_open", "open_leaf", None, "all"].value
    assert float(open_set["open_leaf"]["ours"]) == pytest.approx(100 * wanted, abs=1e-3)


def test_an_experiment_without_the_systems_shows_what_was_published() -> None:
    lines, md, _ = made("table2", scores=None)
    assert {line["note"] for line in lines} == {ABSENT}
    assert re.search(r"\| Leaf Condition +\| published; not in this experiment +\| +99.52 \|", md)
    assert "- Ours: none." in md and "oracle" in md


CELL = Cell("table5", "VL-Taxon", "vl_taxon", "plant", "leaf", 74.36, "source")


@pytest.mark.parametrize(
    ("cell", "ours", "within"),
    [
        (CELL, 0.7536, True),  # exactly one point, whatever floats make of it
        (CELL, 0.7336, True),
        (CELL, 0.75361, False),
        (CELL._replace(value=None), 0.7436, None),
        (CELL, None, None),
        (CELL._replace(metric="completion_tokens", value=93.0), 93.0, None),
    ],
)
def test_within_one_point(cell: Cell, ours: float | None, within: bool | None) -> None:
    shown = column("vl_taxon", cell.metric, METRICS)
    assert Compared(cell, shown, None if ours is None else Estimate(ours, 0, 1, 9)).within is within


def test_signs_and_words() -> None:
    """A sign stands bare where the data set is the paper's, in parentheses elsewhere; no leaf right is
    said in words.
    """
    key = ("inat21_plants", "similar", "vl_taxon")
    found = Scores({(*key, "leaf", None, "all"): Estimate(0.75, 0.7, 0.8, 90)})
    shown = compare("table5", found, OURS, METRICS)
    leaf, given = (
        next(c for c in shown if c.cell[2:5] == ("vl_taxon", "plant", m)) for m in ("leaf", "hca_given_leaf")
    )
    assert leaf.within and given.note == "no leaf right"
    assert next(c for c in shown if c.cell.system == "base").note  # in the experiment, and without a score
    lines = caption("table5", shown, found, OURS)
    assert "Data sets: animal: inat21_animals; plant: inat21_plants, n = 90 images" in lines[0]
    assert (
        lines[0].endswith("The data sets are the paper's.")
        and "VL-Taxon: tiny, trained by x, asked by y" in lines[1]
    )
    assert any("No leaf right: there is no image" in line for line in lines)


def test_the_caption_says_what_cannot_be_compared_and_where_the_numbers_are_from() -> None:
    _, md, tex = made("table3")
    words = "Not the paper's data sets (demo_animals for inat21_animals, demo_plants for inat21_plants, demo_birds for cub200)"
    assert words in md and words.replace("_", r"\_") in tex
    assert "Published: arXiv 2601.14610, Table 3, quoting arXiv 2505.24840 (LLaVA-OV-7B;" in md
    assert "reading note (not checked against the paper) (BioCLIP 2, zero-shot)." in md
    assert "95 % intervals: percentile bootstrap over images" in md
