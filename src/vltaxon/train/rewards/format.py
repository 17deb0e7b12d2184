"""The format reward of VL-Taxon: whether a completion has the form that was asked for, 0 or 1."""

from collections.abc import Sequence

from vltaxon.parsing import Form, well_formed
from vltaxon.train.rewards import Completion


def reward(
    completions: Sequence[Completion], form: Sequence[Form], reasoned: Sequence[bool], **_: object
) -> list[float | None]:
    """Return 1 for `<think>...</think><answer>...</answer>`, or the answer alone without reasoning asked for.

    Args:
        completions: what the model wrote.
        form: how each was to be answered; None is returned where no tags were asked for.
        reasoned: whether reasoning was asked for.
    """
    return [
        float(well_formed(completion[0]["content"], thinks)) if how == "tagged" else None
        for completion, how, thinks in zip(completions, form, reasoned, strict=True)
    ]
