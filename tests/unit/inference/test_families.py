"""A model of another family is one YAML file: six families, each by the same engine and the same training
step.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from tests.data.families import FAMILIES
from tests.unit.conftest import LORA, World, step, train
from vltaxon import checkpoint, prompts
from vltaxon.config.steps import Lora
from vltaxon.data.images import ImageStore
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.transformers_engine import TransformersEngine
from vltaxon.train import adapter, guards

pytestmark = pytest.mark.numeric

SHAPES = (
    (64, 60),
    (120, 40),
    (40, 120),
    (112, 112),
    (57, 90),
    (30, 30),
    (100, 50),
    (64, 60),
)  # width, height
TEXTS = [" ".join(["Name it."] * (1 + 5 * (i % 3))) for i in range(len(SHAPES))]  # of very different length
ASKED = [Request(str(i), text, "Be brief." if i % 2 else None) for i, text in enumerate(TEXTS)]
LANGUAGE = {
    "idefics3": r".*text_model.*\.(q|k|v|o|gate|up|down)_proj"
}  # where it is not called language_model


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """Eight images of noise, the first dark and the last bright, of shapes that are cut into tiles
    differently.
    """
    folder, rng, rows = tmp_path_factory.mktemp("images"), np.random.default_rng(0), []
    for i, (wide, high) in enumerate(SHAPES):
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(25 * i, 25 * i + 75, (high, wide, 3), dtype=np.uint8)).save(path)
        rows.append({"image_id": str(i), "archive": str(path), "offset": 0, "size": path.stat().st_size})
    return ImageStore(pa.Table.from_pylist(rows))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    """The model file of a family."""
    folder = tmp_path_factory.mktemp(request.param)
    FAMILIES[request.param](folder)
    return Vlm(
        engine="transformers", checkpoint=str(folder), description=request.param, dtype="float32", pixels=112 * 112,
        min_pixels=784, licence="MIT",
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine(family: Vlm, store: ImageStore) -> TransformersEngine:
    return TransformersEngine(family, None, store)


def lora(model: Vlm) -> Lora:
    """The default adapter, small; with the targets that a recipe for this family would have to name."""
    return LORA.model_copy(update={"targets": LANGUAGE.get(model.description, Lora().targets)})


def answers(
    engine: TransformersEngine, asked: list[Request] = ASKED, max_new_tokens: int = 8
) -> list[Response]:
    given = dict(engine.generate(asked, Decoding(max_new_tokens)))
    return [given[i] for i in range(len(asked))]


def canonical(engine: TransformersEngine, request: Request) -> torch.Tensor:
    """Ids of one prompt as the family's own processor makes them, chat template and image in one call."""
    messages = prompts.conversation(request.text, request.system)
    messages[-1]["content"][0]["image"] = engine._images.resized(
        request.image_id, engine._spec.pixels, engine._spec.min_pixels
    )
    made: Any = engine._processor.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    return made["input_ids"][0]


def test_batch_size_changes_nothing(family: Vlm, engine: TransformersEngine, store: ImageStore) -> None:
    one = answers(TransformersEngine(family.model_copy(update={"batch_size": 1}), None, store))
    many = answers(engine)
    assert engine._spec.batch_size >= len(ASKED)
    for alone, together in zip(one, many, strict=True):
        assert alone.completion == together.completion
        assert alone.finish_reason == together.finish_reason
        for count in ("prompt_tokens", "image_tokens", "completion_tokens"):
            assert getattr(alone, count) == getattr(together, count)
    assert len({response.completion for response in many}) > 1


def test_tokens_are_counted_as_the_processor_makes_them(engine: TransformersEngine) -> None:
    image, tokenizer = engine._model.config.image_token_id, engine._processor.tokenizer
    for request, response in zip(ASKED, answers(engine, max_new_tokens=1), strict=True):
        ids = canonical(engine, request)
        assert response.prompt_tokens == len(ids)  # so there is one start token, where there is any
        assert response.image_tokens == int((ids == image).sum()) > 0
        assert "Name it." in tokenizer.decode(ids) and ("Be brief." in tokenizer.decode(ids)) == (
            request.system is not None
        )


def test_the_pixels_reach_the_model(engine: TransformersEngine) -> None:
    first, last = (Request(image_id, "Name it.") for image_id in ("0", "7"))  # two images of one shape
    assert torch.equal(canonical(engine, first), canonical(engine, last))
    one, other = answers(engine, [first, last])
    assert one.completion != other.completion


def test_half_precision(family: Vlm, store: ImageStore) -> None:
    half = TransformersEngine(family.model_copy(update={"dtype": "bfloat16"}), None, store)
    assert [response.prompt_tokens for response in answers(half)] == [
        len(canonical(half, request)) for request in ASKED
    ]


def test_an_adapter_is_of_the_language_model_alone_and_trains(
    family: Vlm, store: ImageStore, world: World, engine: TransformersEngine
) -> None:
    what = step(lora=lora(family))
    record = json.loads((train(world, family, "adapter", what) / "record.json").read_text())
    assert record["steps"] == 2
    assert record["adapted_kinds"] == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]
    assert record["adapted_modules"] == 2 * 7  # all of both layers
    trained = TransformersEngine(family, world.folder / "adapter", store)
    assert trained.digest.startswith(engine.digest + "+")
    assert [r.completion for r in answers(trained)] != [r.completion for r in answers(engine)]


def test_targets_beyond_the_language_model_are_refused(family: Vlm) -> None:
    _, base = checkpoint.load(family)
    every = r".*\.(q_proj|k_proj|qkv|out_proj)"
    with pytest.raises(UserError, match="outside the language model"):
        guards.list_adapted_modules(
            adapter.with_adapter(base, lora(family).model_copy(update={"targets": every}), None)
        )


def test_the_work_on_an_image_is_shared_by_its_prompts(
    family: Vlm, store: ImageStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """But where attention looks back less far than prompts are long, as it does in this Gemma: the log
    says so.
    """
    endings = ("", "Why?", "How many? " * 5)
    several = [
        Request(asked.image_id, f"{asked.text} {end}", "Be brief.") for asked in ASKED for end in endings
    ]
    shared, alone = TransformersEngine(family, None, store), TransformersEngine(family, None, store)
    alone._shared = None
    given = [
        [(r.completion, r.prompt_tokens, r.image_tokens) for r in answers(e, several)]
        for e in (shared, alone)
    ]
    assert given[0] == given[1]
    said = capsys.readouterr().out
    assert (
        (shared._shared is None) == ("looks back over 64 tokens" in said) == (family.description == "gemma3")
    )
