"""Chat templates that begin the reasoning, or leave it empty: what is read, rewarded, trained and asked."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.data.families import LLAVA
from tests.unit.conftest import LORA, PROMPTS, RANKS, TEMPLATE, World, lineage, step, train
from tests.unit.inference.tasks import asking, leaf_task
from vltaxon import chat, checkpoint, prompts, provenance, schemas
from vltaxon.config.protocols import Stage
from vltaxon.config.steps import Samples
from vltaxon.data.images import ImageStore
from vltaxon.engines.transformers import Vlm
from vltaxon.errors import UserError
from vltaxon.inference import run
from vltaxon.inference.engine import Decoding, Request
from vltaxon.inference.local_model import identity
from vltaxon.inference.transformers_engine import TransformersEngine
from vltaxon.prepared import Lengths, Prepared
from vltaxon.train import adapter, arguments, samples
from vltaxon.train.objectives import sft

pytestmark = pytest.mark.numeric

_PARTS = (
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
)
# as thinking models of the Qwen family have it: what an assistant has said is taken apart and put together
_SAID = (
    "{% set text = m['content'][0]['text'] %}{% set thought = '' %}{% if '</think>' in text %}"
    "{% set thought = text.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}"
)
_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    + _SAID
    + "<think>\n{{ thought }}\n</think>\n\n{{ text }}{% else %}"
    + _PARTS
    + "{% endif %}<|im_end|>\n{% endfor %}"
)
TEMPLATES = {
    "thinks": _TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
    "may think": _TURNS
    + "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and "
    "enable_thinking is false %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}",
    "has a space more": LLAVA.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>"),
    "opens and does not take apart": TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"),
}
REASONED = Samples(task="leaf", prompt="stage1")
NAMED = Samples(task="leaf", prompt="stage1", target="answer")
STAGE = Stage(name="leaf", prompt="stage1", max_new_tokens=200, constrained=True)


@pytest.fixture
def templated(vlm: Vlm, tmp_path: Path) -> Callable[..., Vlm]:
    """The tiny model with another chat template, and values of its variables."""

    def make(name: str, **options: Any) -> Vlm:
        folder = tmp_path / name.replace(" ", "_")
        shutil.copytree(vlm.checkpoint, folder, dirs_exist_ok=True)
        (folder / "chat_template.jinja").write_text(TEMPLATES[name])
        given = vlm.model_dump() | {"checkpoint": str(folder), "template": options}
        return Vlm.model_validate(given)

    return make


def test_what_the_prompt_has_begun_is_part_of_what_is_read(
    world: World, templated: Callable[..., Vlm]
) -> None:
    """A thought that does not end is none of the answer, and one that ends is read whole."""
    ids = world.column("images", "image_id")[:3]
    engine = TransformersEngine(templated("thinks"), None, ImageStore(world.tables["images"]))
    some = [Request(image_id, "Name it.") for image_id in ids]
    for _, response in engine.generate(some, Decoding(6)):
        assert response.completion.startswith("<think>") and response.completion_tokens == 6
    whole = prompts.completion("Genus1 epithet3", "tagged", prompts.stated(RANKS, lineage(3)))
    for _, response in engine.generate(some, Decoding(200, only=(whole,))):
        assert response.completion == whole
    with pytest.raises(UserError, match=r"read: letters: .*enable_thinking: false"):
        list(engine.generate(some, Decoding(1, letters=True)))


def test_a_job_of_a_thinking_model_reads_lineages(world: World, templated: Callable[..., Vlm]) -> None:
    asked, output = asking(STAGE, PROMPTS["stage1"], templated("thinks")), world.folder / "leaf.parquet"
    run.predict_leaf(leaf_task(world, output, asked))
    rows = provenance.read_parquet(output, schemas.PREDICTIONS).to_pylist()
    assert len(rows) == 8 and {row["outcome"] for row in rows} == {"answered"}
    species = {lineage(i)[-1]: list(lineage(i)) for i in range(8)}
    assert all(row["lineage"] == species[row["answer"]] for row in rows)


def rewards(world: World, model: Vlm, said: str) -> list[list[float | None]]:
    """What GRPO's trainer gives a completion about species 4 by each of its rewards."""
    what = step("grpo", samples=(REASONED,))
    drawn = samples.draw(world.task(what))
    rows = samples.dataset(drawn, ImageStore(world.tables["images"]), model.pixels, model.min_pixels)
    processor, base = checkpoint.load(model)
    policy = adapter.with_adapter(base, LORA, None)
    options = arguments.common_arguments(world.task(what, model), world=1, gpu=False)
    trainer = what.trainer(Prepared(policy, processor, rows, options, Lengths(0, 0)))  # type: ignore[attr-defined]
    columns = {
        "completions": [[{"role": "assistant", "content": said}]],
        "completion_ids": [[7, processor.tokenizer.eos_token_id]],
        "task": ["leaf"], "form": ["tagged"], "reasoned": [True], "leaf": [lineage(4)[-1]], "ranks": [RANKS],
        "options": [[]], "answer_index": [None],
    }  # fmt: skip
    return [
        function(**columns, prompts=[None], level=[None], log_metric=lambda name, value: None)
        for function in trainer.reward_funcs
    ]


def test_grpo_rewards_what_the_prompt_and_the_model_say_together(
    world: World, vlm: Vlm, templated: Callable[..., Vlm]
) -> None:
    half = f"Genus: Genus2</think>\n\n<answer>{lineage(4)[-1]}</answer>"
    assert rewards(world, templated("thinks"), half) == [[1], [1]]
    assert rewards(world, vlm, half) == [[0], [1]], "the reasoning was not begun by the prompt"
    assert rewards(world, vlm, f"<think>{half}") == [[1], [1]]


@pytest.mark.parametrize(
    ("template", "options", "kinds"),
    [
        ("thinks", {}, (REASONED,)),
        ("may think", {}, (REASONED,)),
        ("may think", {"enable_thinking": False}, (NAMED,)),
        ("opens and does not take apart", {}, (REASONED,)),
        ("has a space more", {}, (REASONED, NAMED)),
    ],
)
def test_what_is_trained_is_what_is_asked(
    world: World, templated: Callable[..., Vlm], template: str, options: dict[str, Any], kinds: Any
) -> None:
    trained = train(world, templated(template, **options), "o", step(samples=kinds))
    assert (trained / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    ("template", "options", "kinds", "words"),
    [
        (
            "may think",
            {"enable_thinking": False},
            (REASONED,),
            r"trained otherwise than it is asked: .*assistant\\n<think>\\n', the other .*\\n\\n</think>",
        ),
        (
            "may think",
            {},
            (NAMED,),
            r"teaches '<think>.*', which is not read as the right answer in the form",
        ),
    ],
)
def test_what_is_trained_otherwise_than_asked_is_refused(
    world: World,
    templated: Callable[..., Vlm],
    template: str,
    options: dict[str, Any],
    kinds: Any,
    words: str,
) -> None:
    with pytest.raises(UserError, match=words):
        train(world, templated(template, **options), "o", step(samples=kinds))
    assert not (world.folder / "o").exists()


def test_an_answer_stands_behind_the_prompt_as_it_is_asked(templated: Callable[..., Vlm]) -> None:
    said = [
        {"role": "assistant", "content": [{"type": "text", "text": "<think>K</think><answer>B</answer>"}]}
    ]
    question = prompts.conversation("Which?")
    for template, behind in (
        ("thinks", "K\n</think>\n\n<answer>B</answer><|im_end|>\n"),
        ("opens and does not take apart", "K</think><answer>B</answer><|im_end|>\n"),
        ("has a space more", "<think>K</think><answer>B</answer><|im_end|>"),
    ):
        processor = checkpoint.load(templated(template))[0]
        asked = chat.render(processor, question)
        assert chat.render_answered(processor, question, said) == (asked, behind)


def test_options_of_the_template_are_in_the_identity_where_they_are_given(
    templated: Callable[..., Vlm], vlm: Vlm
) -> None:
    assert "template" not in identity(vlm, "w")
    set_ = templated("may think", enable_thinking=False)
    assert identity(set_, "w") == identity(vlm, "w") | {"template": {"enable_thinking": False}}
    processor = checkpoint.load(set_)[0]
    asked = chat.render(processor, prompts.conversation("Name it."))
    assert asked.endswith("Name it.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not chat.opens_reasoning(processor)
    assert chat.opens_reasoning(checkpoint.load(templated("may think"))[0])
    with pytest.raises(UserError, match=r'template: "enable_thinkin" is not .*enable_thinking'):
        checkpoint.load(templated("may think", enable_thinkin=False))
    for bad in ({"messages": "x"}, {"a b": 1}, {"depth": [1]}):
        with pytest.raises(ValidationError, match="template"):
            templated("may think", **bad)


def test_a_special_token_in_what_a_prompt_is_filled_with_is_refused(world: World, vlm: Vlm) -> None:
    engine = TransformersEngine(vlm, None, ImageStore(world.tables["images"]))
    for text in ("Is it a <|im_end|>?", "A. <|image_pad|>\nB. Rosa"):
        with pytest.raises(UserError, match=r"a prompt holds <\|im(_end|age_pad)\|>, a special token of"):
            list(engine.generate([Request(world.column("images", "image_id")[0], text)], Decoding(2)))


def test_a_special_token_in_a_sample_is_refused(world: World, vlm: Vlm) -> None:
    taxa = [taxon.replace("Genus1 epithet3", "<|im_end|>") for taxon in world.column("taxa", "taxon")]
    world.rewrite("taxa", "taxon", taxa)
    with pytest.raises(UserError, match=r"the sample of train/3_\d holds <\|im_end\|>, a special token"):
        train(world, vlm, "o", step())


def test_marks_that_the_tokenizer_would_drop_are_refused(vlm: Vlm, tmp_path: Path) -> None:
    from transformers import AddedToken

    processor, weights = checkpoint.load(vlm)
    processor.tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken("<think>"), AddedToken("</think>")]}
    )
    processor.save_pretrained(tmp_path), weights.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="</think>, <think> are special tokens of its tokenizer"):
        checkpoint.load(vlm.model_copy(update={"checkpoint": str(tmp_path)}))


def test_an_ordinary_template_is_trained_as_trl_renders_it(world: World, vlm: Vlm) -> None:
    """Token by token, so that adapters which were trained before are what they would be now."""
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    drawn = samples.draw(world.task(step(samples=(REASONED, NAMED))))[:4]
    rows = samples.dataset(drawn, ImageStore(world.tables["images"]), vlm.pixels, vlm.min_pixels)
    processor = checkpoint.load(vlm)[0]
    collate = DataCollatorForVisionLanguageModeling(processor, max_length=None, completion_only_loss=True)
    plain, ours = (one([rows[i] for i in range(4)]) for one in (collate, sft._as_asked(collate, processor)))
    assert plain.keys() == ours.keys() and (plain["labels"] != -100).any()
    assert all(torch.equal(plain[name], ours[name]) for name in plain)
