import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from tests.unit.conftest import PROMPTS, World, lineage, step
from vltaxon import provenance, schemas
from vltaxon.config.protocols import Prompt
from vltaxon.config.steps import Samples
from vltaxon.data.images import ImageStore
from vltaxon.errors import UserError
from vltaxon.train import samples
from vltaxon.train.samples import Sample

LEAF = Samples(task="leaf", prompt="stage1")
GOLD = Samples(task="answer", prompt="stage2", condition="gold")


def draw(world: World, *specs: Samples, seed: int = 0, **changes: Any) -> list[Sample]:
    return samples.draw(world.task(step(samples=specs, **changes), seed=seed))


def of(found: list[Sample], image_id: str) -> list[Sample]:
    return [sample for sample in found if sample.image_id == image_id]


def test_leaf_sample(world: World) -> None:
    (sample,) = of(draw(world, LEAF), "train/3_0")
    assert sample.text == "Name the plant (kingdom, order, genus, species)."
    assert sample.target == (
        "<think>Kingdom: Plantina; Order: Ordo0; Genus: Genus1; Species: Genus1 "
        "epithet3</think><answer>Genus1 epithet3</answer>"
    )
    assert (sample.leaf, sample.options, sample.answer_index) == ("Genus1 epithet3", (), None)


def test_leaf_sample_without_reasoning(world: World) -> None:
    (sample,) = of(draw(world, LEAF.model_copy(update={"target": "answer"})), "train/3_0")
    assert sample.target == "<answer>Genus1 epithet3</answer>"


def test_answer_samples_ask_every_scored_level_given_the_true_leaf(world: World) -> None:
    found = of(draw(world, GOLD), "train/3_0")
    assert sorted(len(sample.options) for sample in found) == [2, 2], (
        "the kingdom and the order here have one option each"
    )
    genus = next(sample for sample in found if "at the genus level" in sample.text)
    assert genus.text == (
        'It is "Genus1 epithet3". Given the plant in the image, what is its classification at the genus level?\n'
        "A. Genus0\nB. Genus1\n"
    )
    assert genus.target == "<think>Kingdom: Plantina; Order: Ordo0; Genus: Genus1</think><answer>B</answer>"
    assert genus.options[genus.answer_index or 0] == "Genus1"


@pytest.mark.parametrize(("form", "target"), [("bare", "B"), ("tagged", "<answer>B</answer>")])
def test_answer_alone(world: World, form: str, target: str) -> None:
    spec = Samples(task="answer", prompt="direct", target="answer", form=form)
    found = of(draw(world, spec), "train/3_0")
    assert {sample.target for sample in found} == {target}
    assert all("epithet3" not in sample.text or "A. Genus0 epithet0" in sample.text for sample in found), (
        "no leaf is given away"
    )
    assert found[0].prompt[0] == {
        "role": "system",
        "content": [{"type": "text", "text": "Answer by letter."}],
    }


def test_one_level_is_drawn_by_the_seed(world: World) -> None:
    one = GOLD.model_copy(update={"levels": "one"})
    found = draw(world, one)
    assert Counter(sample.image_id for sample in found).most_common(1)[0][1] == 1
    assert (
        len({sample.target for sample in of(draw(world, one.model_copy(update={"repeat": 12})), "train/3_0")})
        > 1
    )
    assert found == draw(world, one)
    assert sorted(map(repr, found)) != sorted(map(repr, draw(world, one, seed=1)))


@pytest.mark.parametrize(
    ("part", "species"), [("sft", {0, 1, 2, 3}), ("grpo", {4, 5}), ("all", {0, 1, 2, 3, 4, 5})]
)
def test_parts(world: World, part: str, species: set[int]) -> None:
    found = draw(world, LEAF, part=part)
    assert {sample.leaf for sample in found} == {lineage(i)[-1] for i in species}
    assert len(found) == 4 * len(species), "training images only"


def test_repeat_and_order(world: World) -> None:
    found = draw(world, LEAF.model_copy(update={"repeat": 3}), GOLD)
    assert Counter(sample.task for sample in of(found, "train/3_0")) == {"leaf": 3, "answer": 2}
    assert found == draw(world, LEAF.model_copy(update={"repeat": 3}), GOLD)
    assert found != sorted(found, key=lambda sample: sample.image_id)
    other = draw(world, LEAF.model_copy(update={"repeat": 3}), GOLD, seed=1)
    assert other != found and sorted(map(repr, other)) == sorted(map(repr, found))


def test_a_missing_rank_is_left_out(world: World) -> None:
    world.rewrite("taxa", "taxon", [None if t == "Genus1" else t for t in world.column("taxa", "taxon")])
    (sample,) = of(draw(world, LEAF), "train/3_0")
    assert sample.target.startswith(
        "<think>Kingdom: Plantina; Order: Ordo0; Species: Genus1 epithet3</think>"
    )


def test_an_image_of_both_splits_is_refused(world: World) -> None:
    ids = world.column("images", "image_id")
    world.rewrite("images", "image_id", ["train/0_0" if i == "test/0_4" else i for i in ids])
    with pytest.raises(UserError, match="both splits, train/0_0"):
        draw(world, LEAF)


def test_a_leaf_of_two_parts_or_none_is_refused(world: World) -> None:
    leaves = world.column("parts", "leaf")
    world.rewrite("parts", "leaf", [leaves[0], leaves[1], leaves[2], leaves[3], leaves[0], *leaves[5:]])
    with pytest.raises(UserError, match="epithet0 is in two parts"):
        draw(world, LEAF)
    world.rewrite("parts", "leaf", ["Alia", *leaves[1:]])
    with pytest.raises(UserError, match=r"1 leaves .* have no part, Genus0 epithet0"):
        draw(world, LEAF)


def test_nothing_to_train_on(world: World) -> None:
    world.rewrite("parts", "part", ["held_out"] * 8)
    with pytest.raises(UserError, match=r"no training sample. Part sft has 0 training images"):
        draw(world, LEAF)


def test_an_unknown_prompt(world: World) -> None:
    with pytest.raises(UserError, match=r'"stage3".*Did you mean "stage'):
        draw(world, LEAF.model_copy(update={"prompt": "stage3"}))


def test_braces_in_names_are_no_placeholders(world: World) -> None:
    odd = PROMPTS | {"stage1": Prompt(source="test", text="{word}")}
    found = samples.draw(world.task(step(samples=(LEAF,)), prompts=odd, word="{leaf}"))
    assert found[0].text == "{leaf}"


def test_dataset_decodes_when_read(world: World) -> None:
    class Counted(ImageStore):
        calls = 0

        def resized(self, image_id: str, pixels: int, min_pixels: int) -> Image.Image:
            Counted.calls += 1
            return super().resized(image_id, pixels, min_pixels)

    found = draw(world, LEAF, GOLD)
    rows = samples.dataset(found, Counted(world.tables["images"]), 3136, 3136)
    assert len(rows) == len(found) and Counted.calls == 0
    group = rows[[0, 0, 0, 1]]
    assert Counted.calls == len({found[0].image_id, found[1].image_id})
    assert (
        group["image"][0] is group["image"][2] and group["image"][0].width * group["image"][0].height <= 3136
    )
    row = rows[0]
    assert row["prompt"] == found[0].prompt and row["completion"] == found[0].completion
    assert sum(block["type"] == "image" for message in row["prompt"] for block in message["content"]) == 1
    assert set(samples.COLUMNS) <= row.keys() and tuple(row["options"]) == found[0].options


# -- other targets, conditions and turns


def _named(world: World, **names: str | None) -> Path:
    """A stage 1 table of all training images: the true leaf, but for those in `names` (`i0_1` is train/0_1)."""
    blank, lines = dict.fromkeys(schemas.PREDICTIONS.names), []
    for image_id in world.column("images", "image_id"):
        said = names.get("i" + image_id.split("/")[1], lineage(int(image_id.split("/")[1][0]))[-1])
        if image_id.startswith("train"):
            lines.append(
                blank | {"image_id": image_id, "answer": said, "outcome": "answered" if said else "unparsed"}
            )
    path = world.folder / "own.parquet"
    provenance.write_parquet(pa.Table.from_pylist(lines, schemas.PREDICTIONS), path, schemas.PREDICTIONS)
    return path


def test_the_whole_lineage_before_the_answer(world: World) -> None:
    found = of(draw(world, Samples(task="answer", prompt="direct", target="lineage")), "train/3_0")
    whole = "<think>Kingdom: Plantina; Order: Ordo0; Genus: Genus1; Species: Genus1 epithet3</think>"
    assert len(found) == 2 and all(sample.target.startswith(whole + "<answer>") for sample in found)


@pytest.mark.parametrize("condition", ["none", "gold"])
def test_a_listing_is_the_lineage_alone(world: World, condition: str) -> None:
    prompt = "stage1" if condition == "none" else "given"
    spec = Samples(task="leaf", prompt=prompt, form="listing", condition=condition)
    prompts = PROMPTS | {"given": Prompt(source="test", text='It is "{leaf}".')}
    (sample,) = of(samples.draw(world.task(step(samples=(spec,)), prompts=prompts)), "train/3_0")
    assert sample.target == "Kingdom: Plantina; Order: Ordo0; Genus: Genus1; Species: Genus1 epithet3"
    assert condition == "none" or sample.text == 'It is "Genus1 epithet3".'


def test_own_names_are_what_stage_1_gave_and_no_name_is_no_sample(world: World) -> None:
    own = _named(world, i3_0="Genus0 epithet0", i3_1=None)
    spec = GOLD.model_copy(update={"condition": "own"})
    found = samples.draw(world.task(step(samples=(LEAF, spec)), own=own))
    (wrong,) = {sample.text.split(".")[0] for sample in of(found, "train/3_0") if sample.task == "answer"}
    assert wrong == 'It is "Genus0 epithet0"', "the name is given as it was named"
    assert {sample.target[-10] for sample in of(found, "train/3_0") if sample.options[:1] == ("Genus0",)} == {
        "B"
    }, "and not believed"
    assert {sample.task for sample in of(found, "train/3_1")} == {"leaf"}
    right = [sample for sample in of(found, "train/3_2") if sample.task == "answer"]
    assert all(sample.text.startswith('It is "Genus1 epithet3"') for sample in right) and len(right) == 2


def test_mixed_is_gold_or_own_by_the_image(world: World) -> None:
    ids = [i.split("/")[1] for i in world.column("images", "image_id") if i.startswith("train")]
    own = _named(world, **{f"i{i}": "someone else" for i in ids})
    spec = GOLD.model_copy(update={"condition": "mixed"})

    def given(seed: int) -> dict[str, set[bool]]:
        found = samples.draw(world.task(step(samples=(LEAF, spec), part="all"), seed=seed, own=own))
        answers = [sample for sample in found if sample.task == "answer"]
        return {
            i: {"someone else" in s.text for s in answers if s.image_id == i}
            for i in {s.image_id for s in answers}
        }

    first = given(0)
    assert len(first) == 24 and all(len(kinds) == 1 for kinds in first.values())
    assert 4 <= sum(kinds == {True} for kinds in first.values()) <= 20
    assert first == given(0) != given(1)


def test_several_turns_ask_all_levels_of_an_image(world: World) -> None:
    spec = Samples(task="answer", prompt="direct", target="answer", form="bare", turns="multi")
    single = of(draw(world, spec.model_copy(update={"turns": "single"})), "train/3_0")
    (sample,) = of(draw(world, spec), "train/3_0")
    assert [(sample.text, sample.target), *sample.turns] == sorted(
        ((s.text, s.target) for s in single), key=lambda s: "species" in s[0]
    )
    roles = [message["role"] for message in sample.prompt + sample.completion]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    row = samples.dataset([sample], ImageStore(world.tables["images"]), 3136, 3136)[0]
    assert row["messages"] == sample.prompt + sample.completion and "prompt" not in row
    assert sum(block["type"] == "image" for message in row["messages"] for block in message["content"]) == 1


def test_another_word(world: World) -> None:
    found = samples.draw(world.task(step(samples=(LEAF,)), word="organism"))
    assert all(sample.text.startswith("Name the organism") for sample in found)


def test_a_data_loader_s_worker_outlives_a_stop_that_all_processes_are_told(world: World) -> None:
    """Else the training dies of its death in the middle of a step, and writes no checkpoint."""
    rows = samples.dataset(draw(world, LEAF), ImageStore(world.tables["images"]), 3136, 784)
    others = set(psutil.Process().children())
    loaded = iter(DataLoader(rows, batch_size=1, num_workers=1, collate_fn=list))
    next(loaded)
    (worker,) = set(psutil.Process().children()) - others
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert sum(1 for _ in loaded) == len(rows) - 1 > 5
