"""The main table in its three forms."""

import csv
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.builder import LABELS
from vltaxon import schemas
from vltaxon.metrics import heads
from vltaxon.provenance import write_parquet
from vltaxon.report.estimates import Estimate
from vltaxon.report.tables import Block, main_columns, tabulate, written
from vltaxon.schemas import OUTCOMES
from vltaxon.tasks.scoring import MainTableTask

SCORES = Path("results/metrics/scores.parquet")
METRICS = heads.read(heads.files())
COLUMNS = {column.name: column for column in main_columns(METRICS)}


def main_table(scores: Path, labels: dict[str, str], folder: Path) -> list[Path]:
    """Write the main table; its three files."""
    paths = {suffix: folder / f"main.{suffix}" for suffix in ("csv", "md", "tex")}
    tabulate(MainTableTask(scope="main", metrics=heads.files(), scores=scores, labels=labels, **paths))
    return list(paths.values())


@pytest.fixture
def table() -> tuple[list[dict[str, str]], str, str]:
    paths = main_table(SCORES, LABELS | {"base": "Base | 100 % & _x_"}, Path("results/tables"))
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
        if (
            score["metric"] in ("hca", "tor", "completion_tokens")
            and score["subset"] == "all"
            and score["choices"] != "open_set"
        ):
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
    assert float(rows["demo_plants", "similar", "base"]["hca_seen"]) == pytest.approx(
        100 * seen["base"]["value"], abs=1e-3
    )
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
    assert (
        next(line[3:] for line in text.splitlines() if line.startswith("## "))
        == "demo_plants, similar choices, n = 64 images"
    )
    widths = {
        len(re.findall(r"(?<!\\)\|", line))
        for line in text.split("# Seen and")[0].splitlines()
        if line.startswith("|")
    }
    assert widths == {18}  # three of the eleven shares of failed answers are not 0 in every row
    assert re.search(r"\| +Unparsed +\|", text) and not re.search(
        r"\| +(Refused|Error|Stage 1 truncated|Parsers differ) +\|", text
    )
    assert re.search(r"\| VL-Taxon +\| +\d+\.\d \[\d+\.\d, \d+\.\d\] \|", text)
    assert re.search(r"\| Base, open set +\|( +- \|){12} +\d", text)
    assert "- HCA(L): HCA among the images with the leaf right." in text


def test_every_outcome_is_in_the_csv(table: tuple[list[dict[str, str]], str, str]) -> None:
    """Each share in a column of its own, 0 included; together they are all answers."""
    row = next(row for row in table[0] if row["system"] == "vl_taxon")
    for stage in ("", "stage1_"):
        assert sum(float(row[f"{stage}outcome_{kind}"]) for kind in OUTCOMES) == pytest.approx(100, abs=1e-3)
    assert row["parsers_differ"] == "0.0" and float(row["outcome_unparsed"]) > 0


CUT = Estimate(0.032, 0.02, 0.05, 99)
BLOCK = Block(
    "d",
    "similar",
    [COLUMNS[name] for name in ("hca", "outcome_truncated", "outcome_error", "stage1_outcome_truncated")],
    99,
    [
        ("base", [CUT, CUT, Estimate(0, 0, 0.1, 99), None]),
        ("other", [None, Estimate(0.01, 0, 0.1, 99), None, None]),
    ],
)


def test_a_table_warns_of_answers_cut_at_the_token_limit() -> None:
    """Above 1 %, by a mark at the label and a line below; the column of zeros goes."""
    labels, block = {"base": "Base", "other": "Other"}, BLOCK.spared()
    assert [column.title for column in block.columns] == ["HCA", "Truncated"]
    assert block.marked(labels) == {"base": "Base †", "other": "Other"}
    line = (
        "† Base: 3.2 % of the answers were cut at the token limit and count as wrong; raise max_new_tokens."
    )
    assert block.warnings(labels) == [line]
    both = Block("d", "similar", BLOCK.columns, 99, [("base", [CUT, CUT, None, CUT])])
    assert "3.2 % of the answers and 3.2 % of the stage 1 texts were cut" in both.warnings(labels)[0]


def test_the_warning_stands_in_every_form(tmp_path: Path) -> None:
    rows = pq.read_table(SCORES).to_pylist()
    for row in rows:
        if (row["system"], row["metric"], row["dataset"]) == ("siglip", "outcome_truncated", "demo_birds"):
            row["value"] = 0.5
    write_parquet(pa.Table.from_pylist(rows, schema=schemas.SCORES), tmp_path / "cut.parquet", schemas.SCORES)
    paths = main_table(tmp_path / "cut.parquet", LABELS, tmp_path)
    text, tex = paths[1].read_text("utf-8"), paths[2].read_text("utf-8")
    assert "| SigLIP-style encoder, zero-shot † |" in text
    assert "\n\n† SigLIP-style encoder, zero-shot: 50.0 % of the answers were cut at the token limit" in text
    assert (
        r"SigLIP-style encoder, zero-shot $\dagger$ &" in tex
        and r"$\dagger$ SigLIP-style encoder, zero-shot: 50.0 \% of" in tex
    )
    assert "†" not in paths[0].read_text("utf-8")


def test_latex_is_escaped(table: tuple[list[dict[str, str]], str, str]) -> None:
    assert r"100 \% \& \_x\_" in table[2]
    assert not re.search(r"(?<!\\)_(?!\w*[-}])", "".join(re.findall(r"\\caption.*", table[2])))
    assert table[2].count(r"\begin{tabular}") == table[2].count(r"\end{tabular}") == 8


@pytest.mark.parametrize(
    ("estimate", "column", "text"),
    [
        (Estimate(0.5714, 0.52, 0.623, 9), COLUMNS["hca"], "57.1 [52.0, 62.3]"),
        (Estimate(0.5714, 0.52, 0.623, 9), COLUMNS["outcome_answered"], "57.1"),
        (Estimate(92.94, 90, 95, 9), COLUMNS["completion_tokens"], "92.9"),
        (None, COLUMNS["hca"], "-"),
    ],
)
def test_cells(estimate: Estimate | None, column: heads.Column, text: str) -> None:
    assert written(estimate, column) == text


HOSTILE = {
    "base": "=cmd|'/C calc'!A0",
    "vl_taxon": "_Ours_ ($\\alpha$ <b>&lt; 100 %)\nnext [x](javascript:0) `a` #1 {y} ~ ^",
    "chance": "-1.5",
    "siglip": "[a]\\input{x}",
}


def test_labels_are_written_as_they_are_in_every_form(tmp_path: Path) -> None:
    """No formula, no markup, no command, no further line or cell; a number stays one."""
    csv_file, md_file, tex_file = main_table(SCORES, LABELS | HOSTILE, tmp_path)
    with csv_file.open(encoding="utf-8", newline="") as file:
        rows = {row["system"]: row for row in csv.DictReader(file)}
    assert rows["base"]["label"] == "'" + HOSTILE["base"]
    assert all(rows[name]["label"] == HOSTILE[name] for name in ("vl_taxon", "chance", "siglip"))
    md = md_file.read_text("utf-8")
    assert r"\_Ours\_ (\$\\alpha\$ \<b>\&lt; 100 %) next [x\](javascript:0) \`a\` #1 {y} \~ ^" in md
    assert r"=cmd\|'/C calc'!A0" in md
    table = [line for line in md.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table[:4]}) == 1
    tex = tex_file.read_text("utf-8")
    ours = r"\_Ours\_ (\$\textbackslash{}alpha\$ \ensuremath{<}b\ensuremath{>}\&lt; 100 \%) next [x]"
    assert ours in tex and r"\#1 \{y\} \textasciitilde{} \^{}" in tex
    assert re.search(r"^ *\{\}\[a\]\\textbackslash\{\}input\\\{x\\\}", tex, re.MULTILINE)
    assert not re.search(r"^ *\[", tex, re.MULTILINE), "the line break before would take it for a length"


def test_what_is_to_be_known_of_the_answers_of_a_system_stands_below_the_table(tmp_path: Path) -> None:
    """As the scores hand it on from the predictions: in the block that it is about, by every form but CSV."""
    words = "answered by more than one model under the same name: m-1, m-2"
    warnings = [
        ["demo_birds", "random", "siglip", words],
        ["demo_plants", "nowhere", "siglip", "of no table"],
    ]
    table = pq.read_table(SCORES).replace_schema_metadata(None)
    write_parquet(table, tmp_path / "cut.parquet", schemas.SCORES, warnings=warnings)
    paths = main_table(tmp_path / "cut.parquet", LABELS, tmp_path)
    text, tex = paths[1].read_text("utf-8"), paths[2].read_text("utf-8")
    assert text.count(f"\n† SigLIP-style encoder, zero-shot: {words}") == 1 and "of no table" not in text
    assert text.index("## demo_birds, random") < text.index(words)
    assert "answered by more than one model" in tex and words not in paths[0].read_text("utf-8")
