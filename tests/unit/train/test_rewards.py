"""Adversarial completions, each with the reward it must get."""

import pytest

from vltaxon import parsing
from vltaxon.taxonomy import normalise
from vltaxon.train.rewards.accuracy import reward as accuracy_reward
from vltaxon.train.rewards.format import reward as format_reward
from vltaxon.train.rewards.lineage import reward as lineage_reward

LEAF = "Rosa canina"
OPTIONS = ["Rosaceae", "Fabaceae", "Poaceae", "Rosa"]  # right: B
THINK = "<think>Kingdom: Plantae; Genus: Rosa; Species: Rosa canina</think>"

FORMAT = [
    (f"{THINK}<answer>Rosa canina</answer>", 1, "the target itself"),
    (f"{THINK}\n\n<answer>B</answer>\n", 1, "space between and after"),
    ("<think></think><answer>B</answer>", 1, "empty reasoning is still reasoning in form"),
    ("", 0, "nothing"),
    ("<answer>B</answer>", 0, "no reasoning"),
    (THINK, 0, "no answer"),
    (f"{THINK}<answer></answer>", 0, "empty answer"),
    (f"<answer>B</answer>{THINK}", 0, "answer before reasoning"),
    (f"{THINK}<answer>A</answer><answer>B</answer>", 0, "two answers"),
    (f"{THINK}{THINK}<answer>B</answer>", 0, "two reasonings"),
    (f"{THINK}<answer>B</answer> I am sure.", 0, "words after the answer"),
    (f"Well. {THINK}<answer>B</answer>", 0, "words before the reasoning"),
    (f"{THINK}<answer>B", 0, "truncated answer"),
    ("<think>Kingdom: Plantae; Gen", 0, "truncated reasoning"),
    ("<think>x<answer>B</answer></think>", 0, "answer inside the reasoning"),
    (f"{THINK.upper()}<ANSWER>B</ANSWER>", 0, "upper-case tags"),
    (f"<b>{THINK}</b><answer>B</answer>", 0, "other mark-up around"),
    ("<think>" * 20_000, 0, "huge, unclosed"),
    (f"<think>{'x ' * 100_000}</think><answer>B</answer>", 1, "huge reasoning"),
]

NAMES = [
    (f"{THINK}<answer>Rosa canina</answer>", 1, "right"),
    ("<answer>Rosa canina</answer>", 1, "right without reasoning: accuracy and format are two rewards"),
    (f"{THINK}<answer>  rosa   CANINA. </answer>", 1, "case, spaces, full stop"),
    (f"{THINK}<answer></answer>", 0, "an empty answer is a part of every name"),
    (f"{THINK}<answer> . </answer>", 0, "empty after normalisation"),
    (f"{THINK}<answer>Rosa canina, Rosa gallica, Rosa rugosa</answer>", 0, "all names listed"),
    (f"{THINK}<answer>Rosa canina or Rosa gallica</answer>", 0, "two names"),
    (f"{THINK}<answer>Rosa canina var. lutetiana</answer>", 0, "the name inside a longer one"),
    (f"{THINK}<answer>Rosa</answer>", 0, "the genus, a prefix of the name"),
    (f"{THINK}<answer>Rosa canina</answer><answer>Rosa gallica</answer>", 0, "two answers, the first right"),
    (f"{THINK}<answer>Rosa gallica</answer><answer>Rosa canina</answer>", 0, "two answers, the last right"),
    (f"<answer>Rosa canina</answer>{THINK}", 0, "answer before reasoning"),
    ("<think>It is <answer>Rosa canina</answer>", 0, "reasoning never closed"),
    (THINK, 0, "right in the reasoning only"),
    ("Rosa canina", 0, "right but unmarked"),
    (f"{THINK}<answer>Rosa canina", 0, "truncated"),
    (f"{THINK}<answer><b>Rosa canina</b></answer>", 0, "html inside"),
    (f"{THINK}<answer>R\u043esa canina</answer>", 0, "a Cyrillic letter"),
    (f"{THINK}<answer>Rosa\u00a0canina</answer>", 1, "a no-break space is a space"),
    (f"{THINK}<answer>{'Rosa canina ' * 50000}</answer>", 0, "huge"),
    ("<answer>" * 20_000, 0, "huge, unclosed"),
]

LETTERS = [
    (f"{THINK}<answer>B</answer>", 1, "right"),
    (f"{THINK}<answer>b</answer>", 1, "lower-case letter"),
    (f"{THINK}<answer>(B)</answer>", 1, "in brackets"),
    (f"{THINK}<answer>B. Fabaceae</answer>", 1, "letter and its text"),
    (f"{THINK}<answer>Fabaceae</answer>", 1, "the text of one option"),
    (f"{THINK}<answer>B. Rosaceae</answer>", 0, "letter and text disagree"),
    (f"{THINK}<answer>A</answer>", 0, "wrong"),
    (f"{THINK}<answer>E</answer>", 0, "a letter beyond the options"),
    (f"{THINK}<answer>A, B, C, D</answer>", 0, "all options listed"),
    (f"{THINK}<answer>ABCD</answer>", 0, "all letters"),
    (f"{THINK}<answer>A or B</answer>", 0, "two letters"),
    (f"{THINK}<answer>A</answer><answer>B</answer>", 0, "two answers"),
    (f"{THINK}<answer></answer>", 0, "empty answer"),
    (f"<answer>B</answer>{THINK}", 0, "answer before reasoning"),
    ("<think>Option A is out. The answer is B</think>", 0, "right in the reasoning only"),
    ("B", 0, "bare where tags are asked for"),
    (f"{THINK}<answer>B", 0, "truncated"),
    (f"{THINK}<answer><i>B</i></answer>", 0, "html inside"),
    (f"{THINK}<answer>\u0392</answer>", 0, "a Greek Beta"),
    (f"{THINK}<answer>\uff22</answer>", 0, "a full-width B"),
    (f"{THINK}<answer>{'B' * 100_000}</answer>", 0, "huge"),
]

BARE = [
    ("B", 1, "right"),
    ("b.", 1, "lower-case, full stop"),
    ("Answer: B", 1, "with a cue"),
    ("Based on the flower, A", 0, "no cue, and the first capital is no letter"),
    ("A B C D", 0, "all letters"),
    ("The answer is A. No, the answer is B.", 0, "two answers"),
    ("E", 0, "beyond the options"),
    ("", 0, "nothing"),
    ("<answer>B</answer>", 1, "tags are welcome"),
]


def said(text: str) -> list[list[dict[str, str]]]:
    return [[{"role": "assistant", "content": text}]]


RANKS = ("kingdom", "genus", "species")


def columns(task: str, form: str, reason: str = "stop", reasoned: bool = True) -> dict[str, list[object]]:
    """What the reward is given: our columns, why the completion ended, and others that a reward must bear."""
    found = [OPTIONS] if task == "answer" else [[]]
    index = [1] if task == "answer" else [None]
    ours = {"task": [task], "form": [form], "reasoned": [reasoned], "leaf": [LEAF], "ranks": [RANKS]}
    ours |= {"options": found, "answer_index": index, "finish_reason": [reason]}
    return {**ours, "prompts": ["?"], "image": [None], "image_id": ["1"], "trainer_state": [None]}


@pytest.mark.parametrize(("text", "expected", "why"), FORMAT, ids=[why for *_, why in FORMAT])
def test_format(text: str, expected: int, why: str) -> None:
    assert format_reward(said(text), **columns("leaf", "tagged")) == [expected], why


@pytest.mark.parametrize(("text", "expected", "why"), NAMES, ids=[why for *_, why in NAMES])
def test_leaf(text: str, expected: int, why: str) -> None:
    assert accuracy_reward(said(text), **columns("leaf", "tagged")) == [expected], why


@pytest.mark.parametrize(("text", "expected", "why"), LETTERS, ids=[why for *_, why in LETTERS])
def test_letter(text: str, expected: int, why: str) -> None:
    assert accuracy_reward(said(text), **columns("answer", "tagged")) == [expected], why


@pytest.mark.parametrize(("text", "expected", "why"), BARE, ids=[why for *_, why in BARE])
def test_bare_letter(text: str, expected: int, why: str) -> None:
    assert accuracy_reward(said(text), **columns("answer", "bare")) == [expected], why


CUT = [  # by the token limit
    ("leaf", "bare", "Rosa canina", 0, "perhaps the beginning of a longer name"),
    ("leaf", "tagged", f"{THINK}<answer>Rosa canina</answer>", 1, "complete all the same"),
    ("answer", "bare", "B. Faba", 1, "the letter is whole"),
    ("answer", "bare", "B. Rosa", 0, "the beginning of another option's text"),
    ("answer", "tagged", f"{THINK}<answer>B. Faba</answer>", 0, "written so, not cut"),
]


@pytest.mark.parametrize(("task", "form", "text", "expected", "why"), CUT, ids=[why for *_, why in CUT])
def test_cut_by_the_limit(task: str, form: str, text: str, expected: int, why: str) -> None:
    assert accuracy_reward(said(text), **columns(task, form, "length")) == [expected], why


def test_format_is_not_asked_of_a_bare_answer() -> None:
    assert format_reward(said("B"), **columns("answer", "bare")) == [None]


@pytest.mark.parametrize(
    ("text", "expected", "why"),
    [
        ("<answer>B</answer>", 1, "the answer alone"),
        (" <answer>B</answer>\n", 1, "space around it"),
        (f"{THINK}<answer>B</answer>", 0, "reasoning that was not asked for"),
        ("<answer></answer>", 0, "empty answer"),
        ("<answer>A</answer><answer>B</answer>", 0, "two answers"),
        ("B", 0, "no tags"),
    ],
)
def test_format_without_reasoning(text: str, expected: int, why: str) -> None:
    assert format_reward(said(text), **columns("answer", "tagged", reasoned=False)) == [expected], why


@pytest.mark.parametrize(
    ("text", "expected", "why"),
    [
        ("Kingdom: Plantae; Genus: Rosa; Species: Rosa canina", 1, "the target itself"),
        ("kingdom: X\ngenus: Y\nspecies: rosa CANINA.", 1, "the leaf counts, not the ranks above it"),
        ("Kingdom: Plantae; Genus: Rosa", 0, "it ends above the species"),
        ("Kingdom: Plantae; Species: Rosa canina; Species: Rosa gallica", 0, "two species"),
        ("Rosa canina", 0, "no rank"),
        ("", 0, "nothing"),
    ],
)
def test_listing(text: str, expected: int, why: str) -> None:
    assert accuracy_reward(said(text), **columns("leaf", "listing")) == [expected], why
    assert format_reward(said(text), **columns("leaf", "listing")) == [None], why


def test_tasks_mix_in_a_batch() -> None:
    texts = said(f"{THINK}<answer>Rosa canina</answer>") + said(f"{THINK}<answer>B</answer>")
    both = [columns("leaf", "tagged"), columns("answer", "tagged")]
    mixed = {name: both[0][name] + both[1][name] for name in both[0]}
    assert accuracy_reward(texts, **mixed) == [1, 1]
    assert accuracy_reward(texts[::-1], **mixed) == [0, 0]
    assert format_reward(texts, **mixed) == [1, 1]


def test_no_answer_is_not_the_missing_index_of_a_leaf_sample() -> None:
    """An unreadable completion has index None, and so has a sample without options: they are not alike."""
    batch = columns("answer", "tagged") | {"answer_index": [None]}
    assert accuracy_reward(said("?"), **batch) == [0]


@pytest.mark.parametrize(("text", "expected", "_"), LETTERS)
def test_the_reward_is_the_metric(text: str, expected: int, _: str) -> None:
    reading = parsing.read_choice(text, OPTIONS, "tagged")
    assert (reading.outcome == "answered" and reading.index == 1) == bool(expected)


@pytest.mark.parametrize(("text", "expected", "_"), NAMES)
def test_the_leaf_reward_is_the_metric(text: str, expected: int, _: str) -> None:
    reading = parsing.read_name(text, "tagged")
    right = reading.outcome == "answered" and normalise(reading.answer or "") == normalise(LEAF)
    assert right == bool(expected)


LINEAGES = [  # asked down to the genus of kingdom, family, genus, species; the family is missing
    ("<think>Kingdom: Plantae; Genus: Rosa</think><answer>B</answer>", 1, "down to the rank asked for"),
    ("<think>KINGDOM:  plantae, genus: **Rosa**.</think>\n<answer>B</answer>", 1, "case, marks"),
    (f"{THINK}<answer>B</answer>", 0, "and further"),
    ("<think>Kingdom: Plantae; Family: Rosaceae; Genus: Rosa</think><answer>B</answer>", 0, "a missing rank"),
    ("<think>Kingdom: Plantae; Genus: Rubus</think><answer>B</answer>", 1 / 2, "another genus"),
    ("<think>Kingdom: Plantae</think><answer>B</answer>", 0, "not so far"),
    ("<think>Genus: Plantae; Kingdom: Rosa</think><answer>B</answer>", 0, "each at the other's rank"),
    ("<think>Kingdom: Plantae; Genus: Rosa; Genus: Rubus</think><answer>B</answer>", 0, "two at a rank"),
    ("<think>Plantae, Rosa</think><answer>B</answer>", 0, "no ranks"),
    ("<think></think><answer>B</answer>", 0, "nothing in the reasoning"),
    ("<think>Kingdom: Plantae; Genus: Rosa</think><answer></answer>", 0, "no form"),
    ("", 0, "nothing"),
]


@pytest.mark.parametrize(("text", "share", "why"), LINEAGES)
def test_reasoning_goes_down_to_the_rank_asked_for(text: str, share: float, why: str) -> None:
    ranks = ["kingdom", "family", "genus", "species"]
    asked = {"form": ["tagged"], "ranks": [ranks], "lineage": [["Plantae", None, "Rosa"]]}
    assert lineage_reward([[{"role": "assistant", "content": text}]], **asked) == [pytest.approx(share)], why


def test_where_no_lineage_is_to_be_named_none_is_rewarded() -> None:
    said = [[{"role": "assistant", "content": LINEAGES[0][0]}]] * 2
    asked = {"form": ["tagged", "listing"], "ranks": [["genus"]] * 2, "lineage": [[], ["Rosa"]]}
    assert lineage_reward(said, **asked) == [None, None]
