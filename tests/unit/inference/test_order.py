"""What is answered does not depend on how the work is cut: batch sizes and shards are for speed and memory alone."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.conftest import PROMPTS, World
from tests.unit.inference.tasks import answer_task, asking, leaf_task
from vltaxon import provenance, schemas
from vltaxon.config.protocols import Prompt, Stage
from vltaxon.engines.transformers import Vlm
from vltaxon.inference import run
from vltaxon.tasks.asking import Asking

pytestmark = pytest.mark.numeric

ROOT = Path(__file__).parents[3]
CUTS = [*itertools.product((1, 8, 32), (1, 2, 5)), (8, 9)]  # batch size and shards; of nine shards one has no image
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Asked:
    """A model, and what it is asked in two stages."""

    vlm: Vlm
    adapter: Path | None
    leaf: Stage
    answer: Stage
    prompts: Mapping[str, Prompt]


def how(asked: Asked, stage: Stage) -> Asking:
    return asking(stage, asked.prompts[str(stage.prompt)], asked.vlm)


def predicted(world: World, asked: Asked, batch_size: int, shards: int) -> tuple[Rows, ...]:
    """Rows of both stages, shard after shard; stage 2 may be given what stage 1 named. Nothing comes from a journal."""
    folder = world.folder / f"{batch_size} {shards}"
    leaves, answers = ([folder / stage / f"{shard}.parquet" for shard in range(shards)] for stage in ("leaf", "answer"))
    common = {"adapter": asked.adapter, "batch_size": batch_size, "shards": shards, "state": folder / ".state"}
    for shard, output in enumerate(leaves):
        run.predict_leaf(leaf_task(world, output, how(asked, asked.leaf), shard=shard, **common))
    for shard, output in enumerate(answers):
        given = {"leaves": tuple(leaves), "shard": shard}
        run.answer_questions(answer_task(world, output, how(asked, asked.answer), **given, **common))
    return tuple(
        [row | {"seconds": None} for path in paths for row in provenance.read_parquet(path, schemas.PREDICTIONS).to_pylist()]
        for paths in (leaves, answers)
    )


def same_however_cut(world: World, asked: Asked, cuts: Sequence[tuple[int, int]], questions: int = 32) -> tuple[Rows, Rows]:
    """The rows of both stages, once they were the same in all columns but the time for all batch sizes and shard counts."""
    leaves, answers = predicted(world, asked, *cuts[0])
    assert [row["image_id"] for row in leaves] == sorted(f"test/{i}_4" for i in range(8)) and len(answers) == questions
    for batch_size, shards in cuts[1:]:
        again = predicted(world, asked, batch_size, shards)
        assert again == (leaves, answers), f"batches of {batch_size} in {shards} shards"
    return leaves, answers


def test_batches_and_shards_change_no_letter(world: World, vlm: Vlm, lettered: Path) -> None:
    """A model that has learnt to write B, whose stage 2 is given what its stage 1 wrote; where there is one option, B is none."""
    leaf = Stage(name="leaf", prompt="stage1", form="bare", max_new_tokens=4)
    answer = Stage(name="answer", prompt="stage2", condition="leaf", form="bare", max_new_tokens=4)
    leaves, answers = same_however_cut(world, Asked(vlm, lettered / "adapter_model.safetensors", leaf, answer, PROMPTS), CUTS)
    assert {row["outcome"] for row in leaves} == {"answered"}
    assert {(row["outcome"], row["answer_index"]) for row in answers} == {("answered", 1), ("unparsed", None)}


def test_nor_where_images_have_different_numbers_of_questions(world: World, vlm: Vlm, lettered: Path) -> None:
    """Shards of equal cost then hold different numbers of images, and those of stage 2 others than those of stage 1."""
    file = world.tables["questions"]
    table = provenance.read_parquet(file, schemas.QUESTIONS)
    kept = [level in (1, 1 + number // 7) for number, level in enumerate(table["level"].to_pylist())]
    provenance.write_parquet(table.filter(kept), file, schemas.QUESTIONS)
    per_image = Counter(table.filter(kept)["image_id"].to_pylist())
    tested = [per_image[f"test/{i}_4"] for i in range(8)]
    assert len(set(tested)) > 1
    leaf = Stage(name="leaf", prompt="stage1", form="bare", max_new_tokens=4)
    answer = Stage(name="answer", prompt="stage2", condition="leaf", form="bare", max_new_tokens=4)
    given = Asked(vlm, lettered / "adapter_model.safetensors", leaf, answer, PROMPTS)
    same_however_cut(world, given, [(8, 1), (8, 3), (1, 5)], questions=sum(tested))


def test_batches_and_shards_change_no_word(world: World, vlm: Vlm) -> None:
    """The demo's base, which reasons differently about each question, and whose texts end at different lengths."""
    base = vlm.model_copy(update={"checkpoint": str(ROOT / "src/vltaxon/demo/base")})
    prompts = {
        name: Prompt.model_validate(yaml.safe_load((ROOT / f"config/prompts/{name}.yaml").read_text())) for name in PROMPTS
    }
    leaf, answer = (Stage(name=name, prompt=f"stage{i}", max_new_tokens=33) for i, name in enumerate(("leaf", "answer"), start=1))
    leaves, answers = same_however_cut(world, Asked(base, None, leaf, answer, prompts), [(1, 1), (8, 1), (32, 2), (8, 5)])
    assert len({row["completion"] for row in leaves + answers}) > 24
    assert {row["finish_reason"] for row in leaves + answers} == {"stop", "length"}
    assert {row["answer_index"] for row in answers} == {0, 1, None} and any(any(row["lineage"]) for row in leaves)
    assert len({row["prompt_tokens"] for row in answers}) > 4, "prompts of one length would not be padded"
