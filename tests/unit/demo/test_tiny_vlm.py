"""The tiny VLM: the tokenizer, the shortcuts of its training against the real model, a short training, the
shipped weights.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForImageTextToText, AutoProcessor

from vltaxon.demo import tiny_vlm
from vltaxon.demo.clades import BIRD_RANKS, Clade, world
from vltaxon.demo.organisms import draw, stream
from vltaxon.demo.tiny_vlm import corpus, pretrain
from vltaxon.demo.tiny_vlm.architecture import rope_positions, visual_tokens
from vltaxon.demo.tiny_vlm.curriculum import Stage
from vltaxon.demo.tiny_vlm.processor import build_processor
from vltaxon.demo.tiny_vlm.pupil import Pupil
from vltaxon.demo.tiny_vlm.vision import draw_patches
from vltaxon.prompts import conversation
from vltaxon.provenance import digest_file

pytestmark = pytest.mark.numeric

CONFIG = Path(__file__).parents[3] / "config"
BASE = Path(tiny_vlm.__file__).parents[1] / "base"


@pytest.fixture(scope="module")
def pupil() -> Pupil:
    return Pupil(seed=0)


def test_every_word_of_a_taxon_is_one_token(pupil: Pupil) -> None:
    for species in pupil.corpus.species:
        for taxon in (*species.lineage, f"{species.name} {species.name}"):
            assert len(pupil.token_ids(f" {taxon}")) == len(taxon.split())
        assert len(pupil.token_ids(species.name)) == 2


def test_tags_are_ordinary_tokens(pupil: Pupil) -> None:
    text = "<think>Kingdom: x</think><answer>B</answer>"
    ids = pupil.token_ids(text)
    assert pupil.tokenizer.decode(ids, skip_special_tokens=True) == text
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        assert len(pupil.token_ids(tag)) == 1


def test_corpus_renders_as_the_chat_template_does(pupil: Pupil) -> None:
    processor = build_processor(pupil.tokenizer)
    for system in (None, corpus.EXPERT):
        rendered = processor.apply_chat_template(
            conversation("Which?", system), tokenize=False, add_generation_prompt=True
        )
        expected = corpus.turn(corpus.IMAGE + "Which?", system or corpus.HELPFUL)
        assert rendered.replace("<|image_pad|>", "<|image_pad|>" * 4) == expected


def test_prompts_are_those_of_the_config() -> None:
    def read(name: str) -> Any:
        return yaml.safe_load((CONFIG / "prompts" / f"{name}.yaml").read_text())

    assert (read("direct")["system"], read("direct")["text"]) == (corpus.EXPERT, corpus.DIRECT)
    assert read("stage1")["text"] == corpus.LEAF
    assert read("stage2")["text"] == corpus.ANSWER


def test_positions_are_those_of_the_model(pupil: Pupil) -> None:
    lessons = [pupil.corpus.leaf(), pupil.corpus.lineage(), pupil.corpus.cue()]
    for lesson in lessons:
        ids = torch.tensor([pupil.token_ids(lesson.prompt)])
        image = ids == pupil.image_token
        grid = torch.tensor([[1, 4, 4]]) if image.any() else None
        expected = pupil.model.model.get_rope_index(ids, mm_token_type_ids=image.int(), image_grid_thw=grid)[
            0
        ]
        assert (rope_positions(ids, pupil.image_token) == expected).all()


def test_visual_tokens_are_those_of_the_tower(pupil: Pupil) -> None:
    patches = draw_patches(pupil.corpus.species[:2], "web", 2, seed=0).flatten(0, 1).float()
    tower = pupil.model.model.visual
    with torch.no_grad():
        expected = tower(patches.flatten(0, 1), grid_thw=torch.tensor([[1, 4, 4]] * 4)).pooler_output
        torch.testing.assert_close(visual_tokens(tower, patches).flatten(0, 1), expected)


def test_options_hold_the_right_taxon_once(pupil: Pupil) -> None:
    for clade in pupil.clades:
        for level in range(1, len(clade.ranks) + 1):
            options, letter = pupil.corpus.options(clade, clade.species[0], level, related=True)
            assert options[corpus.LETTERS.index(letter)] == clade.species[0].lineage[level - 1]
            assert len(set(options)) == len(options) == min(4, len(clade.taxa(level)))


def test_a_short_training_makes_a_checkpoint_that_transformers_loads(tmp_path: Path) -> None:
    stages = (
        Stage("recall", {"recall": 1}, 2, 4, 1e-3),
        Stage("everything", {"direct": 1, "lineage": 1, "leaf": 1}, 2, 2, 1e-3),
    )
    few = Clade(
        "birds", BIRD_RANKS, world()["birds"].species[::4]
    )  # each is drawn, and answers in full length
    for folder in ("a", "b"):
        pretrain(tmp_path / folder, 3, stages, web_images=1, vision_steps=2, clades=[few])
    assert digest_file(tmp_path / "a/model.safetensors") == digest_file(tmp_path / "b/model.safetensors")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "a", dtype=torch.float32)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    record = json.loads((tmp_path / "a/training_record.json").read_text())
    assert record["weights_sha256"] == digest_file(tmp_path / "a/model.safetensors")
    assert [stage["name"] for stage in record["stages"]] == ["recall", "everything"]


@pytest.fixture(scope="module")
def base() -> tuple[Any, Any]:
    return AutoModelForImageTextToText.from_pretrained(
        BASE, dtype=torch.float32
    ).eval(), AutoProcessor.from_pretrained(BASE)


def _answer(base: tuple[Any, Any], lessons: list[corpus.Lesson], tokens: int) -> list[str]:
    model, processor = base
    texts = [lesson.prompt.replace("<|image_pad|>" * 4, "<|image_pad|>") for lesson in lessons]
    images = [
        draw(lesson.species, stream("test", 0, k)) for k, lesson in enumerate(lessons) if lesson.species
    ]
    batch = processor(text=texts, images=images, padding=True, padding_side="left", return_tensors="pt")
    with torch.inference_mode():
        out = model.generate(**batch, max_new_tokens=tokens, do_sample=False)
    return [
        str(s)
        for s in processor.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    ]


def test_shipped_weights_are_the_recorded_ones_and_small() -> None:
    record = json.loads((BASE / "training_record.json").read_text())
    assert record["weights_sha256"] == digest_file(BASE / "model.safetensors")
    assert (BASE / "model.safetensors").stat().st_size <= 4_000_000


def test_shipped_base_knows_leaves_but_not_the_levels_above(pupil: Pupil, base: tuple[Any, Any]) -> None:
    """The phenomenon of the paper, on fresh images and through the ordinary loaders."""
    plants = world()["plants"]
    right = {}
    for level in (4, 5, 7):
        lessons = [pupil.corpus.direct(plants, species, level) for species in plants.species[::2]]
        letters = _answer(base, lessons, 2)
        right[level] = np.mean(
            [a == lesson.answer[0][0][0] for a, lesson in zip(letters, lessons, strict=True)]
        )
    assert right[7] > 0.75
    assert max(right[4], right[5]) < right[7] - 0.15
