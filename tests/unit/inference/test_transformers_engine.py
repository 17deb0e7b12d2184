"""The engine on a random model: what a batch holds must not change what an image is answered."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from PIL import Image

from tests.unit.conftest import World
from vltaxon import checkpoint, prompts
from vltaxon.data.images import ImageStore
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.transformers_engine import TransformersEngine
from vltaxon.provenance import read_parquet
from vltaxon.schemas import IMAGES

pytestmark = pytest.mark.numeric


def requests(world: World) -> list[Request]:
    """Prompts of very different length, so that batches are padded."""
    ids = world.column("images", "image_id")[:10]
    return [
        Request(image_id, "Name it. " * (1 + 5 * (i % 3)), "Be brief." if i % 2 else None)
        for i, image_id in enumerate(ids)
    ]


def answers(engine: TransformersEngine, asked: list[Request], max_new_tokens: int = 6) -> list[Response]:
    given = dict(engine.generate(asked, Decoding(max_new_tokens)))
    assert sorted(given) == list(range(len(asked)))
    return [given[i] for i in range(len(asked))]


@pytest.mark.parametrize("batch_size", [3, 10])
def test_batch_size_changes_nothing(world: World, vlm: Vlm, batch_size: int) -> None:
    asked, store = requests(world), ImageStore(world.tables["images"])
    one = answers(TransformersEngine(vlm.model_copy(update={"batch_size": 1}), None, store), asked)
    many = answers(TransformersEngine(vlm.model_copy(update={"batch_size": batch_size}), None, store), asked)
    for alone, together in zip(one, many, strict=True):
        assert alone.completion == together.completion
        assert (alone.prompt_tokens, alone.completion_tokens) == (
            together.prompt_tokens,
            together.completion_tokens,
        )


@pytest.mark.parametrize(
    "decoding", [Decoding(6), Decoding(6, temperature=0.9, seed=2), Decoding(1, letters=True)]
)
def test_requests_about_no_image_are_answered_as_the_model_does_by_itself_whatever_is_asked_beside_them(
    world: World, vlm: Vlm, decoding: Decoding
) -> None:
    """Texts alone, as a judge of answers has them: no image token, and no look at an image. The model is
    the demo's base.
    """
    base = vlm.model_copy(update={"checkpoint": str(Path(__file__).parents[3] / "src/vltaxon/demo/base")})
    shown = [replace(request, options=2) for request in requests(world)]
    ranks = ("order", "family", "genus")
    said = [f"Which {ranks[i % 3]} is it?\nA. Aurea\nB. Belta{i}" * (1 + i % 2) for i in range(len(shown))]
    texts = [replace(request, image_id=None, text=text) for request, text in zip(shown, said, strict=True)]
    mixed = [request for pair in zip(shown, texts, strict=True) for request in pair]
    store = ImageStore(world.tables["images"])
    engine = TransformersEngine(base.model_copy(update={"batch_size": 4}), None, store)
    given = dict(engine.generate(mixed, decoding))
    for kind, start in ((shown, 0), (texts, 1)):
        alone = TransformersEngine(base.model_copy(update={"batch_size": 1}), None, store)
        for at, response in alone.generate(kind, decoding):
            together = given[2 * at + start]
            assert (response.completion, response.prompt_tokens) == (
                together.completion,
                together.prompt_tokens,
            )
            assert response.image_tokens == together.image_tokens == (0 if start else 4)
    assert engine._shared is not None, "texts share nothing, and images still do"
    if decoding == Decoding(6):
        processor, weights = engine._processor, engine._model
        for at, request in enumerate(texts):
            text = processor.apply_chat_template(
                prompts.conversation(request.text, request.system, image=False),
                tokenize=False,
                add_generation_prompt=True,
            )
            inputs = processor.tokenizer([text], return_tensors="pt")
            with torch.inference_mode():
                new = weights.generate(**inputs, max_new_tokens=6, do_sample=False)[
                    0, inputs["input_ids"].shape[1] :
                ]
            assert processor.tokenizer.decode(new, skip_special_tokens=True) == given[2 * at + 1].completion
    assert decoding.letters or len({given[at].completion for at in range(1, len(mixed), 2)}) > 1


def test_texts_too_many_for_the_device_are_asked_in_smaller_batches(
    world: World, vlm: Vlm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = TransformersEngine(vlm, None, ImageStore(world.tables["images"]))
    asked = [replace(request, image_id=None) for request in requests(world)]
    wanted = [response.completion for response in answers(engine, asked)]
    alone = TransformersEngine._alone

    def small(self: TransformersEngine, groups: Any, *rest: Any) -> Any:
        if len(groups) > 3:
            raise torch.OutOfMemoryError("too large")
        return alone(self, groups, *rest)

    monkeypatch.setattr(TransformersEngine, "_alone", small)
    assert [response.completion for response in answers(engine, asked)] == wanted
    assert "out of memory with 10 rows; going on with 5" in capsys.readouterr().out


def test_tokens_are_counted_without_padding(world: World, vlm: Vlm) -> None:
    engine = TransformersEngine(vlm, None, ImageStore(world.tables["images"]))
    asked = requests(world)
    for request, response in zip(asked, answers(engine, asked), strict=True):
        assert response.image_tokens == 4  # 56 x 56 pixels in patches of 14, merged two by two
        assert response.prompt_tokens > len(request.text.split())
        assert response.completion_tokens <= 6


def test_the_limit_is_a_finish_reason(world: World, vlm: Vlm) -> None:
    engine = TransformersEngine(vlm, None, ImageStore(world.tables["images"]))
    for response in answers(engine, requests(world), max_new_tokens=3):
        assert response.finish_reason == ("length" if response.completion_tokens == 3 else "stop")


def test_an_adapter_changes_the_digest_and_the_answers(world: World, vlm: Vlm, lettered: Path) -> None:
    store, asked = ImageStore(world.tables["images"]), requests(world)
    plain, trained = TransformersEngine(vlm, None, store), TransformersEngine(vlm, lettered, store)
    assert trained.digest.startswith(plain.digest + "+")
    assert [r.completion for r in answers(plain, asked)] != [r.completion for r in answers(trained, asked)]


def test_the_tokenizers_end_counts_where_the_checkpoint_names_none(
    world: World, vlm: Vlm, tmp_path: Path
) -> None:
    processor, weights = checkpoint.load(vlm)
    store, asked = ImageStore(world.tables["images"]), requests(world)[:1]
    text = processor.apply_chat_template(
        prompts.conversation(asked[0].text), tokenize=False, add_generation_prompt=True
    )
    inputs = processor(
        text=[text],
        images=[store.resized(asked[0].image_id, vlm.pixels, vlm.min_pixels)],
        return_tensors="pt",
    )
    first = int(weights.generate(**inputs, max_new_tokens=1, do_sample=False)[0, -1])
    processor.tokenizer.eos_token = processor.tokenizer.convert_ids_to_tokens(first)
    weights.config.text_config.eos_token_id = weights.generation_config.eos_token_id = None
    processor.save_pretrained(tmp_path), weights.save_pretrained(tmp_path)
    (response,) = answers(
        TransformersEngine(vlm.model_copy(update={"checkpoint": str(tmp_path)}), None, store), asked
    )
    assert (response.finish_reason, response.completion_tokens, response.completion) == ("stop", 0, "")


def test_right_padding_is_refused_where_it_would_matter(world: World, vlm: Vlm) -> None:
    engine, asked = TransformersEngine(vlm, None, ImageStore(world.tables["images"])), requests(world)
    wanted = answers(engine, asked, 2)
    engine._processor.tokenizer.padding_side = "right"
    assert [r.completion for r in answers(engine, asked, 2)] == [r.completion for r in wanted], (
        "prefixes are padded by ourselves"
    )
    engine._shared = None
    with pytest.raises(AssertionError, match="right-padded"):
        list(engine.generate(asked, Decoding(2)))


def test_weights_are_in_the_configured_dtype(world: World, vlm: Vlm) -> None:
    half = TransformersEngine(
        vlm.model_copy(update={"dtype": "bfloat16"}), None, ImageStore(world.tables["images"])
    )
    assert next(half._model.parameters()).dtype == torch.bfloat16


def test_only_the_given_texts_can_be_written(world: World, vlm: Vlm) -> None:
    """Of a random model, which without this writes noise; one text is the beginning of another."""
    asked, store = requests(world), ImageStore(world.tables["images"])
    only = ["Genus0", "Genus0 epithet1", "<think>Kingdom: Plantina</think><answer>Genus2 epithet4</answer>"]
    one, many = (TransformersEngine(vlm.model_copy(update={"batch_size": n}), None, store) for n in (1, 8))
    given = [dict(engine.generate(asked, Decoding(60, only=tuple(only)))) for engine in (one, many)]
    said = {response.completion for response in given[0].values()}
    assert said <= set(only) and not said & {response.completion for response in answers(one, asked, 60)}
    assert {response.finish_reason for response in given[0].values()} == {"stop"}
    assert [given[0][i].completion for i in range(10)] == [given[1][i].completion for i in range(10)]
    wanted = dict(one.generate(asked, Decoding(60, only=(only[2],))))
    assert {response.completion for response in wanted.values()} == {only[2]}


def test_a_text_that_the_limit_would_cut_is_refused(world: World, vlm: Vlm) -> None:
    engine = TransformersEngine(vlm, None, ImageStore(world.tables["images"]))
    text = "Genus0 epithet1"
    tokens = len(engine._processor.tokenizer(text)["input_ids"])
    assert dict(engine.generate(requests(world)[:1], Decoding(tokens, only=(text,))))[0].completion == text
    with pytest.raises(UserError, match=f"max_new_tokens is {tokens - 1}, too few for the {tokens} tokens"):
        list(engine.generate(requests(world), Decoding(tokens - 1, only=(text,))))


def test_an_image_that_the_models_own_processor_refuses_is_named(world: World, vlm: Vlm) -> None:
    """Such as 626:1, which was ingested before there was a limit."""
    path = world.folder / "long.png"
    Image.new("RGB", (2000, 4)).save(path)
    rows = [{"image_id": "long", "archive": str(path), "offset": 0, "size": path.stat().st_size}]
    store = ImageStore(
        pa.concat_tables([read_parquet(world.tables["images"]), pa.Table.from_pylist(rows, IMAGES)])
    )
    asked = [*requests(world)[:2], Request("long", "Name it.", None)]
    words = r"long: the image processor of .* refuses it \(1252 x 2 as shown\): .*ratio.*Leave the image out"
    with pytest.raises(UserError, match=words):
        answers(TransformersEngine(vlm, None, store), asked)
