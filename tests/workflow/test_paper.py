"""The paper's experiment at full size, planned: how long that takes, and what one more system adds."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow.conftest import Run

TWELVE = (
    "base", "base_open", "default_sft", "hierarchical_sft", "vl_taxon", "vl_taxon_lookup", "vl_taxon_no_first_stage", "full_grpo",
    "tan_lora", "internvl3_8b", "siglip", "chance",
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def planned(run: Run, systems: Mapping[str, Any]) -> dict[str, int]:
    """Jobs per rule of the paper's config with these systems."""
    path = run.folder / "config" / "paper.yaml"
    config = yaml.safe_load(path.read_text())
    config |= {"systems": systems, "main": [], "comparisons": {}, "sweeps": {}, "shards": 8}
    (run.folder / "config" / "twelve.yaml").write_text(yaml.safe_dump(config))
    return run.planned("--configfile", "config/twelve.yaml")


def test_twelve_systems_and_three_data_sets_plan_in_time_and_a_thirteenth_adds_its_own_jobs(run: Run) -> None:
    every = yaml.safe_load((run.folder / "config" / "paper.yaml").read_text())["systems"]
    twelve = {name: every[name] for name in TWELVE}
    began = time.monotonic()
    before = planned(run, twelve)
    assert time.monotonic() - began < 15
    assert before["answer_questions"] == 11 * 3 * 8 and before["train"] == 7
    stage_2 = {"list_leaves": 3, "answer_questions": 3 * 8}
    more = {
        "vl_taxon_kl_0.04": {"train": 1, "name_training": 1, "predict_leaf": 3 * 8} | stage_2,
        "vl_taxon_no_reasoning": {"train": 2, "name_training": 1, "predict_leaf": 3 * 8} | stage_2,
        "vl_taxon_open": {},  # stage 1 of vl_taxon serves it
        "qwen2_5_vl_72b": {"answer_questions": 3 * 8},
        "bioclip2": {"embed": 3, "answer_questions": 3 * 8},
    }
    for name, jobs in more.items():
        after = planned(run, twelve | {name: every[name]})
        added = {
            rule: after[rule] - before.get(rule, 0) for rule in after if after[rule] != before.get(rule, 0)
        }
        assert added == jobs, name


@pytest.mark.parametrize(
    "target",
    [
        "table1",
        "vl_taxon.table7",
        "figure4",
        "vl_taxon.figure2",
        "paper",
        "vl_taxon",
        "sweep",
        "comparisons",
        "plan",
        "export",
    ],
)
def test_targets_of_the_papers_config_plan(run: Run, target: str) -> None:
    assert run.planned(target, "--configfile", "config/paper.yaml")


@pytest.mark.parametrize(
    ("key", "target", "said"),
    [
        ("tables", "table1", "need `tables` in the config"),
        ("sweeps", "sweep", "needs `sweeps` in the config"),
        ("comparisons", "comparisons", "needs `comparisons` in the config"),
    ],
)
def test_a_target_without_its_config_ends_in_one_clear_error(
    run: Run, key: str, target: str, said: str
) -> None:
    path = run.folder / "config" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({name: value for name, value in config.items() if name != key}))
    status, words = run.snakemake("--dry-run", target)
    assert status != 0 and said in words


def test_a_paper_is_a_folder(run: Run) -> None:
    """Its tables and figures are targets, of the systems and data sets that they need, and tables of another go on."""
    folder = run.folder / "src/vltaxon/papers/tara"
    folder.mkdir()
    (folder / "paper.yaml").write_text(
        "{title: TARA, source: arXiv 2603.00431, roles: {insect: terra_known},"
        " tables: {table1: {label: Table 1, title: Insects}},"
        " figures: {figure1: {label: Figure 1, table: table1, drawing: leaf_and_hca, note: Ours.}}}"
    )
    lines = [f"table1,Base,base,insect,{metric},,\n" for metric in ("leaf", "hca")]
    (folder / "cells.csv").write_text("table,row,system,dataset,metric,value,source\n" + "".join(lines))
    status, words = run.snakemake("--dry-run", "tara.table1")
    assert status != 0 and "it has none for insect" in words
    path = run.folder / "config" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["tables"]["insect"] = "demo_birds"
    path.write_text(yaml.safe_dump(config))
    jobs = run.planned("tara")
    assert (
        jobs["answer_questions"] == jobs["score"] == jobs["tabulate"] == jobs["plot_paper"] == 1
        and "train" not in jobs
    )
    assert run.planned("table1")["score"] == 1
