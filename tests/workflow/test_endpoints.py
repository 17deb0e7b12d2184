"""Systems behind an endpoint, in the workflow: errors end a run, addresses repeat nothing, servers end
with their jobs.
"""

import os
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.data import endpoint as fake
from tests.unit.inference.test_managed import PROGRAM, running
from tests.workflow.conftest import Run

KEY = "sk-very-secret-0123456789"
PREDICTING = {"merge_adapter", "predict_leaf", "answer_questions"}
TABLES = [f"results/predictions/mine/{data}/random/0.parquet" for data in ("demo_plants", "demo_birds")]


@pytest.fixture
def copy(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the finished run, to which systems are added; the key is in the environment."""
    monkeypatch.setenv("TEST_KEY", KEY)
    return finished.copy(tmp_path / "run")


def add(run: Run, system: dict[str, Any], **model: Any) -> None:
    """Add the system `mine` and its model."""
    (run.folder / "config/models/mine.yaml").write_text(
        yaml.safe_dump({"engine": "server", "licence": "MIT", "pixels": 3136} | model)
    )
    path = run.folder / "config/config.yaml"
    given = yaml.safe_load(path.read_text())
    given["systems"]["mine"] = {"model": "mine"} | system
    path.write_text(yaml.safe_dump(given))


def edit(run: Run, **changes: Any) -> None:
    path = run.folder / "config/models/mine.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def predictions(run: Run) -> list[dict[str, Any]]:
    files = sorted((run.folder / "results/predictions/mine").rglob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_errors_end_the_run_and_only_what_shapes_answers_repeats_it(copy: Run) -> None:
    with fake.serving(
        fault=lambda text, before: fake.status(400, f"not with {KEY}".encode()) if "genus" in text else None
    ) as server:
        add(
            copy,
            {"protocol": "direct"},
            url=server.url,
            model="m-1",
            key="TEST_KEY",
            price={"input": 1, "output": 4},
        )
        status, said = copy.snakemake("--cores", "2", "--keep-going", *TABLES)
        assert status != 0 and not predictions(copy)
        log = (copy.folder / "results/logs/answer_questions/mine/demo_plants/random/0.log").read_text()
        assert (
            "requests ended as errors, so no table is written" in log
            and "not with ***" in log
            and "Traceback" not in log
        )
        assert list((copy.folder / "results/.state/errors/answer_questions/mine").rglob("*.jsonl"))
        holders = [
            path for path in copy.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
        ]
        assert not holders and KEY not in said

        server.fault = lambda text, before: None
        status, said = copy.snakemake("--cores", "2", *TABLES)
        assert status == 0, said
        assert {row["outcome"] for row in predictions(copy)} == {"answered"}
        assert not list((copy.folder / "results/.state/errors").rglob("*.jsonl"))
    assert not PREDICTING & copy.planned().keys()
    edit(
        copy,
        url="https://other.example.org/v1",
        concurrency=3,
        price={"input": 2, "output": 3},
        key="OTHER",
        max_errors=0.5,
    )
    assert not PREDICTING & copy.planned().keys()
    edit(copy, temperature=0.7)
    assert copy.planned()["answer_questions"] == 2


def test_without_the_key_a_run_is_planned_and_its_jobs_say_what_is_missing(
    copy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_KEY")
    add(copy, {"protocol": "direct"}, url="http://127.0.0.1:1/v1", model="m-1", key="TEST_KEY")
    assert copy.planned()["answer_questions"] == 2
    assert copy.snakemake("--cores", "2", "--keep-going", *TABLES)[0] != 0
    log = (copy.folder / "results/logs/answer_questions/mine/demo_plants/random/0.log").read_text()
    said = (
        "error: http://127.0.0.1:1/v1: its key belongs in the environment variable TEST_KEY, which is not set"
    )
    assert log.splitlines()[-1] == said and "Traceback" not in log


def test_a_trained_system_is_served_merged_and_the_server_ends_with_its_job(copy: Run) -> None:
    program = copy.folder / "venv/bin/vllm"
    program.parent.mkdir(parents=True)
    program.write_text(
        PROGRAM.format(python=sys.executable).replace(
            '{"content": devices}', '{"content": "<answer>A</answer>"}'
        )
    )
    program.chmod(0o755)
    add(
        copy,
        {"protocol": "two_stage", "recipe": "vl_taxon"},
        managed={"model": "tiny_vlm", "environment": "venv"},
    )
    planned = copy.planned()
    assert (planned["merge_adapter"], planned["predict_leaf"], planned["answer_questions"]) == (
        1,
        2,
        2,
    ) and "train" not in planned
    status, said = copy.snakemake("--cores", "2", *TABLES)
    assert status == 0, said
    log = copy.folder / "results/logs/predict_leaf/mine/demo_plants/0.vllm.log"
    assert "results/merged/tiny_vlm/vl_taxon" in log.read_text() and not running(os.fspath(program))
    assert {row["answer"] for row in predictions(copy) if row["stage"] == "leaf"} == {"A"}
    assert not PREDICTING & copy.planned().keys()
