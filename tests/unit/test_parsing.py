"""The reader of model output: a table of what models really write, and what may be read from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vltaxon import parsing

OPTIONS = ["Rosa", "Rosa canina", "Quercus", "Acer"]

BARE = [
    # completion, index read (None: nothing may be read), outcome
    ("B", 1, "answered"),
    ("b", 1, "answered"),  # a whole answer in lower case is unambiguous
    ("D.", 3, "answered"),
    ("(C)", 2, "answered"),
    ("**D**", 3, "answered"),
    ("Answer: **D**", 3, "answered"),  # not the A of "Answer"
    ("Answer: C", 2, "answered"),
    (
        "The correct answer is B. Here's why, unlike option D",
        1,
        "answered",
    ),  # one explicit cue; prose does not count
    ("B. Rosa canina", 1, "answered"),
    ("B. Quercus", None, "unparsed"),  # letter and name disagree
    ("Quercus", 2, "answered"),
    ("quercus.", 2, "answered"),
    ("Rosa", 0, "answered"),  # a genus is a prefix of its species: only the whole text counts
    ("Rosa can", None, "unparsed"),
    ("Based on the image", None, "unparsed"),  # not the B of "Based"
    ("The Correct one", None, "unparsed"),
    ("a plant", None, "unparsed"),  # the article is no answer
    ("I think it is D", None, "unparsed"),  # no cue; "last letter" is a guess
    ("The answer is A or B", None, "unparsed"),  # hedging earns nothing
    ("Answer: A, B", None, "unparsed"),
    ("Answer: A B", None, "unparsed"),
    ("Answer: B and option C", None, "unparsed"),
    ("The answer is A common oak", None, "unparsed"),  # an article
    ("The answer is B because of the leaves", 1, "answered"),
    ("answer: Acer", 3, "answered"),
    ("**B. Rosa canina**", 1, "answered"),
    ("B Rosa canina", 1, "answered"),
    ("B.Rosa canina", 1, "answered"),
    ("Answer: A. No, the answer is B", None, "unparsed"),  # two answers are none
    ("E", None, "unparsed"),  # not shown
    ("notice", None, "unparsed"),
    ("", None, "empty"),
    (" \n", None, "empty"),
    ("I'm sorry, I cannot identify this.", None, "refused"),
    ("I can\u2019t tell.", None, "refused"),
    ("<answer>C</answer>", 2, "answered"),  # tags are explicit, asked for or not
    ("A\nB\nC\nD", None, "unparsed"),  # listing all options earns nothing
]


@pytest.mark.parametrize(("completion", "index", "outcome"), BARE)
def test_bare_form(completion: str, index: int | None, outcome: str) -> None:
    reading = parsing.read_choice(completion, OPTIONS, "bare")
    assert (reading.index, reading.outcome) == (index, outcome)
    assert reading.answer == (None if index is None else OPTIONS[index])


TAGGED = [
    ("<think>Kingdom: X</think><answer>B</answer>", 1, "answered"),
    ("<think>Kingdom: X</think>\n<answer> B </answer>\n", 1, "answered"),
    ("<think>x</think><answer>B. Rosa canina</answer>", 1, "answered"),
    ("<think>x</think><answer>Acer</answer>", 3, "answered"),
    ("B", None, "unparsed"),  # the form was asked for
    ("<think>x</think>B", None, "unparsed"),
    (
        "<think>x</think><answer></answer>",
        None,
        "unparsed",
    ),  # an empty answer is not a substring of the truth
    ("<think>x</think><answer>A</answer><answer>B</answer>", None, "unparsed"),
    ("<think>x</think><answer>A</answer><answer>A</answer>", None, "unparsed"),
    ("<think>x</think><answer>A, B, C or D</answer>", None, "unparsed"),
    ("<answer>B</answer><think>x</think>", None, "unparsed"),  # answered before thinking
    ("<think>the <answer>B</answer> is", None, "unparsed"),  # inside an unfinished thought
    ("<think>Kingdom: Yab", None, "unparsed"),
    ("<think>x</think><answer>E</answer>", None, "unparsed"),
    ("<think>x</think><answer>B", None, "unparsed"),
    ("<ANSWER>B</ANSWER>", None, "unparsed"),
    ("<think>x</think><answer><script>alert(1)</script></answer>", None, "unparsed"),
    ("<think>" + "x" * 200_000 + "</think><answer>B</answer>", 1, "answered"),
]


@pytest.mark.parametrize(("completion", "index", "outcome"), TAGGED)
def test_tagged_form(completion: str, index: int | None, outcome: str) -> None:
    reading = parsing.read_choice(completion, OPTIONS, "tagged")
    assert (reading.index, reading.outcome) == (index, outcome)


def test_a_letter_whose_option_s_text_was_cut_by_the_limit_is_an_answer() -> None:
    assert parsing.read_choice("B. Rosa can", OPTIONS, "bare", "length").index == 1
    assert parsing.read_choice("B. Rosa can", OPTIONS, "bare", "stop").outcome == "unparsed"
    assert parsing.read_choice("B. Quer", OPTIONS, "bare", "length").outcome == "truncated"
    closed = "<think>x</think><answer>B. Rosa can</answer>"  # written so, and cut behind it if at all
    assert {
        parsing.read_choice(closed, OPTIONS, "tagged", reason).index for reason in ("stop", "length")
    } == {None}


def test_truncation_is_an_outcome_of_its_own_unless_the_answer_was_complete() -> None:
    assert parsing.read_choice("<think>Kingdom: Yab", OPTIONS, "tagged", "length").outcome == "truncated"
    assert parsing.read_choice("", OPTIONS, "tagged", "length").outcome == "truncated"
    assert (
        parsing.read_choice("<think>x</think><answer>B</answer> and", OPTIONS, "tagged", "length").index == 1
    )
    assert parsing.read_name("Rosa can", "bare", "length").outcome == "truncated"


NAMES = [
    ("<think>Genus: Rosa</think><answer>Rosa canina</answer>", "Rosa canina"),
    ("<think>x</think><answer> Rosa canina. </answer>", "Rosa canina."),
    ("<think>x</think><answer> . </answer>", None),
    ("<think>x</think>Rosa canina", None),
    ("Rosa canina", None),
]


@pytest.mark.parametrize(("completion", "name"), NAMES)
def test_names(completion: str, name: str | None) -> None:
    reading = parsing.read_name(completion, "tagged")
    assert (reading.answer, reading.outcome == "answered") == (name, name is not None)


def test_lineage_is_read_by_rank_and_a_contradiction_is_nothing() -> None:
    ranks = ["kingdom", "genus", "species"]
    assert parsing.read_lineage("Kingdom: K; Genus: Rosa; Species: Rosa canina", ranks) == [
        "K",
        "Rosa",
        "Rosa canina",
    ]
    assert parsing.read_lineage("kingdom : K\nGenus: Rosa; Genus: Acer", ranks) == ["K", None, None]
    assert parsing.read_lineage("Genus: Rosa; genus: rosa", ranks) == [None, "rosa", None]
    for text in (
        "**Kingdom:** K\n- Genus: *Rosa*",
        "Kingdom: K, Genus: Rosa.",
        "Kingdom: K -> Genus: Rosa",
        "Kingdom: K. Genus: Rosa.",
    ):
        assert parsing.read_lineage(text, ranks) == ["K", "Rosa", None]
    assert parsing.read_lineage(None, ranks) == [None, None, None]


WELL_FORMED = [
    ("<think>x</think><answer>B</answer>", True),
    ("\n<think></think>\n<answer>B</answer>\n", True),
    ("<think>x</think><answer></answer>", False),
    ("x<think>x</think><answer>B</answer>", False),
    ("<think>x</think><answer>B</answer>x", False),
    ("<think>a</think><think>b</think><answer>B</answer>", False),
    ("<think>a<answer>B</answer></think><answer>B</answer>", False),
]


@pytest.mark.parametrize(("completion", "good"), WELL_FORMED)
def test_well_formed(completion: str, good: bool) -> None:
    assert parsing.well_formed(completion) is good


def test_published_rule_takes_the_first_letter_anywhere() -> None:
    assert parsing.published_index("Answer: C", OPTIONS) == 0
    assert parsing.published_index("Based on", OPTIONS) == 1
    assert parsing.published_index("d", OPTIONS) is None
    assert parsing.published_index("B", OPTIONS[:1]) is None  # not shown: no fallback to another letter


@given(st.text(), st.sampled_from(["tagged", "bare"]), st.sampled_from(["stop", "length"]))
def test_any_text_gives_an_index_only_where_answered(text: str, form: parsing.Form, reason: str) -> None:
    reading = parsing.read_choice(text, OPTIONS, form, reason)
    assert (reading.outcome == "answered") == (reading.index is not None)


@given(st.sampled_from(range(4)), st.text(alphabet=st.characters(exclude_characters="<>")))
def test_a_well_formed_choice_is_always_read(index: int, thought: str) -> None:
    completion = f"<think>{thought}</think><answer>{'ABCD'[index]}</answer>"
    assert parsing.well_formed(completion)
    assert parsing.read_choice(completion, OPTIONS, "tagged").index == index
