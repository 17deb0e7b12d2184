"""A reward of ours: whether the reasoning goes down to the rank that was asked for, and no further, 0 or 1.

The paper's format reward looks at the tags alone. Then reasoning that goes on below the asked rank is as good
as any, and the letter follows the rank that was named last: levels are lost while the mean reward rises.
"""

import re
from collections.abc import Sequence
from itertools import groupby

from vltaxon.parsing import Form, well_formed
from vltaxon.train.rewards import Completion

_REASONING = re.compile(r"<think>(.*)</think>", re.DOTALL)


def reward(
    completions: Sequence[Completion],
    form: Sequence[Form],
    ranks: Sequence[Sequence[str]],
    stated: Sequence[Sequence[str]],
    **_: object,
) -> list[float | None]:
    """Return 1 for reasoning in tags that names the ranks that it was to name, each once, root first.

    Args:
        completions: what the model wrote.
        form: how each was to be answered.
        ranks: names of the levels, root first.
        stated: of these, the ones that the reasoning is to name; where none is to be named, or no tags were
            asked for, None is returned.
    """
    rows = zip(completions, form, ranks, stated, strict=True)
    return [
        float(_named(completion[0]["content"], known) == [rank.casefold() for rank in wanted])
        if how == "tagged" and wanted
        else None
        for completion, how, known, wanted in rows
    ]


def _named(text: str, ranks: Sequence[str]) -> list[str] | None:
    """Return the ranks that the reasoning of a completion names, in its order; None if it has no form."""
    if not well_formed(text):
        return None
    reasoning = _REASONING.search(text)
    assert reasoning is not None, "a well-formed completion has reasoning"
    known = "|".join(re.escape(rank.casefold()) for rank in ranks)
    words = re.findall(rf"\b(?:{known})\b", reasoning[1].casefold())
    return [word for word, _ in groupby(words)]
