"""Which scopes there are, and what their scores, tables and figures are made of, on the embedded default."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from vltaxon.config.experiment import Tables
from vltaxon.config.load import load
from vltaxon.errors import UserError
from vltaxon.plan.scopes import Scope
from vltaxon.plan.scoring import ScoringPlan
from vltaxon.plan.whole import Plan
from vltaxon.tasks.scoring import MainTableTask, PaperTableTask, SweepTableTask, SweptSystem

ROOT = Path(__file__).parents[3]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(ROOT)
    return Plan(load(Path("config/config.yaml")))


@pytest.fixture
def scoring(plan: Plan) -> ScoringPlan:
    return plan.scoring


@pytest.fixture
def main(scoring: ScoringPlan) -> Scope:
    return scoring.scopes["main"]


def changed(plan: Plan, **values: object) -> ScoringPlan:
    """The plan with other values in config.yaml."""
    top = plan.experiment.config.model_copy(update=values)
    return Plan(plan.experiment.model_copy(update={"config": top})).scoring


def paper_table(scoring: ScoringPlan, table: str) -> PaperTableTask:
    task = scoring.tabulate(SimpleNamespace(scope=f"vl_taxon.{table}"))
    assert isinstance(task, PaperTableTask)
    return task


def test_the_order_of_systems_scores_nothing_anew(plan: Plan, main: Scope) -> None:
    turned = changed(plan, systems=dict(reversed(plan.experiment.config.systems.items())))
    at = SimpleNamespace(of="")
    assert repr(turned.score.shaping(at)) == repr(plan.scoring.score.shaping(at))
    assert repr(turned.score.reads(at)) == repr(plan.scoring.score.reads(at))
    assert repr(turned.sources(main)) == repr(plan.scoring.sources(main))


def test_the_main_targets_are_of_the_main_systems(scoring: ScoringPlan, main: Scope) -> None:
    """The systems that are only there for the paper's tables are not scored, named or shown."""
    shown = [
        "base",
        "base_open",
        "default_sft",
        "vl_taxon_sft",
        "vl_taxon",
        "vl_taxon_lookup",
        "siglip",
        "chance",
    ]
    table = scoring.tabulate(SimpleNamespace(scope="main"))
    assert isinstance(table, MainTableTask)
    assert list(main.systems) == shown == list(table.labels)
    assert {system for system, _, _ in scoring.answers(main)} == set(shown) - {"base_open"}
    reads = scoring.score.reads(SimpleNamespace(of=""))
    assert not any("full_grpo" in path for path in [*reads["answers"], *reads["leaves"]])
    assert set(scoring.sources(main).leaf_systems) == {
        "base_open",
        "vl_taxon",
        "vl_taxon_lookup",
        "vl_taxon_sft",
    }
    assert table.compare == (("vl_taxon", "vl_taxon_sft"),) and table.database is not None
    of_paper = scoring.tabulate(SimpleNamespace(scope="comparison.ablations"))
    assert isinstance(of_paper, MainTableTask) and (of_paper.compare, of_paper.database) == ((), None)


@pytest.mark.parametrize(
    ("table", "systems", "datasets"),
    [
        ("table1", {"base", "default_sft", "hierarchical_sft"}, {"demo_animals", "demo_plants"}),
        ("table2", {"direct_listing", "leaf_condition"}, {"demo_plants"}),
        ("table3", {"base", "tan_lora", "siglip", "vl_taxon"}, {"demo_animals", "demo_plants", "demo_birds"}),
        ("table7", {"base_open", "default_sft_open", "vl_taxon_open"}, {"demo_animals"}),
    ],
)
def test_a_table_of_the_paper_needs_its_own_systems_and_data_sets_only(
    scoring: ScoringPlan, table: str, systems: set[str], datasets: set[str]
) -> None:
    """Of its choices only, and of the systems of the published table those that the experiment has."""
    scope = scoring.scopes[f"vl_taxon.{table}"]
    assert set(scope.systems) == systems and set(scope.datasets) == datasets
    assert paper_table(scoring, table).scores == Path(f"results/metrics/scores.vl_taxon.{table}.parquet")
    inputs = scoring.score.reads(SimpleNamespace(of=f".vl_taxon.{table}"))
    assert inputs["questions"] == [
        f"results/questions/{dataset}/similar.parquet" for dataset in scope.datasets
    ]
    read = {Path(path).parts[2] for path in [*inputs["answers"], *inputs["leaves"]]}
    assert read == {
        "vl_taxon" if system == "vl_taxon_open" else system for system in systems
    }  # they share stage 1
    assert set(scoring.labels(scope.systems)) == systems


def test_values_of_the_paper_s_tables(plan: Plan) -> None:
    values = paper_table(plan.scoring, "table4").setting
    assert (
        values.comparable == {"animal": False, "plant": False, "bird": False} and values.choices == "similar"
    )
    assert values.systems["vl_taxon"] == "VL-Taxon: tiny_vlm, trained by vl_taxon, asked by two_stage"
    names = {"animal": "inat21_animals", "plant": "demo_plants", "bird": "cub200"}
    mixed = paper_table(changed(plan, tables=Tables(**names)), "table2").setting
    assert mixed.comparable == {"animal": True, "plant": False, "bird": True}
    wanted = [Path(f"results/tables/vl_taxon.table4.{s}") for s in ("csv", "md", "tex")]
    drawn = [Path("results/figures/vl_taxon.figure2.svg"), Path("results/figures/vl_taxon.figure2.png")]
    assert plan.scoring.targets.files("vl_taxon.table4") == plan.scoring.targets.files("table4") == wanted
    assert plan.scoring.targets.files("vl_taxon.figure2") == plan.scoring.targets.files("figure2") == drawn
    assert (
        plan.scoring.targets.files("paper") == plan.scoring.targets.files("vl_taxon")
        and len(plan.scoring.targets.files("paper")) == 7 * 3 + 2 * 2
    )


def test_tables_of_systems_that_the_experiment_lacks(plan: Plan) -> None:
    systems = {name: plan.experiment.config.systems[name] for name in ("siglip", "vl_taxon_lookup")}
    bare = changed(plan, systems=systems, sweeps={}, repeats={}, main=())
    assert paper_table(bare, "table3").scores == Path("results/metrics/scores.vl_taxon.table3.parquet")
    assert paper_table(bare, "table1").scores is None and paper_table(bare, "table1").reads()["scores"] == []
    at = SimpleNamespace(paper="vl_taxon", figure="figure2")
    with pytest.raises(
        UserError, match=r"figure2: the config has none of its systems: base, default_sft, hierarchical_sft"
    ):
        bare.plot_paper(at)
    assert plan.scoring.plot_paper(at).scores == Path("results/metrics/scores.vl_taxon.table1.parquet")


def test_the_paper_s_tables_need_data_sets_and_a_sweep_a_sweep(plan: Plan) -> None:
    without = changed(plan, tables=None, sweeps={})
    for target in ("table4", "vl_taxon.table4", "figure2", "paper"):
        with pytest.raises(UserError, match="need `tables` in the config"):
            without.targets.files(target)
    with pytest.raises(UserError, match="needs `sweeps` in the config"):
        without.targets.files("sweep")
    few = changed(plan, tables=Tables(plant="demo_plants"))
    assert few.targets.files("table2"), "which is of plants alone"
    with pytest.raises(UserError, match="it has none for animal"):
        few.targets.files("table1")


def test_a_sweep_scores_all_its_members(scoring: ScoringPlan, main: Scope) -> None:
    scope = scoring.scopes["sweep"]
    assert len(scope.systems) == 20 and scope.systems[5] == "base_asked.v1.r1" and scope.asked == main.asked
    read = scoring.score.reads(SimpleNamespace(of=".sweep"))["answers"]
    assert "results/predictions/base_asked.v4.r3/demo_birds/random/0.parquet" in read
    task = scoring.tabulate(SimpleNamespace(scope="sweep"))
    assert isinstance(task, SweepTableTask)
    assert task.sweeps == {
        "base_asked": SweptSystem(label="Base", variants=(0, 1, 2, 3, 4), rotations=(0, 1, 2, 3))
    }
    assert scoring.labels(["base_asked.v0.r2"]) == {"base_asked.v0.r2": "base_asked, wording 0, rotation 2"}


def test_scopes_that_the_config_has_nothing_for_are_left_out(plan: Plan) -> None:
    papers = [f"vl_taxon.table{number}" for number in range(1, 8)]
    assert [scope.name for scope in plan.scoring.scopes] == [
        "main",
        *papers,
        "comparison.ablations",
        "sweep",
        "repeats",
    ]
    bare = changed(plan, tables=Tables(plant="demo_plants"), sweeps={}, repeats={}, comparisons={})
    assert [scope.name for scope in bare.scopes] == ["main", "vl_taxon.table2"]


def test_an_unknown_scope_is_told_with_the_nearest(scoring: ScoringPlan) -> None:
    with pytest.raises(UserError, match=r'"vl_taxn.table1" is not one of .*Did you mean "vl_taxon.table1"'):
        scoring.tabulate(SimpleNamespace(scope="vl_taxn.table1"))
