"""What the rules are told, on the embedded default."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from vltaxon.config.base import RawFile
from vltaxon.config.datasets import Dataset, Published, Size, Split
from vltaxon.config.experiment import System
from vltaxon.config.load import load
from vltaxon.engines.server import Endpoint
from vltaxon.errors import UserError
from vltaxon.plan.whole import Plan
from vltaxon.tasks.asking import Asking
from vltaxon.tasks.scoring import RepeatsTableTask

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(ROOT)
    return Plan(load(Path("config/config.yaml")))


def answers(plan: Plan) -> dict[tuple[str, str, str], tuple[Path, ...]]:
    """The tables of stage 2 of the main systems."""
    return plan.scoring.answers(plan.scopes["main"])


def test_stage_1_runs_once_for_systems_that_share_it(plan: Plan) -> None:
    owners = {system for system, _ in plan.scoring.leaves(plan.scopes["main"])}
    assert owners == {"base_open", "vl_taxon", "vl_taxon_sft"}
    at = SimpleNamespace(system="vl_taxon_lookup", dataset="demo_birds", choices="similar", shard="0")
    read = plan.prediction.answer_questions.reads(at)["leaves"]
    assert read == ["results/predictions/vl_taxon/demo_birds/leaf/0.parquet"]


def test_shards_are_as_many_as_the_size_of_the_data_and_the_devices_are_worth(plan: Plan) -> None:
    """Whatever a model's speed, its batches, or how many devices Snakemake is told of: those must plan
    nothing anew.
    """
    size = Size(leaves=4271, test=42_710, pixels=187_500)
    large = plan.experiment.datasets["demo_plants"].model_copy(update={"size": size})
    drawn = large.model_copy(update={"test": large.test.model_copy(update={"images_per_leaf": 1})})
    unknown = large.model_copy(update={"size": None})
    datasets = plan.experiment.datasets | {"demo_plants": large, "demo_animals": drawn, "demo_birds": unknown}
    top = plan.experiment.config.model_copy(update={"devices": 4})
    given = Plan(plan.experiment.model_copy(update={"config": top, "datasets": datasets}))
    jobs = {name: len(files) for name, files in answers(given).items() if name[2] == "similar"}
    assert [jobs["vl_taxon", data, "similar"] for data in ("demo_plants", "demo_animals", "demo_birds")] == [
        8,
        4,
        4,
    ]
    assert [
        jobs[name, "demo_plants", "similar"] for name in ("base", "chance", "siglip", "vl_taxon_lookup")
    ] == [4, 1, 1, 1]
    at = SimpleNamespace(system="vl_taxon", dataset="demo_plants", choices="similar", shard="0")
    assert given.prediction.answer_questions(at).shards == 8
    assert len(given.prediction.leaf_shards("vl_taxon", "demo_plants")) == 4
    fixed = Plan(given.experiment.model_copy(update={"config": top.model_copy(update={"shards": 3})}))
    assert {len(files) for files in answers(fixed).values()} == {3}
    assert {len(files) for files in answers(plan).values()} == {1}, "the default is small"


def test_many_shards_of_stage_2_depend_on_one_list_of_those_of_stage_1(plan: Plan) -> None:
    many = Plan(
        plan.experiment.model_copy(update={"config": plan.experiment.config.model_copy(update={"shards": 3})})
    )
    at = SimpleNamespace(system="vl_taxon_lookup", dataset="demo_birds", choices="similar", shard="2")
    read = many.prediction.answer_questions.reads(at)["leaves"]
    assert read == ["results/predictions/vl_taxon/demo_birds/leaf/shards.json"]
    assert len(many.prediction.leaf_shards("vl_taxon", "demo_birds")) == 3


def test_archives_are_read_by_ingest_alone(plan: Plan) -> None:
    """Snakemake reads every input whole after a job, for its checksum."""
    at = SimpleNamespace(
        system="vl_taxon",
        dataset="demo_plants",
        choices="similar",
        shard="0",
        model="tiny_vlm",
        recipe="vl_taxon",
    )
    at.step = "2-grpo"
    read = [plan.prediction.predict_leaf.reads(at), plan.prediction.answer_questions.reads(at)]
    read += [plan.training.train.reads(at), plan.training.name_training.reads(at)]
    assert ".tar" not in str(read) and ".tar" in str(plan.data.ingest.reads(at))


def test_a_step_continues_the_one_before(plan: Plan) -> None:
    first = plan.training.train.reads(SimpleNamespace(model="tiny_vlm", recipe="vl_taxon", step="1-sft"))
    second = plan.training.train.reads(SimpleNamespace(model="tiny_vlm", recipe="vl_taxon", step="2-grpo"))
    assert first["previous"] == []
    assert second["previous"] == ["results/adapters/tiny_vlm/vl_taxon/1-sft/adapter_model.safetensors"]


def test_values_leave_out_what_must_not_change_results(plan: Plan) -> None:
    shaping = plan.training.train.shaping(SimpleNamespace(model="tiny_vlm", recipe="vl_taxon", step="2-grpo"))
    assert not {"batch_size", "description", "threads", "gpus", "memory"} & shaping["model"].keys()
    assert (
        not {"device_batch_size", "checkpoint_minutes", "processes", "distributed", "gpu", "state"}
        & shaping.keys()
    )
    assert "device_batch_size" not in shaping["step"] and shaping["step"]["max_new_tokens"] == 40


def test_how_a_step_is_run_retrains_nothing(plan: Plan) -> None:
    at = SimpleNamespace(model="tiny_vlm", recipe="vl_taxon", step="2-grpo")

    def changed(**values: object) -> Plan:
        recipe = plan.experiment.recipes["vl_taxon"]
        steps = (recipe.steps[0], recipe.steps[1].model_copy(update=values))
        recipes = {**plan.experiment.recipes, "vl_taxon": recipe.model_copy(update={"steps": steps})}
        return Plan(plan.experiment.model_copy(update={"recipes": recipes}))

    same = changed(device_batch_size=4, checkpoint_minutes=1, zero_variance_limit=0.5)
    assert same.training.train.shaping(at) == plan.training.train.shaping(at)
    assert same.training.train(at).running_step.checkpoint_minutes == 1
    assert changed(generate="vllm_colocate").training.train.shaping(at)["step"]["generate"] == "vllm_colocate"


def test_devices_of_a_training_are_no_part_of_the_model(plan: Plan) -> None:
    at = SimpleNamespace(model="tiny_vlm", recipe="vl_taxon", step="1-sft")

    def having(**values: object) -> Plan:
        model = plan.models["tiny_vlm"].model_copy(update=values)
        return Plan(
            plan.experiment.model_copy(update={"models": {**plan.experiment.models, "tiny_vlm": model}})
        )

    for values, devices, processes in (
        ({}, 1, 1),
        ({"gpus": 4}, 4, 1),
        ({"train_gpus": 4}, 4, 4),
        ({"gpus": 4, "train_gpus": 8, "distributed": "fsdp"}, 8, 8),
    ):
        given = having(**values)
        assert given.models["tiny_vlm"].shaping() == plan.models["tiny_vlm"].shaping()
        assert given.training.train.shaping(at) == plan.training.train.shaping(at)
        task = given.training.train(at)
        assert (task.gpu, given.models.train_gpus("tiny_vlm"), task.processes) == (
            devices,
            devices,
            processes,
        )
        assert given.models.gpus("tiny_vlm") == values.get("gpus", 1), "a job that asks it is not meant"


def test_a_changed_weight_file_is_an_input(plan: Plan) -> None:
    assert Path("src/vltaxon/demo/base/model.safetensors") in plan.models.files("tiny_vlm")
    shipped = Path("src/vltaxon/demo/siglip")
    assert set(plan.models.files("tiny_siglip")) == {
        shipped / name
        for name in (
            "open_clip_config.json",
            "open_clip_model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        )
    }


@pytest.fixture
def published(plan: Plan) -> Plan:
    """The default, with the benchmark's questions about the birds beside random ones."""
    given = Published(annotations=Path("birds.jsonl"), taxonomy=Path("birds.json"))
    birds = plan.experiment.datasets["demo_birds"].model_copy(update={"published": given})
    top = plan.experiment.config.model_copy(update={"choices": ("random", "published")})
    datasets = {**plan.experiment.datasets, "demo_birds": birds}
    return Plan(plan.experiment.model_copy(update={"config": top, "datasets": datasets}))


def test_published_questions_are_asked_where_there_are_any(published: Plan) -> None:
    pairs = [
        ("demo_plants", "random"),
        ("demo_animals", "random"),
        ("demo_birds", "random"),
        ("demo_birds", "published"),
    ]
    scope = published.scopes["main"]
    assert list(scope.asked) == pairs == list(published.scoring.questions(scope))
    assert {key[1:] for key in answers(published)} == set(pairs)
    assert ("demo_birds", "published") in published.scoring.sources(scope).questions
    exports = list(map(str, published.exports()))
    assert "results/published/demo_birds/published.jsonl" in exports
    assert "results/published/base/demo_birds/published.json" in exports
    assert not any("base_open" in path or "demo_plants/published" in path for path in exports)


def test_what_an_import_reads(published: Plan) -> None:
    inputs = published.questions.import_published.reads(SimpleNamespace(dataset="demo_birds"))
    assert inputs["annotations"] == "birds.jsonl"
    assert inputs["index"] == ["results/data/archives/CUB_200_2011.parquet"]
    assert inputs["taxonomy"] == ["results/published/demo_birds/taxa.parquet"]
    values = published.questions.import_published.shaping(SimpleNamespace(dataset="demo_birds"))
    values.pop("code")
    assert values == {"blob": None, "parts": 2, "scored_levels": [1, 2, 3, 4], "drawn": True}
    with pytest.raises(UserError, match=r"demo_plants\.yaml has no `published`"):
        published.questions.import_published.reads(SimpleNamespace(dataset="demo_plants"))


def test_an_export_of_published_questions_reads_their_records(published: Plan) -> None:
    for choices, records in (
        ("published", ["results/questions/demo_birds/published_records.parquet"]),
        ("random", []),
    ):
        at = SimpleNamespace(dataset="demo_birds", choices=choices)
        assert published.questions.export_questions.reads(at)["records"] == records


def test_two_archives_of_one_name_are_refused(plan: Plan) -> None:
    birds = plan.experiment.datasets["demo_birds"]
    other = birds.model_copy(update={"test": Split(archive=Path("elsewhere/CUB_200_2011.tgz"))})
    datasets = {**plan.experiment.datasets, "other": other}
    with pytest.raises(UserError, match="two archives are called"):
        Plan(plan.experiment.model_copy(update={"datasets": datasets}))


def _with_source(plan: Plan, **source: str) -> Plan:
    """The default, but val.tar.gz has a source and a checksum."""
    datasets = dict(plan.experiment.datasets)
    archive = RawFile.model_validate({"source": source, "md5": "0" * 32, "file": "val.tar.gz"})
    for name in ("demo_plants", "demo_animals"):
        test = datasets[name].test.model_copy(update={"archive": archive})
        datasets[name] = datasets[name].model_copy(update={"test": test, "licence": f"of {name}"})
    return Plan(plan.experiment.model_copy(update={"datasets": datasets}))


def test_a_raw_file_with_a_source_is_fetched_once_and_then_a_path_like_any_other(plan: Plan) -> None:
    fetched = _with_source(plan, url="https://x/val.tar.gz")
    at = SimpleNamespace(file="val.tar.gz", dataset="demo_animals", archive="val")
    download = fetched.data.download(at)
    assert list(fetched.data.raw) == ["val.tar.gz"] and download.unpacked == Path("results/data/archives")
    assert download.licence == "of demo_plants; of demo_animals"
    assert fetched.data.archives["val"] == Path("results/raw/val.tar.gz")
    assert fetched.data.ingest.shaping(at)["dataset"]["test"]["archive"] == "results/raw/val.tar.gz"
    assert fetched.data.ingest.reads(at) == plan.data.ingest.reads(at)
    assert re.fullmatch(fetched.data.raw_names, "val.tar.gz")
    assert not re.fullmatch(plan.data.raw_names, "val.tar.gz")


def test_a_mirror_or_a_local_copy_repeats_nothing(plan: Plan) -> None:
    at = SimpleNamespace(file="val.tar.gz", dataset="demo_animals")
    plans = [
        _with_source(plan, **source)
        for source in ({"url": "https://x/val.tar.gz"}, {"url": "http://y/v"}, {"path": "/v"})
    ]
    values = [
        (one.data.ingest.shaping(at), one.data.download.shaping(at), one.data.ingest.reads(at))
        for one in plans
    ]
    assert len(set(map(str, values))) == 1


@pytest.mark.parametrize(
    ("name", "said"), [("a/val.tar.gz", "val"), ("CUB_200_2011.tgz", "CUB_200_2011"), ("x.tar", "x")]
)
def test_stem(name: str, said: str) -> None:
    assert Split(archive=Path(name)).stem == said


def test_data_that_is_no_archive_is_an_input_by_its_table(plan: Plan) -> None:
    birds = plan.experiment.datasets["demo_birds"].model_copy(update={"classes": None})
    table = Split(table=Path("mine/t.csv"))
    words = birds.model_dump(include={"word", "ranks", "scored_levels", "questions", "licence"})
    others = {
        "birds": birds,
        "mine": Dataset(source="folder", train=table, test=table, **words),
        "insects": Dataset(
            source="terra_incognita", subset="known", test=Split(folder=Path("terra")), **words
        ),
    }
    whole = Plan(plan.experiment.model_copy(update={"datasets": {**plan.experiment.datasets, **others}}))

    def inputs(name: str) -> dict[str, list[str]]:
        return whole.data.ingest.reads(SimpleNamespace(dataset=name))

    assert inputs("mine") == {"tars": [], "indexes": [], "tables": ["mine/t.csv"]}
    assert inputs("insects") == {"tars": [], "indexes": [], "tables": ["terra/metadata_known.csv"]}
    assert inputs("birds")["tables"] == ["src/vltaxon/data/sources/cub200_classes.csv"]
    assert whole.data.test_index("mine") is None and whole.data.test_index("insects") is None
    assert whole.data.ingest.shaping(SimpleNamespace(dataset="insects"))["dataset"]["subset"] == "known"


def test_calibration_is_of_the_data_sets_with_published_questions(plan: Plan) -> None:
    with pytest.raises(UserError, match="no data set's file has `published`"):
        plan.questions.calibrations()
    published = Published(annotations=Path("p.jsonl"))
    birds = plan.experiment.datasets["demo_birds"].model_copy(update={"published": published})
    given = Plan(
        plan.experiment.model_copy(update={"datasets": plan.experiment.datasets | {"demo_birds": birds}})
    )
    assert list(map(str, given.questions.calibrations())) == [
        "results/calibration/demo_birds/tiny_siglip.csv"
    ]
    inputs = given.questions.calibrate_templates.reads(
        SimpleNamespace(dataset="demo_birds", encoder="tiny_siglip")
    )
    assert inputs["questions"] == "results/questions/demo_birds/published.parquet"
    assert inputs["image_vectors"] == "results/embeddings/tiny_siglip/demo_birds/images.parquet"


def test_runs_of_a_repeated_system_differ_in_their_number_alone(plan: Plan) -> None:
    at = [
        SimpleNamespace(system=name, dataset="demo_birds", choices="similar", shard="0")
        for name in ("base", "base_again.n0")
    ]
    shaping = plan.prediction.answer_questions.shaping
    assert shaping(at[0]) == shaping(at[1])
    at[1].system = "base_again.n2"
    assert shaping(at[1])["asking"] == shaping(at[0])["asking"] | {"repeat": 2}
    task = plan.scoring.tabulate(SimpleNamespace(scope="repeats"))
    assert isinstance(task, RepeatsTableTask)
    values = task.repeats["base_again"].answers
    runs = [Path(f"results/predictions/base_again.n{i}/demo_birds/similar/0.parquet") for i in range(3)]
    assert values["demo_birds", "similar"] == tuple((run,) for run in runs) and set(runs) < set(task.answers)
    assert ("demo_birds", "leaf") not in values, "base has no stage 1"


ENDPOINT = Endpoint(
    engine="server", url="https://api.example.org/v1", model="m-1", key="A_KEY", pixels=3136, price={"input": 1, "output": 4},
    budget=9, concurrency=7, system="Be brief.", temperature=0.2, seed=42, licence="theirs",
)  # fmt: skip
SERVED = Endpoint(
    engine="server",
    managed={"model": "tiny_vlm", "environment": "/venv", "replicas": 2},
    pixels=3136,
    threads=8,
    licence="MIT",
)


@pytest.fixture
def serving(plan: Plan) -> Plan:
    """The default, with an endpoint's model and two systems that vLLM serves."""
    systems = {
        "remote": System(model="remote", protocol="direct"),
        "served": System(model="served", protocol="direct"),
        "trained": System(model="served", recipe="vl_taxon", protocol="two_stage"),
        "lora": System(model="lora", recipe="vl_taxon", protocol="two_stage"),
    }
    beside = SERVED.model_copy(
        update={"managed": SERVED.managed and SERVED.managed.model_copy(update={"lora": True})}
    )
    models = {**plan.experiment.models, "remote": ENDPOINT, "served": SERVED, "lora": beside}
    top = plan.experiment.config.model_copy(update={"systems": {**plan.experiment.config.systems, **systems}})
    return Plan(plan.experiment.model_copy(update={"config": top, "models": models}))


def at(system: str) -> SimpleNamespace:
    return SimpleNamespace(system=system, dataset="demo_plants", choices="random", shard="0")


def test_how_to_reach_an_endpoint_repeats_nothing_what_it_is_asked_does(serving: Plan) -> None:
    shaping = serving.prediction.answer_questions.shaping(at("remote"))
    assert shaping["asking"]["model"] == {
        "engine": "server", "model": "m-1", "system": "Be brief.", "pixels": 3136, "temperature": 0.2, "seed": 42
    }  # fmt: skip
    assert (
        "example.org" not in str(shaping)
        and "A_KEY" not in str(shaping)
        and "served" not in shaping["asking"]
    )
    assert serving.prediction.answer_questions(at("remote")).settings == Path("config/models/remote.yaml")


def test_an_endpoint_wants_no_device_and_a_server_of_ours_those_of_its_replicas(serving: Plan) -> None:
    systems = ("remote", "served", "base", "chance", "siglip")
    tasks = {system: serving.prediction.answer_questions(at(system)) for system in systems}
    assert [tasks[system].gpu for system in ("remote", "served", "base", "chance")] == [0, 2, 1, 0]
    assert [tasks[system].threads for system in ("remote", "served")] == [2, 8]
    assert [task.mem_mb for task in tasks.values()] == [2000, 4000, 2000, 2000, 2000]
    assert serving.models.memory("tiny_siglip") == 2000


def test_a_server_of_ours_serves_the_weights_of_its_base(serving: Plan) -> None:
    reads = serving.prediction.answer_questions.reads(at("served"))
    assert (
        "src/vltaxon/demo/base/model.safetensors" in reads["model"]
        and reads["adapter"] == reads["merged"] == []
    )
    asking = serving.prediction.answer_questions(at("served")).asking
    assert isinstance(asking, Asking) and asking.served == serving.models["tiny_vlm"]
    assert asking.model.max_new_tokens == 40, "the base's own cap"
    adapter = "results/adapters/tiny_vlm/vl_taxon/2-grpo/adapter_model.safetensors"
    for system, merged in (("trained", ["results/merged/tiny_vlm/vl_taxon"]), ("lora", [])):
        reads = serving.prediction.predict_leaf.reads(at(system))
        assert (reads["adapter"], reads["merged"]) == ([adapter], merged)
    assert "results/merged/tiny_vlm/vl_taxon" not in str(
        serving.prediction.predict_leaf.reads(at("vl_taxon"))
    )


def test_training_is_shown_once_whoever_serves_it(serving: Plan) -> None:
    top = serving.experiment.config.model_copy(update={"main": ("vl_taxon", "trained")})
    shown = Plan(serving.experiment.model_copy(update={"config": top})).training.trained("record.json")
    assert list(shown) == ["vl_taxon 1-sft", "vl_taxon 2-grpo"]


def test_a_step_knows_those_after_it_which_do_not_shape_it(plan: Plan) -> None:
    """So that a step too short for its data is found before days of the one before it."""
    first, last = (
        plan.training.train(SimpleNamespace(model="tiny_vlm", recipe="vl_taxon", step=step))
        for step in ("1-sft", "2-grpo")
    )
    assert first.later == (last.step,) and last.later == () and "later" not in first.shaping()
