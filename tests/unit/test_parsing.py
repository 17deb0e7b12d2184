"""The reader of model output: a table of what models really write, and what may be read from it.

The slow test goes on for VLTAXON_FUZZ_SECONDS, 60 where not set: `pytest -m slow tests/unit/test_parsing.py`.
"""

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data import fuzz
from vltaxon import parsing, prompts
from vltaxon.taxonomy import find_flaw, normalise

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


REASONING = [
    # completion, whether the prompt has begun the reasoning, what came apart; all that was said
    ("K</think><answer>B</answer>", True, None, "<think>K</think><answer>B</answer>"),
    ("\n<think>K</think><answer>B</answer>", True, None, "\n<think>K</think><answer>B</answer>"),
    ("<answer>B</answer>", False, "Kingdom: K\n", "<think>Kingdom: K</think><answer>B</answer>"),
    ("B", False, "not <answer>A</answer>", "<think>not A</think>B"),
    ("", False, "Kingdom: K", "<think>Kingdom: K"),
    ("<think>K</think>B", False, "K", "<think>K</think>B"),
    ("B", False, None, "B"),
    ("B", False, "", "B"),
]


@pytest.mark.parametrize(("completion", "opened", "reasoning", "whole"), REASONING)
def test_reasoning_is_put_where_the_reader_looks(
    completion: str, opened: bool, reasoning: str | None, whole: str
) -> None:
    assert parsing.restore(completion, opened, reasoning) == whole


def test_reasoning_that_only_ends_was_begun_by_the_prompt() -> None:
    """As an endpoint gives it whose template begins it, and as it was kept before templates were looked at."""
    said = "Genus: Rosa\n</think>\n<answer>Rosa canina</answer>"
    reading = parsing.read_name(said, "tagged")
    assert (reading.answer, reading.reasoning) == ("Rosa canina", "Genus: Rosa")
    assert not parsing.well_formed(said)
    assert parsing.read_name(f"<think>x {said}", "tagged").reasoning == "x Genus: Rosa"
    assert parsing.reasoning_of("<think>never ends") is None


def test_a_listing_is_what_stands_behind_a_thought() -> None:
    thought = parsing.restore("Genus: Rosa; Species: Rosa canina", reasoning="Genus: Acer? No, a rose.")
    reading, lineage = parsing.read_listing(thought, ("genus", "species"))
    assert (reading.answer, lineage) == ("Rosa canina", ["Rosa", "Rosa canina"])
    within = "<think>Genus: Rosa\n</think><answer>Rosa</answer>"  # for want of one behind it
    assert parsing.read_listing(within, ("genus", "species"))[1] == ["Rosa", None]


def test_a_thought_without_end_holds_no_answer() -> None:
    begun = parsing.restore("It may be a rose. Answer: A", opened=True)
    assert parsing.read_choice(begun, OPTIONS, "bare", "length").outcome == "truncated"
    apart = parsing.restore("", reasoning="It may be a rose. Answer: A")
    assert parsing.read_choice(apart, OPTIONS, "bare", "length").outcome == "truncated"


ODD = [
    "Panthera leo (Linnaeus, 1758)",
    "Jay, Blue",
    "hen-of-the-woods, hen of the woods, Polyporus frondosus",
    "Rosa; or not",
    "A->B",
    "A \u2192 B",
    "\"Rosa\" 'Peace'",
    "*Festulolium*",
    "_x_",
    "-ceae-",
    "Rosa > canina",
    "Rosa sp.",
    "D'Orbigny's `x`",
    "Quercus \u00d7 hispanica: var. \u2018a\u2019",
    "Caf\u0065\u0301",
]


@pytest.mark.parametrize("name", ODD)
def test_any_name_is_read_back_in_every_form_and_place(name: str) -> None:
    ranks, path = ("kingdom", "genus", "species"), ("Plantae, s. l.", name, name + " x")
    odd, stated = parsing.odd_names(ranks, path), prompts.stated(ranks, path)
    said = [prompts.stated([rank], [taxon]) for rank, taxon in zip(ranks, path, strict=True)]
    for text in (stated, "\n- ".join(said), " -> ".join(said), ", ".join(said) + "."):
        assert list(map(normalise, parsing.read_lineage(text, ranks, odd))) == list(map(normalise, path))
    listed, lineage = parsing.read_listing(stated, ranks, odd=odd)
    assert listed.answer == path[-1] and list(map(normalise, lineage)) == list(map(normalise, path))
    tagged = parsing.read_name(prompts.completion(name, "tagged", stated), "tagged")
    assert (tagged.answer, parsing.read_name(name, "bare").answer) == (name, name)
    options = [name, "Rosa", "Acer"]
    assert [parsing.read_choice(text, options, "bare").index for text in (name, f"A. {name}")] == [0, 0]


def test_an_odd_name_is_read_only_where_it_is_written_whole() -> None:
    ranks = ("genus", "species")
    odd = parsing.odd_names(ranks, ["Jay, Blue", "Rosa", "Rosa canina"])
    assert odd == {"jay, blue"}

    def species(text: str) -> str | None:
        return parsing.read_lineage(f"Genus: Rosa; Species: {text}", ranks, odd)[1]

    assert species("jay, blue, or so") == "jay, blue"
    assert species("*Jay, Blue*") == species("**Jay, Blue**, which is a bird") == "Jay, Blue"
    assert species("Jay, Bluer") == "Jay" and species("Jay") == "Jay"
    assert species("Rosa canina, a rose") == "Rosa canina"


@given(st.text(max_size=250), st.text(max_size=40))
def test_a_name_without_a_flaw_is_read_back_or_refused(name: str, other: str) -> None:
    name, ranks = name.strip(), ("genus", "species")
    if find_flaw(name) is not None:
        return
    assert normalise(
        parsing.read_name(f"<think>{other}</think><answer>{name}</answer>", "tagged").answer or ""
    ) in (
        normalise(name),
        "",
    )
    bare = parsing.read_name(name, "bare").answer
    assert bare is not None and normalise(bare) == normalise(name)
    if not any(f"{rank}{mark}" in normalise(name).replace(" ", "") for rank in ranks for mark in ":=*`_"):
        odd = parsing.odd_names(ranks, [name])
        read = parsing.read_lineage(prompts.stated(ranks, ("Rosa", name)), ranks, odd)[1]
        assert read is not None and normalise(read) == normalise(name)


def test_an_answer_with_a_mark_of_a_prompt_in_it_names_nothing() -> None:
    """It would fill the prompt of stage 2, where it is no text."""
    for mark in ("<|im_end|>", "<|image_pad|>", "<image>"):
        assert (
            parsing.read_name(f"<think>x</think><answer>Rosa {mark}</answer>", "tagged").outcome == "unparsed"
        )
    assert parsing.read_name("Rosa < 3 > x", "bare").answer == "Rosa < 3 > x"


# -- time ---------------------------------------------------------------------------------------------------

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
KNOWN = frozenset(["jay, blue", "a, b"])


def read_all(text: str) -> None:
    for form in ("tagged", "bare"):
        for reason in ("stop", "length"):
            parsing.read_choice(text, OPTIONS, form, reason)
            parsing.read_name(text, form, reason)
    parsing.read_listing(text, RANKS)
    parsing.read_listing(text, RANKS, odd=KNOWN)
    parsing.well_formed(text), parsing.well_formed(text, reasoned=False)
    parsing.restore(text, opened=True), parsing.restore("", reasoning=text)
    parsing.published_index(text, OPTIONS)


def seconds(text: str) -> float:
    """The least of three tries, by the process's own clock."""
    tries = []
    for _ in range(3):
        began = time.process_time()
        read_all(text)
        tries.append(time.process_time() - began)
    return min(tries)


SHAPES: dict[str, Callable[[int], str]] = {
    "spaces in a name": lambda n: "Species: a" + " " * n + "b",
    "spaces before a colon": lambda n: "Species" + " " * n + "b",
    "emphasis": lambda n: "Species" + "*" * n + " " * n + "b",
    "a rank again and again": lambda n: "Species " * (n // 8),
    "statements without names": lambda n: "Species:" * (n // 8),
    "statements": lambda n: "Genus: a; Species: b, c -> d. " * (n // 30),
    "commas in a name": lambda n: "Species: " + "a, " * (n // 3),
    "arrows": lambda n: "Species: " + "-" * n + ">",
    "commas behind a letter": lambda n: "Answer: B" + "," * n,
    "cues": lambda n: "answer: " * (n // 8),
    "a cue and spaces": lambda n: "answer" + " " * n + "option" + " " * n,
    "brackets": lambda n: "Answer: " + "([" * (n // 2),
    "letters or letters": lambda n: "Answer: B" + " or " * (n // 4) + "C",
    "tags": lambda n: "<think>" * (n // 7),
    "closing tags": lambda n: "</think>" * (n // 8),
    "answers": lambda n: "<answer>" * (n // 8),
    "blank answers": lambda n: "<think>" + " " * n + "</think>" + " " * n + "<answer>" + " " * n,
    "marks": lambda n: "<|" * (n // 2),
    "a mark without end": lambda n: "<" + "a" * n,
    "many begun marks": lambda n: "<a" * (n // 2),
    "combining marks": lambda n: "a" + "\u0315\u0300\u0316" * (n // 3),
    "combining marks of names": lambda n: ("Species: a" + "\u0315\u0300\u0316" * 300 + "; ") * (n // 912),
    "invisible": lambda n: "\u200b" * n,
    "full stops": lambda n: "." * n,
    "a sorry": lambda n: " " * n + "i",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_time_to_read_grows_as_the_text(shape: str) -> None:
    """Sixteen times the text takes sixteen times as long; as the square, it would take 256 times."""
    short, long = (seconds(SHAPES[shape](n)) for n in (8_000, 128_000))
    assert long < 64 * max(short, 0.002)


WORDS = (
    *(f"{rank.capitalize()}{mark}" for rank in RANKS for mark in (":", " : ", "=", "**:**", " ", "")),
    *(
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "<|im_end|>",
        "<",
        ">",
        "|",
        "->",
        "\u2192",
        ";",
        ",",
        ".",
    ),
    *("Answer:", "answer is", "option ", "choice", "A", "B", " or ", " and ", "&", "/", "(", "[", "'", '"'),
    *(
        " ",
        "  ",
        "\n",
        "\t",
        "\r",
        "\x00",
        "\u200b",
        "\u00ad",
        "\u202e",
        "*",
        "_",
        "`",
        "-",
        "\u0315\u0300",
        "\U0001f98b",
    ),
    *("Rosa", "Rosa canina", "Jay, Blue", "a", "I'm sorry", "Unable to", "\ud800"),
)


def written(draw: random.Random) -> str:
    """A text of pieces that the reader looks for, some of them many times over."""
    words = draw.choices(WORDS, k=draw.randint(1, 6))
    text = "".join(draw.choice(words) * draw.choice((1, 1, 2, 50, 3_000)) for _ in range(draw.randint(1, 12)))
    return text * draw.choice((1, 1, 1, 20))


def check(text: str) -> None:
    took = seconds(text)
    assert took < 0.05 + 50e-6 * len(text), (took, len(text), text[:200])


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_written_is_read_in_a_bounded_time(seed: int) -> None:
    check(written(random.Random(seed)))


@pytest.mark.slow
def test_whatever_is_written_is_read_in_a_bounded_time_for_long() -> None:
    most = 0
    for _ in fuzz.rounds("texts"):
        text = written(random.Random(f"long {time.time_ns()}"))
        check(text)
        most = max(most, len(text))
    print(f"of up to {most:,} characters")
