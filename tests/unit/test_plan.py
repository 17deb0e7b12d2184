"""What the rules are told, on the embedded default."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from vltaxon import config
from vltaxon.errors import UserError
from vltaxon.plan import Plan

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(ROOT)
    return Plan(config.load(Path("config/config.yaml")))


def test_stage_1_runs_once_for_systems_that_share_it(plan: Plan) -> None:
    owners = {system for system, _ in plan.leaves()}
    assert owners == {"base_open", "vl_taxon"}
    at = SimpleNamespace(system="vl_taxon_lookup", dataset="demo_birds", choices="similar", shard="0")
    assert plan.answer_inputs(at)["leaves"] == ["results/predictions/vl_taxon/demo_birds/leaf/0.parquet"]


def test_a_step_continues_the_one_before(plan: Plan) -> None:
    first = plan.train_inputs(SimpleNamespace(model="tiny_vlm", recipe="vl_taxon", step="1-sft"))
    second = plan.train_inputs(SimpleNamespace(model="tiny_vlm", recipe="vl_taxon", step="2-grpo"))
    assert first["previous"] == []
    assert second["previous"] == ["results/adapters/tiny_vlm/vl_taxon/1-sft/adapter_model.safetensors"]


def test_values_leave_out_what_must_not_change_results(plan: Plan) -> None:
    assert "batch_size" not in plan.model_values("tiny_vlm") and "description" not in plan.model_values("tiny_vlm")
    step = plan.train_values(SimpleNamespace(model="tiny_vlm", recipe="vl_taxon", step="2-grpo"))["step"]
    assert "device_batch_size" not in step and step["kl"] == 0.4


def test_a_changed_weight_file_is_an_input(plan: Plan) -> None:
    assert "src/vltaxon/demo/base/model.safetensors" in plan.model_files("tiny_vlm")
    assert plan.model_files("tiny_siglip")[1] == "results/demo/siglip/open_clip_model.safetensors"


def test_two_archives_of_one_name_are_refused(plan: Plan) -> None:
    birds = plan.experiment.datasets["demo_birds"]
    other = birds.model_copy(update={"test": config.Split(archive=Path("elsewhere/CUB_200_2011.tgz"))})
    datasets = {**plan.experiment.datasets, "other": other}
    with pytest.raises(UserError, match="two archives are called"):
        Plan(plan.experiment.model_copy(update={"datasets": datasets}))


@pytest.mark.parametrize(("name", "said"), [("a/val.tar.gz", "val"), ("CUB_200_2011.tgz", "CUB_200_2011"), ("x.tar", "x")])
def test_stem(name: str, said: str) -> None:
    assert config.Split(archive=Path(name)).stem == said


def test_calibration_compares_what_the_config_names(plan: Plan) -> None:
    with pytest.raises(UserError, match="calibration: is missing"):
        plan.calibrations()
    named = config.Calibration(published={"demo_birds": Path("p.jsonl")}, cases=("lower",))
    changed = plan.experiment.config.model_copy(update={"calibration": named})
    given = Plan(plan.experiment.model_copy(update={"config": changed}))
    assert given.calibrations() == ["results/calibration/demo_birds/tiny_siglip.csv"]
    at = SimpleNamespace(dataset="demo_birds", encoder="tiny_siglip")
    inputs = given.calibration_inputs(at)
    assert inputs["annotations"] == "p.jsonl"
    assert inputs["image_vectors"] == "results/embeddings/tiny_siglip/demo_birds/images.parquet"
    assert given.calibration_values(at) == {"templates": list(named.templates), "cases": ["lower"]}
    with pytest.raises(UserError, match="demo_plants is not there"):
        given.calibration_inputs(SimpleNamespace(dataset="demo_plants", encoder="tiny_siglip"))
