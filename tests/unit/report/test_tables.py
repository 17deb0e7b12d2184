"""The main table in its three forms."""

import csv
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.data.builder import LABELS
from vltaxon.report.estimates import Estimate
from vltaxon.report.tables import Column, tabulate, written

SCORES = Path("results/metrics/scores.parquet")


@pytest.fixture
def table() -> tuple[list[dict[str, str]], str, str]:
    paths = [Path(f"results/tables/main.{suffix}") for suffix in ("csv", "md", "tex")]
    tabulate(SCORES, LABELS | {"base": "Base | 100 % & _x_"}, *paths)
    return (
        list(csv.DictReader(paths[0].open(encoding="utf-8"))),
        paths[1].read_text("utf-8"),
        paths[2].read_text("utf-8"),
    )


def test_csv_holds_the_scores_in_percent(table: tuple[list[dict[str, str]], str, str]) -> None:
    rows = {(row["dataset"], row["choices"], row["system"]): row for row in table[0]}
    scores = pq.read_table(SCORES).to_pylist()
    checked = 0
    for score in scores:
        if score["metric"] in ("hca", "tor", "completion_tokens") and score["subset"] == "all" and score["choices"] != "open_set":
            row, scale = (
                rows[score["dataset"], score["choices"], score["system"]],
                1 if "tokens" in score["metric"] else 100,
            )
            for suffix, key in (("", "value"), ("_low", "low"), ("_high", "high")):
                assert float(row[score["metric"] + suffix]) == pytest.approx(scale * score[key], abs=1e-3)
            checked += 1
    assert checked > 60
    seen = {
        s["system"]: s
        for s in scores
        if (s["dataset"], s["choices"], s["metric"], s["subset"]) == ("demo_plants", "similar", "hca", "seen")
    }
    assert float(rows["demo_plants", "similar", "base"]["hca_seen"]) == pytest.approx(100 * seen["base"]["value"], abs=1e-3)
    assert rows["demo_birds", "similar", "base"]["hca_seen"] == ""


def test_systems_stand_in_the_order_of_the_config_and_open_ones_beside_the_others(
    table: tuple[list[dict[str, str]], str, str],
) -> None:
    here = [row for row in table[0] if (row["dataset"], row["choices"]) == ("demo_plants", "random")]
    assert [row["system"] for row in here] == list(LABELS)
    alone = here[1]
    assert alone["system"] == "base_open" and alone["hca"] == "" and float(alone["open_leaf"]) > 0
    assert here[3]["open_leaf"] == here[4]["open_leaf"]  # lookup uses the stage 1 of the other


def test_markdown_has_a_well_formed_table_per_block(table: tuple[list[dict[str, str]], str, str]) -> None:
    text = table[1]
    assert next(line[3:] for line in text.splitlines() if line.startswith("## ")) == "demo_plants, similar choices, n = 64 images"
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in text.split("# Seen and")[0].splitlines() if line.startswith("|")}
    assert widths == {15}
    assert re.search(r"\| VL-Taxon +\| +\d+\.\d \[\d+\.\d, \d+\.\d\] \|", text)
    assert re.search(r"\| Base, open set +\|( +- \|){9} +\d", text)
    assert "- HCA(L): HCA among the images with the leaf right." in text


def test_latex_is_escaped(table: tuple[list[dict[str, str]], str, str]) -> None:
    assert r"100 \% \& \_x\_" in table[2]
    assert not re.search(r"(?<!\\)_(?!\w*[-}])", "".join(re.findall(r"\\caption.*", table[2])))
    assert table[2].count(r"\begin{tabular}") == table[2].count(r"\end{tabular}") == 8


@pytest.mark.parametrize(
    ("estimate", "column", "text"),
    [
        (Estimate(0.5714, 0.52, 0.623, 9), Column("HCA", "hca"), "57.1 [52.0, 62.3]"),
        (Estimate(0.5714, 0.52, 0.623, 9), Column("Answered", "outcome_answered", interval=False), "57.1"),
        (Estimate(92.94, 90, 95, 9), Column("Tokens", "completion_tokens", interval=False), "92.9"),
        (None, Column("HCA", "hca"), "-"),
    ],
)
def test_cells(estimate: Estimate | None, column: Column, text: str) -> None:
    assert written(estimate, column) == text
