"""Prompts as data: templates of config/prompts/, filled with a data set's wording and a question.

The forms in which a model is to answer are here too.
"""

import string
from collections.abc import Sequence
from typing import Any

from vltaxon.parsing import LETTERS, Form

FIELDS = frozenset({"word", "rank", "ranks", "question", "options", "leaf"})


def fields(template: str) -> set[str]:
    """Return the names of the placeholders of a template."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def listed(options: Sequence[str]) -> str:
    """Return the options as the benchmark shows them: `A. x`, one a line."""
    return "\n".join(f"{LETTERS[i]}. {option}" for i, option in enumerate(options))


def stated(ranks: Sequence[str], lineage: Sequence[str | None]) -> str:
    """Return a lineage in words: `Kingdom: K; Phylum: P`.

    Args:
        ranks: names of the levels, root first.
        lineage: taxa, root first, as far down as they are to be stated; a missing rank (None) is left out.
    """
    return "; ".join(
        f"{rank.capitalize()}: {taxon}"
        for rank, taxon in zip(ranks, lineage, strict=False)
        if taxon is not None
    )


def completion(answer: str, form: Form, reasoning: str | None) -> str:
    """Return what a model is to write: the answer in its form, after the reasoning where there is any.

    Args:
        answer: the option's text or the taxon.
        form: `tagged`, `bare`, or `listing`, which is the reasoning alone.
        reasoning: text before the answer, None where there is none.
    """
    if form == "listing":
        return reasoning or ""
    marked = f"<answer>{answer}</answer>" if form == "tagged" else answer
    return marked if reasoning is None else f"<think>{reasoning}</think>{marked}"


def fill(template: str, **values: str) -> str:
    """Fill the placeholders of a template.

    Values are inserted as they are: braces in a model's own words are not read as placeholders.

    Args:
        template: text with placeholders in braces.
        **values: text for each placeholder.
    """
    return template.format(**values)


def conversation(text: str, system: str | None = None, image: bool = True) -> list[dict[str, Any]]:
    """Return chat messages with the image before the text, so all questions of an image share their prefix.

    Args:
        text: the user's text.
        system: system text, None where there is none.
        image: whether an image is shown.
    """
    user = {"role": "user", "content": [{"type": "image"}] * image + [{"type": "text", "text": text}]}
    return ([{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []) + [user]


def render(
    text: str,
    wording: str,
    word: str,
    ranks: Sequence[str],
    rank: str = "",
    options: Sequence[str] = (),
    leaf: str = "",
) -> str:
    """Fill a prompt for one request, the same in training and in inference.

    Args:
        text: template of config/prompts.
        wording: the benchmark's question in the data set's variant (config/questions).
        word: what the data set calls the organism.
        ranks: names of its levels, root first.
        rank: the level asked about; empty in stage 1.
        options: the options in the order of their letters.
        leaf: the name that stage 1 gave.
    """
    question = fill(wording, word=word, rank=rank)
    return fill(
        text,
        word=word,
        rank=rank,
        ranks=", ".join(ranks),
        question=question,
        options=listed(options),
        leaf=leaf,
    )
