"""The whole workflow, small: it is reproducible, it says what is wrong before any job, and its outputs
hang together.
"""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.workflow.conftest import ROOT, Run


def tables(folder: Path, *tops: str) -> dict[str, Path]:
    return {
        str(p.relative_to(folder)): p
        for top in tops
        for p in sorted((folder / "results" / top).rglob("*.parquet"))
    }


def test_same_seed_twice_gives_the_same_tables(finished: Run, tmp_path: Path) -> None:
    again = Run(tmp_path)
    status, said = again.snakemake("--cores", "2")
    assert status == 0, said
    tops = ("data", "questions", "splits", "predictions", "metrics")
    first, second = tables(finished.folder, *tops), tables(again.folder, *tops)
    assert first.keys() == second.keys() and any("leaf" in name for name in first)
    for name in first:
        one, two = pq.read_table(first[name]), pq.read_table(second[name])
        if "seconds" in one.column_names:
            one, two = one.drop(["seconds"]), two.drop(["seconds"])
            assert one.equals(two), name
            assert one.schema.metadata == two.schema.metadata, name
        elif "metrics" not in name:
            assert first[name].read_bytes() == second[name].read_bytes(), name
        else:
            assert one.equals(two), name
    weights = "results/adapters/tiny_vlm/vl_taxon/2-grpo/adapter_model.safetensors"
    assert (finished.folder / weights).read_bytes() == (again.folder / weights).read_bytes()


def test_parts_are_disjoint_and_only_training_images_were_learned_from(finished: Run) -> None:
    results = finished.folder / "results"
    parts = pq.read_table(results / "splits/demo_plants.parquet").to_pydict()
    assert len(set(parts["leaf"])) == len(parts["leaf"]) == 72
    assert {part: parts["part"].count(part) for part in set(parts["part"])} == {
        "held_out": 68,
        "sft": 2,
        "grpo": 2,
    }
    sha = {
        row["sha256"]: row["split"]
        for row in pq.read_table(results / "data/demo_plants/images.parquet").to_pylist()
    }
    assert set(sha.values()) == {"train", "test"} and len(sha) == 72 * 3
    records = [
        json.loads(p.read_text()) for p in sorted(results.glob("adapters/tiny_vlm/vl_taxon/*/record.json"))
    ]
    assert len(records) == 2


def test_the_database_answers_sql(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.folder)
    with duckdb.connect("results/benchmark.duckdb", read_only=True) as database:
        rows = database.sql(
            "SELECT system, count(*) FROM scores WHERE metric = 'hca' AND subset = 'all' GROUP BY ALL"
        ).fetchall()
    assert dict(rows) == {"base": 2, "vl_taxon": 2, "lookup": 2, "chance": 2}


def test_snakemake_s_own_report_has_captions(finished: Run) -> None:
    status, said = finished.snakemake("--report", "report.html")
    assert status == 0, said
    assert "whole lineage right" in (finished.folder / "report.html").read_text()


def test_deleted_predictions_come_back_from_the_journal_without_a_model(finished: Run) -> None:
    results = finished.folder / "results"
    files = sorted(results.glob("predictions/*/*/*/*.parquet"))
    before = {path: path.read_bytes() for path in files}
    assert len(files) == 10
    for path in files:
        path.unlink()
    (weights := finished.folder / "src/vltaxon/inference/transformers_engine.py").rename(
        finished.folder / "aside.py"
    )
    try:
        status, said = finished.snakemake(
            "--cores", "2", *(str(path.relative_to(finished.folder)) for path in files)
        )
    finally:
        (finished.folder / "aside.py").rename(weights)
    assert status == 0, said
    assert {path: path.read_bytes() for path in files} == before, "the recorded seconds, too"
    status, said = finished.snakemake("--cores", "1", "prune_journal", "journal")
    assert status == 0 and "identities: 0 deleted, 3 kept" in said, said
    table = [line.split("|") for line in said.splitlines() if "vltaxon/demo/base" in line]
    assert len(table) == 3 and sum("results/adapters" in row[1] for row in table) == 2, said


def test_another_number_of_shards_is_written_from_the_journal_without_a_model(
    finished: Run, tmp_path: Path
) -> None:
    run = finished.copy(tmp_path / "run")
    config = run.folder / "config/config.yaml"
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"shards": 3}))
    (run.folder / "src/vltaxon/inference/transformers_engine.py").unlink()
    folder = "results/predictions/vl_taxon/demo_birds/random"
    status, said = run.snakemake("--cores", "2", *(f"{folder}/{shard}.parquet" for shard in range(3)))
    assert status == 0 and run.planned()["answer_questions"] > 0, said
    (leaves,) = (
        path.relative_to(finished.folder)
        for path in finished.folder.glob("results/predictions/*/demo_birds/leaf")
    )
    for name in (folder, leaves):
        whole = pq.read_table(finished.folder / name / "0.parquet")
        parts = [pq.read_table(run.folder / name / f"{shard}.parquet") for shard in range(3)]
        assert (
            pa.concat_tables(parts).to_pylist() == whole.to_pylist()
            and min(map(len, parts)) > len(whole) // 4
        )
    parsing, before = run.folder / "src/vltaxon/parsing.py", run.planned()
    parsing.write_text(parsing.read_text() + "\n\nUNUSED = 1\n")
    asked = [{rule: jobs[rule] for rule in jobs if rule in ("predict_leaf", "list_leaves", "answer_questions")}
             for jobs in (before, run.planned())]  # fmt: skip
    assert asked[0] == asked[1], "code on a GPU counts by its version, between its stages, too"


def test_a_repeat_is_asked_anew_but_for_its_first_run_and_nothing_flips_on_one_cpu(finished: Run) -> None:
    """The systems of the sweep and the first run ask what base has asked; the journal has it."""
    status, said = finished.snakemake("--cores", "2", "repeats", "sweep")
    assert status == 0, said
    with (finished.folder / "results/tables/repeats.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["dataset"], line["choices"], line["flips"]) for line in lines] == [
        ("demo_plants", "random", "0"),
        ("demo_birds", "random", "0"),
    ]
    logs = finished.folder / "results/logs/answer_questions"
    served = {name: "requests are answered there" in (logs / name / "demo_birds/random/0.log").read_text()
              for name in ("again.n0", "again.n1", "asked.v0.r0", "asked.v1.r0")}  # fmt: skip
    assert served == {"again.n0": True, "again.n1": False, "asked.v0.r0": True, "asked.v1.r0": False}


def test_the_readme_targets_exist(finished: Run) -> None:
    for target in ("demo_base", "demo_siglip", "export", "journal", "prune_journal"):
        assert finished.snakemake("--dry-run", target)[0] == 0


WRONG = [
    (
        "config.yaml",
        "systems",
        {"base": {"model": "tiny_vml", "protocol": "direct"}},
        'Did you mean "tiny_vlm"?',
    ),
    ("config.yaml", "bootstraps", 10, 'Did you mean "bootstrap"?'),
    ("datasets/demo_plants.yaml", "scored_levels", [8], "out of range"),
    ("models/tiny_siglip.yaml", "template", "a photo", 'must hold "{}" once'),
]


def test_a_wrong_config_stops_before_any_job_with_all_its_errors(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for file, key, value, _ in WRONG:
        path = run.folder / "config" / file
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {key: value}))
    started = time.monotonic()
    status, said = run.snakemake("--cores", "2")
    assert (
        time.monotonic() - started < 20
    )  # 5 s on a free machine; this only catches torch being imported on the way
    assert status != 0
    for *_, sentence in WRONG:
        assert sentence in said
    assert "Traceback" not in said
    assert not (run.folder / "results").exists()


def test_parsing_the_snakefile_imports_nothing_heavy() -> None:
    """Every job on a cluster parses it anew."""
    heavy = ("torch", "transformers", "pyarrow", "duckdb", "pandas", "matplotlib", "PIL", "scipy")
    code = (
        "import sys; from snakemake import api; from snakemake.settings import types\n"
        "from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry\n"
        "ExecutorPluginRegistry()  # Slurm's plugin imports pandas, wherever it is installed\n"
        "before = set(sys.modules)\n"
        "with api.SnakemakeApi() as snakemake:\n"
        "    snakemake.workflow(types.ResourceSettings(cores=1)).list_rules()\n"
        f"    print([module for module in {heavy} if module in sys.modules and module not in before])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert "answer_questions" in done.stdout + done.stderr and lines[-1] == "[]"


def test_all_of_the_papers_tables_are_made_on_request(finished: Run) -> None:
    """Of the systems that the small run has: those lines are filled, and the others say that they are not
    in this experiment.
    """
    status, said = finished.snakemake(
        "--cores", "2", "table3", "table7", "figure4", "sweep", "results/merged/tiny_vlm/vl_taxon"
    )
    assert status == 0, said
    tables = finished.folder / "results" / "tables"
    third = (tables / "vl_taxon.table3.md").read_text()
    assert "not in this experiment" in third and "63.04" in third and "VL-Taxon" in third
    assert (finished.folder / "results/figures/vl_taxon.figure4.png").stat().st_size > 10_000
    with (tables / "vl_taxon.table3.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    ours = {cell["system"] for cell in cells if cell["ours"]}
    assert ours == {"base", "vl_taxon"} and all(cell["ours"] for cell in cells if cell["system"] in ours)
    with (tables / "sweep.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) > 0
    assert (finished.folder / "results/merged/tiny_vlm/vl_taxon/model.safetensors").exists()
