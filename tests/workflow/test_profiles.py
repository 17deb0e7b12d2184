"""What may not change which jobs run again: the profile, what a job is given, and what it took."""

import os
import re

import pytest
import yaml

from tests.workflow.conftest import ROOT, Run


def test_the_profile_of_slurm_repeats_the_default_s_keys() -> None:
    """For `--workflow-profile profiles/slurm`, in whose place Snakemake does not read the default."""
    default, slurm = (
        yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
        for name in ("default", "slurm")
    )
    assert {key: slurm.get(key) for key in default} == default


@pytest.mark.parametrize("how", ["--profile", "--workflow-profile"])
def test_a_change_of_profile_plans_nothing(finished: Run, how: str) -> None:
    script = finished.folder / "workflow/scripts/train.py"
    text = script.read_bytes()
    try:
        script.write_bytes(text + b"# a remark, which Snakemake's own triggers would take for a change\n")
        assert finished.planned(how, "profiles/slurm") == {}
    finally:
        script.write_bytes(text)


def test_what_is_asked_of_slurm_names_rules_that_there_are(finished: Run) -> None:
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    rules = set(finished.snakemake("--list-rules")[1].split())
    assert {*profile["set-resources"], *profile["groups"]} <= rules
    assert set(profile["group-components"]) <= set(profile["groups"].values())


def test_memory_and_the_figures_of_what_jobs_took_plan_nothing(finished: Run) -> None:
    figures = sorted((finished.folder / "results/benchmarks").rglob("*.jsonl"))
    assert len(figures) >= sum(1 for _ in (finished.folder / "results/predictions").rglob("*.parquet"))
    model = finished.folder / "config/models/tiny_vlm.yaml"
    text = model.read_text()
    try:
        model.write_text(text.replace("memory: 2", "memory: 3"))
        for path in figures:
            os.utime(path, (0, 0))
        (finished.folder / "results/benchmarks/report.jsonl").unlink(missing_ok=True)
        assert finished.planned() == {}
    finally:
        model.write_text(text)


def test_what_the_jobs_took_is_told_by_rule(finished: Run) -> None:
    status, said = finished.snakemake("--cores", "1", "usage")
    assert status == 0, said
    assert {"train", "predict_leaf", "answer_questions", "score"} <= set(
        re.findall(r"^\| (\w+) ", said, re.MULTILINE)
    )
    page = (finished.folder / "results/report/index.html").read_text()  # which says what had ended until then
    assert re.search(r'<th scope="row">train</th><td>2</td><td>[\d.]+ (s|min)</td>', page)
