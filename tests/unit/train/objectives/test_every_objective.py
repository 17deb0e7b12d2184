"""What holds of every objective and every reward, however many files their folders have."""

import json
import math
from pathlib import Path

import pytest

from tests.unit.conftest import RIGHT_LETTERS, World, step, train
from vltaxon import provenance, schemas
from vltaxon.config.models import Speed
from vltaxon.config.recipes import STEPS
from vltaxon.engines.transformers import Vlm
from vltaxon.train import objectives, rewards

SPEED = Speed(prompt=1000, new=100, train=500, source="a guess")


def test_the_folder_is_the_list() -> None:
    files = {path.stem for path in Path(objectives.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(STEPS) == files and len(files) >= 2
    files = {path.stem for path in Path(rewards.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(rewards.find_rewards()) == files and len(files) >= 2


@pytest.mark.parametrize("kind", STEPS)
def test_an_objective_says_what_is_asked_of_it(kind: str) -> None:
    what = step(kind)
    assert what.kind == kind and type(what) is STEPS[kind]
    names = [column.name for column in what.columns().values()]
    assert names[:3] == ["loss", "grad_norm", "learning_rate"] and len(set(names)) == len(names)
    assert any(column.panel for column in what.columns().values()), "its training is drawn"
    assert what.accumulation(1) * what.device_batch_size == what.batch_size
    assert what.rollouts * what.least_samples <= what.batch_size
    assert what.seconds(1000, 100, SPEED) >= 1100 / SPEED.train
    assert type(what).model_validate_json(what.model_dump_json()) == what


@pytest.mark.parametrize("name", rewards.find_rewards())
def test_a_reward_takes_what_it_needs_and_bears_the_rest(name: str) -> None:
    columns: dict[str, list[object]] = {
        "task": ["leaf", "answer"], "form": ["tagged", "bare"], "reasoned": [True, False],
        "leaf": ["Rosa"] * 2, "ranks": [("genus",)] * 2, "lineage": [("Rosa",)] * 2, "level": [None, 1], "options": [[], ["Rosa", "Acer"]],
        "answer_index": [None, 0], "image_id": ["1", "2"], "prompts": ["?"] * 2, "trainer_state": [None] * 2,
    }  # fmt: skip
    said = [[{"role": "assistant", "content": "<answer>Rosa</answer>"}]] * 2
    given = rewards.find_rewards()[name](completions=said, finish_reason=["stop"] * 2, **columns)
    assert len(given) == 2 and all(value is None or math.isfinite(value) for value in given)


def test_a_weight_is_what_a_reward_counts_in_the_sum(world: World, vlm: Vlm, lettered: Path) -> None:
    one_level = RIGHT_LETTERS.model_copy(update={"levels": "one"})
    what = step("grpo", samples=(one_level,), rewards=({"name": "accuracy", "weight": 3},))
    output = train(world, vlm, "2-grpo", what, previous=lettered)
    rows = provenance.read_parquet(output / "curve.parquet", schemas.CURVE).to_pylist()
    sums, alone = (
        [r["value"] for r in rows if r["metric"] == name] for name in ("reward", "reward_accuracy")
    )
    assert any(alone) and sums == pytest.approx([3 * value for value in alone])
    assert not any(row["metric"] == "reward_format" for row in rows), "which was not asked for"
    assert json.loads((output / "record.json").read_text())["step"]["rewards"] == [
        {"name": "accuracy", "weight": 3}
    ]
