"""How long the samples are in tokens, so that nothing is ever cut to fit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vltaxon import chat
from vltaxon.prepared import Lengths
from vltaxon.train import guards

if TYPE_CHECKING:
    from vltaxon.train.samples import Sample


def measure_lengths(samples: Sequence["Sample"], rows: Any, processor: Any) -> Lengths:
    """Render every sample as it is trained, check its image placeholder, and count its tokens.

    The longest by its words is counted with its pixels: all images have about as many.

    Args:
        samples: all of a step.
        rows: the same as TRL takes them, with images.
        processor: of the base model.

    Raises:
        UserError: a sample has no place for its image, or several.
    """
    tokens = processor.tokenizer
    rendered = [chat.render_answered(processor, s.prompt, s.completion) for s in samples]
    texts = map("".join, rendered)
    guards.check_placeholders(zip((s.image_id for s in samples), texts, strict=True), processor.image_token)
    prompts = [len(ids) for ids in tokens([prompt for prompt, _ in rendered])["input_ids"]]
    answers = [len(ids) for ids in tokens([completion for _, completion in rendered])["input_ids"]]
    learnt = [  # of several turns the questions between the answers are not
        len(tokens(s.target + "".join(t for _, t in s.turns))["input_ids"]) if s.turns else n
        for s, n in zip(samples, answers, strict=True)
    ]
    worst = max(range(len(samples)), key=lambda i: prompts[i] + answers[i])
    inputs = processor(text=[rendered[worst][0]], images=[rows[worst]["image"]], return_tensors="pt")
    return Lengths(inputs["input_ids"].shape[1] + answers[worst], sum(learnt) / len(learnt))
