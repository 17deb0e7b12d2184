"""What a profile may not change: which jobs run again."""

import pytest
import yaml

from tests.workflow.conftest import ROOT, Run


def test_the_profile_of_slurm_repeats_the_default_s_keys() -> None:
    """For `--workflow-profile profiles/slurm`, in whose place Snakemake does not read the default."""
    default, slurm = (yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text()) for name in ("default", "slurm"))
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
