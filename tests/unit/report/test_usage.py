"""What jobs took, from files as Snakemake itself writes them."""

from pathlib import Path

import pytest
from snakemake.benchmark import BenchmarkRecord, write_benchmark_records

from vltaxon.report.usage import Usage, told, usage


def benchmark(
    path: Path, seconds: float, memory: float | None, cpu: float, extended: bool = True, **resources: object
) -> None:
    """A job's figures, through Snakemake's own writer; memory None is a job that ended before it was
    looked at.
    """
    record = BenchmarkRecord(running_time=seconds, max_rss=memory, cpu_time=cpu)
    record.data_collected = memory is not None
    record.wildcards, record.params, record.threads, record.input = (
        {"shard": "0"},
        {"values": {"gpu": 7}},
        2,
        [],
    )
    record.resources = {"settings": "config/models/a.yaml", "tmpdir": "/tmp"} | resources
    record.rule_name, record.jobid = "any", 3
    path.parent.mkdir(parents=True, exist_ok=True)
    write_benchmark_records([record], str(path), extended)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "results" / "benchmarks"
    benchmark(top / "train/tiny/vl_taxon/1-sft.jsonl", 7200, 2500.0, 10800, gpu=2)
    benchmark(top / "predict_leaf/base/a.b/0.jsonl", 100, 900.0, 90, gpu=1)
    benchmark(top / "predict_leaf/base/a.b/1.jsonl", 300, 1100.0, 390, gpu=1)
    benchmark(top / "predict_leaf/chance/a.b/0.jsonl", 0.2, None, 0, gpu=0)
    benchmark(top / "score.jsonl", 10, 400.0, 15)
    (top / "mining.json").write_text("not of a job")
    return top


def test_jobs_are_added_up_by_rule_the_longest_first(folder: Path) -> None:
    assert [(row.rule, row.jobs) for row in usage(folder)] == [
        ("train", 1),
        ("predict_leaf", 3),
        ("score", 1),
    ]
    train, leaf, score = usage(folder)
    assert train == Usage("train", 1, 7200, 7200, 7200, 2500, 1.5, 14400)
    assert (leaf.median, leaf.longest, leaf.total, leaf.memory, leaf.device) == (100, 300, 400.2, 1100, 400)
    assert leaf.cores == pytest.approx(480 / 400.2)
    assert score.device is None, "asked for none"


def test_units_are_those_of_readers(folder: Path) -> None:
    train, leaf, score = (row.written() for row in usage(folder))
    assert train == ("train", "1", "2.0 h", "2.0 h", "2.0 h", "2.5 GB", "1.5", "4.000")
    assert leaf == ("predict_leaf", "3", "100.0 s", "5.0 min", "6.7 min", "1.1 GB", "1.2", "0.111")
    assert score[5:] == ("0.4 GB", "1.5", "-")
    assert "| predict_leaf | 3 " in told(usage(folder))


def test_what_was_not_measured_is_said_to_be_unknown(tmp_path: Path) -> None:
    benchmark(tmp_path / "benchmarks/draw/a.jsonl", 0.3, None, 0, extended=False)
    assert usage(tmp_path / "benchmarks") == [Usage("draw", 1, 0.3, 0.3, 0.3, None, None, None)]
    assert usage(tmp_path / "benchmarks")[0].written()[5:] == ("-", "-", "-")


def test_no_figures_no_rows(tmp_path: Path) -> None:
    assert usage(tmp_path / "benchmarks") == []


def test_half_a_file_of_a_killed_run_is_passed_over(folder: Path) -> None:
    whole = usage(folder)
    file = folder / "predict_leaf/base/a.b/2.jsonl"
    file.write_bytes((folder / "score.jsonl").read_bytes()[:30])
    (folder / "predict_leaf/base/a.b/3.jsonl").touch()
    assert usage(folder) == whole
