"""GRPO rewards of VL-Taxon: format 0/1 and accuracy 0/1, read by the same parser as the metrics.

Both are called by TRL with lists of equal length: the completions, and one list per column of the samples.
"""

from collections.abc import Sequence
from typing import Any

from vltaxon.parsing import Form, read_choice, read_listing, read_name, well_formed
from vltaxon.taxonomy import normalise

Completion = list[dict[str, str]]


def format_reward(
    completions: Sequence[Completion], form: Sequence[Form], reasoned: Sequence[bool], **_: Any
) -> list[float | None]:
    """1 for `<think>...</think><answer>...</answer>`, or without reasoning the answer alone; None where no tags are asked for."""
    return [
        float(well_formed(completion[0]["content"], thinks)) if how == "tagged" else None
        for completion, how, thinks in zip(completions, form, reasoned, strict=True)
    ]


def accuracy_reward(
    completions: Sequence[Completion],
    task: Sequence[str],
    form: Sequence[Form],
    leaf: Sequence[str],
    ranks: Sequence[Sequence[str]],
    options: Sequence[Sequence[str]],
    answer_index: Sequence[int | None],
    finish_reason: Sequence[str],
    **_: Any,
) -> list[float]:
    """1 for the right answer: in stage 1 the leaf's name after normalisation, in stage 2 the right letter.

    Where the token limit ended a completion (`length`) a bare name may be half a name, and a letter's text half a text; both are
    read as in inference.
    """
    rows = zip(completions, task, form, leaf, ranks, options, answer_index, finish_reason, strict=True)
    return [float(_right(completion[0]["content"], *row)) for completion, *row in rows]


def _right(
    text: str,
    task: str,
    form: Form,
    leaf: str,
    ranks: Sequence[str],
    options: Sequence[str],
    answer_index: int | None,
    finish_reason: str,
) -> bool:
    if task == "leaf":
        listed = form == "listing"
        name = (read_listing(text, ranks, finish_reason)[0] if listed else read_name(text, form, finish_reason)).answer
        return name is not None and normalise(name) == normalise(leaf)
    index = read_choice(text, options, form, finish_reason).index
    return index is not None and index == answer_index
