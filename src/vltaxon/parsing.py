"""The one parser of model output, used by the rewards and the metrics alike.

It is anchored and strict: it reads what was explicitly given as the answer, in the letters actually shown, or
nothing. It never guesses, never takes the last letter, and never turns silence into a wrong answer.
"""

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from vltaxon.taxonomy import LONGEST, MARK, normalise

Form = Literal["tagged", "bare", "listing"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_TAG = re.compile(r"</?(?:think|answer)>")
_INSIDE = r"(?:(?!</?(?:think|answer)>).)"
_ANSWER_ALONE = re.compile(rf"\s*<answer>{_INSIDE}+</answer>\s*", re.DOTALL)
_WELL_FORMED = re.compile(rf"\s*<think>{_INSIDE}*</think>{_ANSWER_ALONE.pattern}", re.DOTALL)
_CUE = re.compile(r"\b(?:answer|option|choice)(?:\s+is|\s*:)\s*", re.IGNORECASE)
# A letter behind a cue, unless more letters or, for A, a word follows: "A or B", "B and option C", "A common
# oak" choose nothing.
# What repeats takes all it can for good (`*+`): to try less would take a time that grows as the square.
_OTHER = r"\W*+(?:option\s+|choice\s+)?[A-Z]\b"
_CUED = re.compile(
    rf"[*(\[\"']*([A-Z])(?![A-Za-z])(?!\W*+(?:or|and)\s{_OTHER})(?![^\w,/&]*+[,/&]{_OTHER})"
    r"(?!\s+[A-Z]\b)(?!(?<=A)\s+[a-z])"
)
_END = re.compile(r"[;,]|->|\u2192")  # of a name
_LETTER = re.compile(r"[(\[\"']*([A-Za-z])[)\]\"'.:]*")
_LETTER_TEXT = re.compile(r"\(?([A-Za-z])(?:[).:]\s*|\s+)(.+)", re.DOTALL)
_REFUSAL = re.compile(
    r"\s*(?:i(?:'|\u2019)?m sorry|sorry|i (?:can(?:no|'|\u2019)t|cannot|am unable|won(?:'|\u2019)t)"
    r"|as an ai|unable to)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Reading:
    """What a completion says. `answer` and `index` are None unless `outcome` is `answered`."""

    outcome: str
    answer: str | None = None
    index: int | None = None
    reasoning: str | None = None


def well_formed(completion: str, reasoned: bool = True) -> bool:
    """Return whether a completion is `<think>...</think><answer>...</answer>` and nothing else.

    Each tag stands once, and the answer is not empty.

    Args:
        completion: model output, untrusted.
        reasoned: whether the reasoning must be there; else `<answer>...</answer>` must stand alone.
    """
    return (_WELL_FORMED if reasoned else _ANSWER_ALONE).fullmatch(completion) is not None


def _between(text: str, start: str, end: str) -> str | None:
    """Return what stands between the first `start` and the next `end`, None where one is missing.

    This takes linear time; a lazy regex takes quadratic time in repeated tags.
    """
    _, opened, rest = text.partition(start)
    inside, closed, _ = rest.partition(end)
    return inside.strip() if opened and closed else None


def reasoning_of(completion: str) -> str | None:
    """Return the text between the first `<think>` and its `</think>`, None where there is none.

    Where only the end is marked the prompt has begun the reasoning: it is all that stands before.
    """
    inside = _between(completion, "<think>", "</think>")
    before, closed, _ = completion.partition("</think>")
    return before.strip() if inside is None and closed and "<think>" not in before else inside


def restore(completion: str, opened: bool = False, reasoning: str | None = None) -> str:
    """Return all that an assistant says, its reasoning marked, where that was begun or came elsewhere.

    Args:
        completion: what it wrote.
        opened: whether the prompt ends in `<think>`, so that the completion goes on behind it.
        reasoning: that came apart from the completion. It has no marks of ours but the two around it, of
            which the last is left out where no answer follows.
    """
    if reasoning and "<think>" not in completion:
        inside = _TAG.sub("", reasoning).strip()
        return f"<think>{inside}</think>{completion}" if completion.strip() else f"<think>{inside}"
    return f"<think>{completion}" if opened and not completion.lstrip().startswith("<think>") else completion


def _body(completion: str, form: Form) -> str | None:
    """Return the part of a completion that is the answer, None where none is marked as such."""
    closed = completion.rpartition("</think>")[2]
    if "<think>" in closed:
        return None
    tags = completion.count("<answer>"), completion.count("</answer>")
    if tags == (1, 1):
        return _between(closed, "<answer>", "</answer>")
    if tags != (0, 0) or form == "tagged":
        return None
    return closed.strip()


def _nothing(completion: str, finish_reason: str) -> str:
    if not completion.strip():
        return "truncated" if finish_reason == "length" else "empty"
    if finish_reason == "length":
        return "truncated"
    return "refused" if _REFUSAL.match(completion.rpartition("</think>")[2]) else "unparsed"


def _index(body: str, options: Sequence[str], form: Form, cut: bool) -> int | None:
    """Return the index of the option that a body means, None where it means none or more than one.

    Where `cut`, the token limit ended it, so the beginning of an option's text behind its letter is enough.
    """
    whole, body = body.strip(), body.strip().strip("*").strip()
    shown, keys = LETTERS[: len(options)], [normalise(option) for option in options]

    def of(letter: str) -> int | None:
        return shown.index(letter.upper()) if letter.upper() in shown else None

    if (alone := _LETTER.fullmatch(body)) and (index := of(alone.group(1))) is not None:
        return index
    for said in dict.fromkeys((body, whole)):  # asterisks are emphasis, unless they are the option's own
        if keys.count(normalise(said)) == 1:
            return keys.index(normalise(said))
        if (both := _LETTER_TEXT.fullmatch(said)) and (index := of(both.group(1))) is not None:
            text = normalise(both.group(2))
            if text == keys[index] or (cut and keys[index].startswith(text)):
                return index
    cues = list(_CUE.finditer(body)) if form == "bare" else []
    if cues and keys.count(normalise(body[cues[0].end() :])) == 1:
        return keys.index(normalise(body[cues[0].end() :]))
    letters = {letter.group(1) for cue in cues if (letter := _CUED.match(body, cue.end()))}
    return of(letters.pop()) if len(letters) == 1 else None


def read_choice(completion: str, options: Sequence[str], form: Form, finish_reason: str = "stop") -> Reading:
    """Read the option that a completion chooses.

    Args:
        completion: model output, untrusted.
        options: the options shown, in the order of their letters.
        form: `tagged` accepts only one `<answer>...</answer>` after the reasoning; `bare` also a lone letter,
            `Answer: B`, or one option's exact text.
        finish_reason: `stop`, or `length` where the token limit cut the output.
    """
    body = _body(completion, form)
    cut = finish_reason == "length" and "</answer>" not in completion  # an answer that is closed was not cut
    index = _index(body, options, form, cut) if body else None
    if index is None:
        return Reading(_nothing(completion, finish_reason), reasoning=reasoning_of(completion))
    return Reading("answered", options[index], index, reasoning_of(completion))


def read_name(completion: str, form: Form, finish_reason: str = "stop") -> Reading:
    """Read the taxon that a completion names (stage 1), as written; compare it by `taxonomy.normalise`.

    Args:
        completion: model output, untrusted.
        form: `tagged` accepts only one `<answer>...</answer>` after the reasoning; `bare` the whole text too.
        finish_reason: `stop`, or `length` where the token limit cut the output.
    """
    body = _body(completion, form)
    if not body or not normalise(body) or MARK.search(body) or (form == "bare" and finish_reason == "length"):
        return Reading(_nothing(completion, finish_reason), reasoning=reasoning_of(completion))
    return Reading("answered", body, None, reasoning_of(completion))


@cache
def _statement(ranks: Sequence[str]) -> re.Pattern[str]:
    """Return what `Rank:` looks like."""
    known = "|".join(re.escape(rank) for rank in sorted(ranks, key=len, reverse=True))
    return re.compile(rf"(?<!\w)({known})(?!\w)[*_`]*\s*[:=][*_`]*\s*", re.IGNORECASE)


def read_lineage(
    reasoning: str | None, ranks: Sequence[str], odd: Container[str] = frozenset()
) -> list[str | None]:
    """Read the `Rank: name` statements of a reasoning.

    A name ends at the next rank, a line's end, `;`, `,` or an arrow; emphasis and bullets do not count. Names
    that would not be read back so are read as they are where they are known, the longest first.

    Args:
        reasoning: text to read; None is read like an empty one.
        ranks: names of the levels, root first.
        odd: the keys of such names, see `odd_names`.

    Returns:
        One entry per rank, None where its taxon is not named or is named in two ways.
    """
    text, named = reasoning or "", dict[str, dict[str, str]]()
    statements = list(_statement(tuple(ranks)).finditer(text))
    ends = [*(statement.start() for statement in statements[1:]), len(text)]
    for statement, end in zip(statements, ends, strict=False):
        line = text[statement.end() : end].partition("\n")[0]
        name = _odd_name(line, odd) or _END.split(line, maxsplit=1)[0].strip().strip(" *_`-.>")
        if name:
            named.setdefault(statement.group(1).casefold(), {})[normalise(name)] = name
    return [
        next(iter(names.values())) if len(names := named.get(rank.casefold(), {})) == 1 else None
        for rank in ranks
    ]


def _odd_name(line: str, odd: Container[str]) -> str | None:
    """Return the longest of the odd names that a line begins with, up to where a name may end."""
    if not odd:
        return None
    line = line[: 2 * LONGEST]
    ends = (len(line), *sorted({m.start() for m in _END.finditer(line)})[::-1])
    begun = (name for end in ends for name in (line[:end].strip(), line[:end].strip(" *_`")))
    return next((name for name in begun if normalise(name) in odd), None)


def odd_names(ranks: Sequence[str], taxa: Iterable[str | None]) -> frozenset[str]:
    """Return the keys of the taxa that are not read back from `Rank: name` as any text is read.

    Args:
        ranks: names of the levels, root first.
        taxa: names, of whatever levels, some of them often; None does not count.
    """
    rank, names = ranks[:1], {taxon for taxon in taxa if taxon is not None}
    read = {normalise(taxon): read_lineage(f"{rank[0]}: {taxon}", rank)[0] for taxon in names}
    return frozenset(key for key, name in read.items() if name is None or normalise(name) != key)


def read_listing(
    completion: str, ranks: Sequence[str], finish_reason: str = "stop", odd: Container[str] = frozenset()
) -> tuple[Reading, list[str | None]]:
    """Read a lineage that is written without tags; the answer is its deepest taxon.

    What stands behind a thought is the answer, unless it names no taxon.

    Args:
        completion: model output, untrusted.
        ranks: names of the levels, root first.
        finish_reason: `stop`, or `length` where the token limit cut the output.
        odd: the keys of names that hold what ends other names, see `odd_names`.

    Returns:
        The reading, `unparsed` where no taxon is named, and the lineage, one entry per rank.
    """
    lineage = read_lineage(completion.rpartition("</think>")[2], ranks, odd)
    if not any(lineage):
        lineage = read_lineage(_TAG.sub("\n", completion), ranks, odd)
    deepest = next((taxon for taxon in reversed(lineage) if taxon is not None), None)
    if finish_reason == "length" or deepest is None:  # a name that the token limit cut is not a name
        return Reading(_nothing(completion, finish_reason), reasoning=completion), lineage
    return Reading("answered", deepest, reasoning=completion), lineage


def published_index(completion: str, options: Sequence[str]) -> int | None:
    """Return the option that the benchmark's own rule reads: the first of A, B, C, D contained anywhere.

    It is only for reproducing the benchmark's numbers.

    Args:
        completion: model output, untrusted.
        options: the options shown, in the order of their letters.
    """
    first = next((i for i, letter in enumerate("ABCD") if letter in completion), None)
    return first if first is not None and first < len(options) else None
