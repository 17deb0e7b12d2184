"""The estimate of costs, held against counts by hand on the embedded default."""

import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.conftest import build
from vltaxon import layout, schemas
from vltaxon.config.experiment import Experiment, System
from vltaxon.config.load import load
from vltaxon.config.models import Speed
from vltaxon.engines.server import Endpoint
from vltaxon.errors import UserError
from vltaxon.plan.cost import Estimate, Work, estimate
from vltaxon.plan.cost_text import describe
from vltaxon.provenance import write_parquet

ROOT = Path(__file__).parents[3]
SPEED = Speed(prompt=1000, new=100, train=500, source="a guess")


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.chdir(ROOT)
    found = load(Path("config/config.yaml"))
    models = found.models | {"tiny_vlm": found.models["tiny_vlm"].model_copy(update={"speed": SPEED})}
    return found.model_copy(update={"models": models})


def line(found: Estimate, what: str, who: str, data: str) -> Work:
    [work] = [work for work in found.work if (work.what, work.who, work.data) == (what, who, data)]
    return work


def test_requests_are_counted_from_what_is_said(experiment: Experiment, tmp_path: Path) -> None:
    found = estimate(experiment, tmp_path)
    direct = line(found, "similar questions", "base", "demo_plants")
    assert direct.requests == 72 * 4 * 7, "72 species, 4 test images each, seven ranks"
    assert direct.image_tokens == 72 * 4 * 4, "the engine shows an image once to its seven prompts"
    assert direct.new_tokens == direct.requests * 2
    assert direct.seconds == pytest.approx(direct.prompt_tokens / 1000 + direct.new_tokens / 100)
    assert (direct.target, direct.done) == ("all", False) and direct.basis == "images said; speed a guess"
    leaf = line(found, "stage 1", "vl_taxon", "demo_birds")
    assert leaf.requests == 32 * 3 and leaf.new_tokens == leaf.requests * 40, "the model's own limit"


def test_training_counts_samples_and_rollouts(experiment: Experiment, tmp_path: Path) -> None:
    found = estimate(experiment, tmp_path)
    species = (72 - 12) / 2
    sft = line(found, "training 1-sft", "vl_taxon", "demo_plants")
    assert sft.requests == species * 7 * (2 + 6), "seven images; stage 1 twice, six scored levels"
    grpo = line(found, "training 2-grpo", "vl_taxon", "demo_plants")
    assert grpo.requests == species * 7 * 4 * 8, "one sample of stage 1, three of stage 2, groups of eight"
    assert grpo.seconds is not None and grpo.seconds > (grpo.prompt_tokens + grpo.new_tokens) / 500
    naming = line(found, "naming for 2-grpo", "vl_taxon", "demo_plants")
    assert naming.requests == species * 7, "the training images whose names condition half of stage 2"
    tan = line(found, "training 1-sft", "tan_lora", "demo_plants")
    assert tan.requests == 2 * species * 7 and tan.new_tokens == tan.requests * 6 * 2, (
        "one conversation an image, six letters"
    )


def test_shared_work_is_counted_once_under_the_first_target(experiment: Experiment, tmp_path: Path) -> None:
    found = estimate(experiment, tmp_path)
    assert [work.who for work in found.work if work.what == "stage 1" and work.data == "demo_animals"].count(
        "vl_taxon"
    ) == 1
    assert {work.target for work in found.work if work.who == "vl_taxon"} == {"all"}
    assert {work.target for work in found.work if work.who == "full_grpo"} == {"paper"}
    swept = [work for work in found.work if work.who == "base_asked" and work.data == "demo_plants"]
    assert len(swept) == 20 * 2 and {work.target for work in swept} == {"sweep"}
    again = [work for work in found.work if work.who == "base_again" and work.data == "demo_plants"]
    assert len(again) == 2 * 2 and {work.target for work in again} == {"repeats"}, (
        "the first run is base's own"
    )
    assert not any(work.who in ("chance", "siglip", "vl_taxon_lookup") for work in found.work), (
        "no model generates there"
    )


def test_what_is_there_is_measured(experiment: Experiment, tmp_path: Path) -> None:
    blank: dict[str, Any] = dict.fromkeys(schemas.IMAGES.names)
    images = [blank | {"image_id": str(i), "split": "test" if i < 5 else "train"} for i in range(8)]
    path = tmp_path / "results/data/demo_plants/images.parquet"
    write_parquet(pa.Table.from_pylist(images, schemas.IMAGES), path, schemas.IMAGES)
    rows = [
        dict.fromkeys(schemas.PREDICTIONS.names) | {"image_id": str(i), "seconds": i and 0.5}
        for i in (0, 1, 2)
    ]
    answers = tmp_path / "results/predictions/base/demo_plants/similar/0.parquet"
    write_parquet(pa.Table.from_pylist(rows, schemas.PREDICTIONS), answers, schemas.PREDICTIONS)
    found = estimate(experiment, tmp_path)
    direct = line(found, "similar questions", "base", "demo_plants")
    assert direct.requests == 5 * 7 and direct.done and direct.basis == "images counted; speed timed"
    assert direct.seconds == pytest.approx(35 * 1.0 / 3)
    assert line(found, "random questions", "base", "demo_plants").basis == "images counted; speed a guess"
    others = line(found, "similar questions", "base", "demo_birds")
    assert not others.done and others.seconds == pytest.approx(others.requests * 1.0 / 3), (
        "timed on another data set"
    )


def test_what_is_unknown_is_said_and_not_guessed(experiment: Experiment, tmp_path: Path) -> None:
    plants = experiment.datasets["demo_plants"].model_copy(update={"size": None})
    tiny = experiment.models["tiny_vlm"].model_copy(update={"speed": None})
    bare = experiment.model_copy(
        update={
            "datasets": experiment.datasets | {"demo_plants": plants},
            "models": experiment.models | {"tiny_vlm": tiny},
        }
    )
    found = estimate(bare, tmp_path)
    direct = line(found, "similar questions", "base", "demo_plants")
    assert direct.requests == 0 and direct.seconds is None and "unknown: give `size`" in direct.basis
    text = describe(found)
    assert "give `speed` in the model's file" in text and "lines without a speed" in text


def test_an_endpoint_costs_money_and_no_device(experiment: Experiment, tmp_path: Path) -> None:
    endpoint = Endpoint(
        engine="server", url="https://api.example.org/v1", model="m", pixels=3136, image_tokens=85, licence="theirs",
        price={"input": 2.5, "output": 10, "cached": 1}, max_new_tokens=1,
    )  # fmt: skip
    systems = {**experiment.config.systems, "remote": System(model="remote", protocol="direct")}
    top = experiment.config.model_copy(
        update={"systems": systems, "main": (*experiment.config.main, "remote")}
    )
    found = estimate(
        experiment.model_copy(update={"config": top, "models": experiment.models | {"remote": endpoint}}),
        tmp_path,
    )
    work = line(found, "similar questions", "remote", "demo_plants")
    assert work.image_tokens == work.requests * 85 and work.new_tokens == work.requests and work.seconds == 0
    assert work.money == pytest.approx((work.prompt_tokens * 2.5 + work.new_tokens * 10) / 1e6)
    assert line(found, "similar questions", "base", "demo_plants").money is None
    said = describe(found)
    assert "money" in said and "no device of ours" in said and "theirs" in said


def test_a_reader_sees_totals_disk_and_licences(experiment: Experiment, tmp_path: Path) -> None:
    text = describe(estimate(experiment, tmp_path))
    rows = [line.split("|")[2:5] for line in text.splitlines() if line.startswith("|")]
    totals = [[cell.strip() for cell in row] for row in rows if "total" in row[1]]
    assert [row[0] for row in totals] == ["all", "paper", "comparisons", "sweep", "repeats", "everything"]
    assert "Licences that you accept" in text and "| demo_plants " in text and "| predictions" in text
    assert len({len(line) for line in text.splitlines() if line.startswith("|") and "Mtok" in line}) == 1


def test_more_devices_shorten_the_wait_down_to_the_longest_chain(
    experiment: Experiment, tmp_path: Path
) -> None:
    found = estimate(experiment, tmp_path)
    chain = (
        "training 1-sft",
        "naming for 2-grpo",
        "training 2-grpo",
        "stage 1",
        "similar questions",
    )  # or random ones, as many
    steps = [line(found, what, "vl_taxon", "demo_plants").seconds for what in chain]
    assert found.chains["all"] == pytest.approx(sum(seconds or 0 for seconds in steps))
    waits = {
        (target.strip(), int(devices)): (float(least), float(most))
        for target, devices, least, most in re.findall(
            r"^\| (all|everything) +\| +(\d+) +\| +(\S+) +\| +(\S+) +\|$", describe(found), re.M
        )
    }
    total = sum(work.seconds or 0 for work in found.work) / 3600
    assert waits["everything", 1] == (pytest.approx(total, abs=0.1),) * 2
    assert waits["everything", 32][0] == pytest.approx(found.chains["everything"] / 3600, abs=0.1)
    assert waits["all", 4][0] <= waits["all", 1][0] and waits["all", 4][1] <= waits["all", 1][1]


def test_the_papers_experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    found = estimate(load(Path("config/paper.yaml")), tmp_path)
    assert line(found, "similar questions", "base", "inat21_animals").requests == 53_880 * 7
    sft = line(found, "training 1-sft", "default_sft", "inat21_plants")
    assert sft.requests == 3_771 * 10 * 6
    assert any("CUB_200_2011.tgz" in name and size == 1_150_585_339 for name, size in found.disk)
    assert all(work.seconds is not None for work in found.work), "every model says its speed"


def test_steps_that_would_teach_nothing_are_refused_once_images_are_counted(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Of the world below, with four images of each species, an epoch of a half has one step."""
    world = build(tmp_path)
    for name, target in (("images", layout.IMAGES), ("parts", layout.PARTS)):
        file = tmp_path / layout.fill(target, dataset="demo_plants")
        file.parent.mkdir(parents=True)
        shutil.copy(world.tables[name], file)
    said = "training 1-sft of listing_sft: 48 samples make 1 optimiser step (batch_size 32, epochs 0.5), and warmup"
    with pytest.raises(UserError, match=re.escape(said)):
        estimate(experiment, tmp_path)
