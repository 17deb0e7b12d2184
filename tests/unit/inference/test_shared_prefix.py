"""Sharing the work on an image changes nothing: the same tokens as each prompt gets by itself, in every family."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.unit.conftest import World
from vltaxon.data.images import ImageStore
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError
from vltaxon.inference import shared_prefix, transformers_engine
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.shared_prefix import NotShared
from vltaxon.inference.token_choice import drawn
from vltaxon.inference.transformers_engine import TransformersEngine

pytestmark = pytest.mark.numeric

QUESTIONS = ("Which kingdom?\nA. x\nB. y", "Which order, of many?\nA. one\nB. two\nC. three", "Which?", "Which genus is it?" * 9)


def requests(world: World, images: int = 6) -> list[Request]:
    """Several questions an image, not in the order of images, and two images with one question."""
    ids = world.column("images", "image_id")[:images]
    asked = [Request(image_id, text, "Be brief.") for text in QUESTIONS for image_id in ids[:-2]]
    return asked + [Request(image_id, QUESTIONS[0]) for image_id in ids[-2:]]


def answered(engine: TransformersEngine, asked: list[Request], decoding: Decoding) -> list[Response]:
    given = dict(engine.generate(asked, decoding))
    assert sorted(given) == list(range(len(asked)))
    return [given[i] for i in range(len(asked))]


def plain(engine: TransformersEngine) -> TransformersEngine:
    """The same engine, sharing nothing."""
    engine._shared = None
    return engine


def facts(responses: list[Response]) -> list[tuple[Any, ...]]:
    return [(r.completion, r.finish_reason, r.prompt_tokens, r.image_tokens, r.completion_tokens) for r in responses]


ROUNDING = 1e-4  # of logits with a spread of 1.8; 5e-6 was seen between batches, with and without AVX2
EDGE = 1e-5  # of a cumulative probability; 8e-7 was seen


def may_turn(logits: torch.Tensor, temperature: float, top_p: float, number: float, one: int, other: int) -> bool:
    """Whether rounding may draw another token: the number is at an edge of the one, or both are equally likely."""
    nearby = [min(max(number + step, 0.0), 1 - 2**-53) for step in (-EDGE, EDGE)]
    tokens = drawn(logits.expand(2, -1), temperature, top_p, nearby)
    return tokens.tolist() != [one, one] or abs(float(logits[one] - logits[other])) < ROUNDING


FIRST: dict[float, tuple[torch.Tensor, int]] = {}  # logits and token by number; only the same request has the same ones


@pytest.fixture
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random number that is drawn with again gives the token that it gave first.

    Its logits must be those of the first time but for rounding, and so must its token, where rounding cannot turn it.
    """

    def given(logits: torch.Tensor, temperature: float, top_p: float, numbers: Sequence[float]) -> torch.Tensor:
        tokens = drawn(logits, temperature, top_p, numbers)
        for at, number in enumerate(numbers):
            before, token = FIRST.setdefault(number, (logits[at].clone(), int(tokens[at])))
            torch.testing.assert_close(logits[at], before, rtol=0, atol=ROUNDING)
            now = int(tokens[at])
            assert now == token or may_turn(before, temperature, top_p, number, token, now)
            tokens[at] = token
        return tokens

    monkeypatch.setattr(transformers_engine, "drawn", given)


DECODINGS = {
    "greedy": Decoding(12),
    "with a penalty": Decoding(12, repetition_penalty=1.3),
    "of given texts": Decoding(40, only=("Genus0", "Genus0 epithet1", "<think>Kingdom: Plantina</think><answer>x</answer>")),
    "until a text": Decoding(30, stop="e"),
    "drawn": Decoding(12, temperature=3, top_p=0.9, seed=3),  # near 1 it would say its last token again
    "drawn, with a penalty": Decoding(12, temperature=1.5, repetition_penalty=1.3),
}
BY_ITSELF: dict[Decoding, list[tuple[Any, ...]]] = {}  # what each gives without sharing, found once


@pytest.mark.usefixtures("same_draws")
@pytest.mark.parametrize("decoding", DECODINGS.values(), ids=DECODINGS)
@pytest.mark.parametrize("rows", [1, 5, 64])
def test_the_same_tokens_as_each_prompt_by_itself(world: World, vlm: Vlm, decoding: Decoding, rows: int) -> None:
    store, asked = ImageStore(world.tables["images"]), requests(world)
    if decoding.temperature:
        asked = [replace(request, sample=sample) for sample in range(3) for request in asked]
    sized = vlm.model_copy(update={"batch_size": rows})
    if decoding not in BY_ITSELF:
        BY_ITSELF[decoding] = facts(answered(plain(TransformersEngine(vlm, None, store)), asked, decoding))
    shared = TransformersEngine(sized, None, store)
    assert facts(answered(shared, asked, decoding)) == BY_ITSELF[decoding]
    assert shared._shared is not None, "nothing fell back"


def test_the_vision_tower_sees_each_image_once(world: World, vlm: Vlm) -> None:
    engine, asked = TransformersEngine(vlm, None, ImageStore(world.tables["images"])), requests(world)
    engine._verified = True  # the check of the first batch is one more look
    seen: list[int] = []
    vision = next(module for name, module in engine._model.named_modules() if name.endswith("visual"))
    vision.register_forward_pre_hook(lambda module, given, named: seen.append(len(named["grid_thw"])), with_kwargs=True)
    answered(engine, asked, Decoding(4))
    assert sum(seen) == len({request.image_id for request in asked}) < len(asked)


@pytest.mark.usefixtures("same_draws")
def test_samples_of_a_prompt_differ_share_its_prefill_and_hang_on_nothing_else(world: World, vlm: Vlm) -> None:
    engine, decoding = TransformersEngine(vlm, None, ImageStore(world.tables["images"])), Decoding(12, temperature=1.5, seed=1)
    one = Request(world.column("images", "image_id")[0], QUESTIONS[2])
    asked = [replace(one, sample=sample) for sample in range(6)]
    read: list[int] = []
    engine._model.register_forward_pre_hook(
        lambda module, given, named: read.append(named["input_ids"].shape[0]), with_kwargs=True
    )
    several = [response.completion for response in answered(engine, asked, decoding)]
    assert read[:3] == [1, 1, 1], "prefix, remaining tokens and the check of the first batch: once for all samples"
    assert len(set(several)) > 3
    alone = [answered(engine, [request], decoding)[0].completion for request in asked]
    assert alone == several and len({r.completion for r in answered(engine, [one] * 3, decoding)}) == 1
    assert [r.completion for r in answered(engine, asked, replace(decoding, seed=2))] != several


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 0.95), (2.0, 0.5)])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature: float, top_p: float) -> None:
    """The share of numbers, evenly spread, that give a token is its probability among the likeliest that reach `top_p`."""
    logits = torch.randn(40, generator=torch.Generator().manual_seed(0)) * 2
    numbers = [(i + 0.5) / 20_000 for i in range(20_000)]
    tokens = drawn(logits.expand(len(numbers), -1), temperature, top_p, numbers)
    wanted, total = torch.zeros(40, dtype=torch.float64), 0.0
    for token in sorted(range(40), key=lambda i: -logits[i]):
        if total < top_p:
            wanted[token] = chance = float((logits.double() / temperature).softmax(-1)[token])
            total += chance
    assert torch.allclose(tokens.bincount(minlength=40).double() / len(numbers), wanted / total, atol=2e-4)


@pytest.mark.parametrize("number", [1 - 2**-26, 1 - 2**-53])
def test_the_number_next_to_one_draws_a_token_that_may_be_drawn(number: float) -> None:
    token = drawn(torch.arange(50.0).flip(0)[None] / 50, 1.0, 0.5, [number])
    assert token.item() == (torch.arange(50.0).flip(0) / 50).softmax(-1).cumsum(-1).lt(0.5).sum().item()


def test_a_model_whose_positions_are_others_is_found_out(
    world: World, vlm: Vlm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, asked = ImageStore(world.tables["images"]), requests(world)
    wanted = facts(answered(TransformersEngine(vlm, None, store), asked, Decoding(8)))
    engine = TransformersEngine(vlm, None, store)
    deltas = shared_prefix.SharedPrefix._deltas
    monkeypatch.setattr(shared_prefix.SharedPrefix, "_deltas", lambda self: deltas(self) + 40)
    assert facts(answered(engine, asked, Decoding(8))) == wanted, "all of them, the first batch too"
    assert engine._shared is None
    assert "asked one by one from here on: Qwen2_5_VLForConditionalGeneration gives other logits" in capsys.readouterr().out


def test_prompts_that_differ_before_their_image_are_not_shared(world: World, vlm: Vlm) -> None:
    engine = TransformersEngine(vlm, None, ImageStore(world.tables["images"]))
    image = engine._resized(world.column("images", "image_id")[0])
    texts = [engine._rendered(Request("x", "Which?", system)) for system in ("Be brief.", "Be long.")]
    with pytest.raises(NotShared, match="differ before"):
        shared_prefix.prepare(engine._processor, [shared_prefix.Group(texts, image)], True)


@pytest.mark.parametrize("fits", [1, 3, 7])
def test_out_of_memory_halves_the_batch_and_goes_on(
    world: World, vlm: Vlm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fits: int
) -> None:
    """The device here has memory for `fits` rows."""
    store, decoding = ImageStore(world.tables["images"]), Decoding(4, temperature=1.0)
    asked = [replace(request, sample=sample) for request in requests(world) for sample in range(2)]
    wanted = facts(answered(TransformersEngine(vlm, None, store), asked, decoding))
    prefill, sizes = shared_prefix.SharedPrefix.prefill, []

    def small(self: Any, batch: shared_prefix.Batch, room: int) -> Any:
        sizes.append(len(batch.suffix))
        if len(batch.suffix) > fits:
            raise torch.OutOfMemoryError("too large")
        return prefill(self, batch, room)

    monkeypatch.setattr(shared_prefix.SharedPrefix, "prefill", small)
    engine = TransformersEngine(vlm, None, store)
    assert facts(answered(engine, asked, decoding)) == wanted
    assert max(sizes) > fits and "out of memory with" in capsys.readouterr().out
    fits = 0
    with pytest.raises(UserError, match="one request alone is too large"):
        answered(engine, asked, Decoding(4))


@pytest.mark.parametrize("share", [True, False])
def test_letters_in_one_pass_are_those_that_the_model_would_write_first(world: World, vlm: Vlm, share: bool) -> None:
    """Held against the logits that the model gives each prompt by itself; letters beyond a prompt's options do not count."""
    engine, shown = TransformersEngine(vlm, None, ImageStore(world.tables["images"])), (2, 3, 2, 4)
    asked = [replace(request, options=shown[i % 4]) for i, request in enumerate(requests(world))]
    if not share:
        plain(engine)
    tokenizer = engine._processor.tokenizer
    spelt = [[i for i in range(len(tokenizer)) if tokenizer.decode([i]) in (letter, f" {letter}")] for letter in "ABCD"]
    for request, response in zip(asked, answered(engine, asked, Decoding(1, letters=True)), strict=True):
        inputs = engine._inputs([engine._rendered(request)], [engine._resized(request.image_id)])
        with torch.inference_mode():
            chances = engine._model(**inputs).logits[0, -1].softmax(-1)
        wanted = torch.stack([chances[ids].sum().log() for ids in spelt[: request.options]])
        assert response.letters == pytest.approx(wanted.tolist(), abs=1e-3)
        assert response.completion == "ABCD"[int(wanted.argmax())] and response.completion_tokens == 1
