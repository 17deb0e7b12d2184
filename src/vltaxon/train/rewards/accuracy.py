"""The accuracy reward of VL-Taxon: 1 for a right answer, exactly where the metrics count it right, else 0."""

from collections.abc import Sequence

from vltaxon.parsing import Form, read_choice, read_listing, read_name
from vltaxon.taxonomy import normalise
from vltaxon.train.rewards import Completion


def reward(
    completions: Sequence[Completion],
    task: Sequence[str],
    form: Sequence[Form],
    leaf: Sequence[str],
    ranks: Sequence[Sequence[str]],
    options: Sequence[Sequence[str]],
    answer_index: Sequence[int | None],
    finish_reason: Sequence[str],
    **_: object,
) -> list[float | None]:
    """Return 1 for the right answer: the leaf's name after normalisation in stage 1, the letter in stage 2.

    Where the token limit ended a completion (`length`) a bare name may be half a name, and a letter's text
    half a text; both are read as in inference.

    Args:
        completions: what the model wrote.
        task: `leaf` or `answer`.
        form: how each was to be answered.
        leaf: name of the image's leaf.
        ranks: names of the levels, root first.
        options: of the question, empty in stage 1.
        answer_index: which option is right, None in stage 1.
        finish_reason: why each completion ended.
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
        reading = (
            read_listing(text, ranks, finish_reason, {normalise(leaf)})[0]
            if form == "listing"
            else read_name(text, form, finish_reason)
        )
        return reading.answer is not None and normalise(reading.answer) == normalise(leaf)
    index = read_choice(text, options, form, finish_reason).index
    return index is not None and index == answer_index
