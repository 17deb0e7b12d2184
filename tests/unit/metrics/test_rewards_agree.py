"""The reward is the metric: a completion has accuracy reward 1 exactly where the metric counts it right.

Completions are put together of the pieces that models write, whole and cut, and go two ways: through
inference's stages, tables and SQL, and through the reward as GRPO calls it. All of a run's completions are
scored at once, by four systems: two forms of answer, two reasons why a completion ended.
"""

import contextlib
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.builder import score_task
from tests.unit.inference.tasks import asking
from vltaxon import schemas
from vltaxon.config.protocols import Prompt, Stage
from vltaxon.inference.engine import Request, Response
from vltaxon.inference.stages.answers import ask_questions
from vltaxon.inference.stages.leaf import name_leaves
from vltaxon.metrics.score import score
from vltaxon.provenance import write_parquet
from vltaxon.tasks.prediction import AnswerTask, PredictLeafTask
from vltaxon.tasks.scoring import Sources
from vltaxon.taxonomy import normalise
from vltaxon.train.rewards.accuracy import reward as accuracy_reward

FORMS, REASONS, TASKS = ("tagged", "bare"), ("stop", "length"), ("leaf", "answer")
NAMES = (
    "Rosa",
    "Rosa canina",
    "rosa canina var. alba",
    "A",
    "B common oak",
    "C. elegans",
    "Straße É",
    "Ælurus",
    "Sorry",
    "x.",
)
PROSE = (
    "Based on the image, ", "The Correct one ", "I'm sorry, I cannot ", "as an AI ", "Here is why, unlike option D", " or ", ", ",
    " and ", "\n", " ", "because of its leaves. ", "Kingdom: Plantae; Genus: Rosa; ", "\u00a0", "\u0000", "\U0001f339", "\u0392",
)  # fmt: skip
CUES = ("Answer: ", "The answer is ", "answer:", "Option ", "My choice is ", "option: ", "I think it is ", "")
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<ANSWER>", "<b>", "</b>")

ends = st.just("") | st.sampled_from(PROSE)
names = st.sampled_from(NAMES) | st.text(min_size=1, max_size=9).filter(normalise)


def spelt(name: str) -> st.SearchStrategy[str]:
    """A name as models write it: other case, spaces, composition, a full stop, emphasis, or half of it."""
    ways = (
        name, name.upper(), name.lower(), name.casefold(), f" {name}  ", name.replace(" ", "  "), name.replace(" ", "\u00a0"),
        f"{name}.", f"{name} .", f"{name} sp.", f"**{name}**", f'"{name}"', unicodedata.normalize("NFD", name),
    )  # fmt: skip
    return st.sampled_from(ways) | st.integers(0, len(name)).map(lambda end: name[:end])


@dataclass(frozen=True)
class Case:
    """What an image shows, what is asked about it, and what a model says."""

    leaf: str
    options: tuple[str, ...]
    gold: int
    completion: str


@st.composite
def cases(draw: st.DrawFn) -> Case:
    options = tuple(draw(st.lists(names, min_size=2, max_size=5, unique_by=normalise)))
    gold = draw(st.integers(0, len(options) - 1))
    leaf = draw(st.just(options[gold]) | names)
    meant = draw(st.just(options[gold]) | st.sampled_from(options))
    letter = draw(st.just("ABCDE"[gold]) | st.sampled_from("ABCDEabc"))
    text = draw(spelt(meant))
    half = f"{'ABCDE'[gold]}. {options[gold][: draw(st.integers(1, len(options[gold])))]}"
    lettered = st.sampled_from(
        [letter, f"({letter})", f"{letter}.", f"**{letter}**", f"[{letter}]", f"{letter}. {text}", f"{letter}) {text}",
         f"{letter} {text}", f"{letter}: {text}", f"**{letter}. {text}**", f"{letter}.{text}"]
    )  # fmt: skip
    said = st.just(text) | spelt(leaf) | lettered | st.just(half)
    body = draw(said) if draw(st.booleans()) else draw(st.sampled_from(CUES)) + draw(said) + draw(ends)
    thoughts = [
        "",
        "<think></think>",
        "<think>Genus: Rosa</think>\n",
        "<think>A or B?</think>",
        "<think>unclosed ",
        "Well. ",
    ]
    thought = draw(st.sampled_from(thoughts))
    tagged = draw(st.sampled_from([body] + [f"<answer>{body}</answer>"] * 3))
    pieces = st.sampled_from([*TAGS, *PROSE, *CUES, body]) | said | st.text(max_size=4)
    whole = thought + tagged + draw(ends)
    completion = draw(st.sampled_from([whole] * 4 + ["".join(draw(st.lists(pieces, max_size=7)))]))
    kept = draw(st.sampled_from([len(completion)] * 6 + [draw(st.integers(0, len(completion)))]))
    return Case(leaf, options, gold, completion[:kept])


def drawn(count: int) -> list[Case]:
    """Hypothesis's examples, collected: a query a case would take minutes."""
    found: list[Case] = []

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(cases())
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found


class Says:
    """An engine that gives each image the completion of its case."""

    digest, facts = "scripted", {}

    def __init__(self, cases: Sequence[Case], reason: str) -> None:
        self.cases, self.reason = cases, reason

    def generate(self, requests: Sequence[Request], *_: float) -> Iterator[tuple[int, Response]]:
        for at, request in enumerate(requests):
            yield at, Response(self.cases[int(request.image_id)].completion, self.reason, 1, 1, 1, 0.0)


def row(schema: pa.Schema, **values: Any) -> dict[str, Any]:
    return dict.fromkeys(schema.names) | values


def counted(cases: Sequence[Case]) -> dict[tuple[str, str, str], list[bool]]:
    """Whether the metrics count each case right, by task, form and finish reason: stages, files and SQL of
    the pipeline.
    """
    ids = [f"{number:05}" for number in range(len(cases))]
    tables = {
        "images": ([row(schemas.IMAGES, image_id=i, split="test", leaf=f"L{i}") for i in ids], schemas.IMAGES),
        "taxa": ([row(schemas.TAXA, leaf=f"L{i}", level=1, rank="species", taxon=c.leaf, key=normalise(c.leaf))
                  for i, c in zip(ids, cases, strict=True)], schemas.TAXA),
        "asked": ([row(schemas.QUESTIONS, question_id=f"{i}:1", image_id=i, split="test", level=1, rank="species",
                       options=list(c.options), answer_index=c.gold, scored=True)
                   for i, c in zip(ids, cases, strict=True)], schemas.QUESTIONS),
        "parts": ([], schemas.PARTS),
    }  # fmt: skip
    paths = {name: Path(f"{name}.parquet") for name in tables}
    for name, (rows, schema) in tables.items():
        write_parquet(pa.Table.from_pylist(rows, schema), paths[name], schema)
    prompt, words = (
        Prompt(source="test", text="{question}{options}"),
        {"wording": "What?", "ranks": ("species",)},
    )
    common = {"shard": 0, "shards": 1, "images": paths["images"]}
    answers, leaves = {}, {}
    for form, reason in itertools.product(FORMS, REASONS):
        engine, system = Says(cases, reason), f"{form} {reason}"
        leaf, answer = (Stage(name=task, prompt="p", form=form) for task in TASKS)  # type: ignore[arg-type]
        leaves[system, "d"], answers[system, "d", "similar"] = (
            [Path(f"{system}/leaf.parquet")],
            [Path(f"{system}/a.parquet")],
        )
        [one], [two] = leaves[system, "d"], answers[system, "d", "similar"]
        name_leaves(
            PredictLeafTask(asking=asking(leaf, prompt, **words), predictions=one, **common), engine, ids
        )
        asked = {"asking": asking(answer, prompt, **words), "questions": paths["asked"]}
        ask_questions(AnswerTask(predictions=two, **asked, **common), engine, ids)
    sources = Sources(
        questions={("d", "similar"): paths["asked"]}, images={"d": paths["images"]}, taxa={"d": paths["taxa"]}, answers=answers,
        leaves=leaves, leaf_systems={system: system for system, _ in leaves}, partition={"d": paths["parts"]}, trained={"d": paths["images"]},
    )  # fmt: skip
    score(score_task(sources, 1, 0, Path("scores.parquet"), Path("b.duckdb")))
    with duckdb.connect("b.duckdb", read_only=True) as connection:
        found = connection.sql(
            "SELECT metric, system, image_id, value FROM per_image WHERE metric IN ('hca', 'open_leaf') ORDER BY image_id"
        ).fetchall()
    right: dict[tuple[str, str, str], list[bool]] = {}
    for metric, system, image_id, value in found:
        form, reason = system.split()
        values = right.setdefault(("answer" if metric == "hca" else "leaf", form, reason), [])
        assert int(image_id) == len(values), "each image once, in order"
        values.append(bool(value))
    return right


def rewarded(cases: Sequence[Case], task: str, form: str, reason: str) -> list[bool]:
    """Whether the reward is 1, with the columns of a training sample of that task."""
    answer, count = task == "answer", len(cases)
    rewards = accuracy_reward(
        [[{"role": "assistant", "content": case.completion}] for case in cases],
        task=[task] * count,
        form=[form] * count,  # type: ignore[list-item]
        leaf=[case.leaf for case in cases],
        ranks=[("genus", "species")] * count,
        options=[case.options if answer else () for case in cases],
        answer_index=[case.gold if answer else None for case in cases],
        finish_reason=[reason] * count,
    )
    assert set(rewards) <= {0, 1}
    return [reward == 1 for reward in rewards]


def test_reward_is_1_exactly_where_the_metric_counts_right(tmp_path: Path) -> None:
    cases = drawn(1500)
    with contextlib.chdir(tmp_path):
        metric = counted(cases)
    assert metric.keys() == set(itertools.product(TASKS, FORMS, REASONS))
    for key, right in metric.items():
        reward = rewarded(cases, *key)
        differ = [case for case, a, b in zip(cases, right, reward, strict=True) if a != b]
        assert not differ, (
            f"{key}: {len(differ)} differ, the shortest: {min(differ, key=lambda case: len(case.completion))}"
        )
        if key != ("leaf", "bare", "length"):  # where the limit was hit, a bare name is never taken
            assert 0.02 < sum(right) / len(right) < 0.9, (
                f"{key}: {sum(right)} of {len(right)} right tell little"
            )
    assert metric["answer", "bare", "stop"] != metric["answer", "bare", "length"], (
        "no case shows the difference that a cut makes"
    )


CUT = [  # a bare name is not trusted once the limit was hit; a letter is, with the beginning of its text
    ("leaf", "bare", Case("Rosa", ("Rosa", "Acer"), 0, "Rosa"), {"stop": True, "length": False}),
    (
        "answer",
        "bare",
        Case("Rosa canina", ("Rosa canina", "Acer"), 0, "A. Rosa can"),
        {"stop": False, "length": True},
    ),
    (
        "answer",
        "tagged",
        Case("Rosa", ("Rosa canina", "Acer"), 0, "<answer>A. Ros</answer>"),
        {"stop": False, "length": False},
    ),
]


@pytest.mark.parametrize(("task", "form", "case", "expected"), CUT)
def test_the_limit_counts_alike_in_both(
    tmp_path: Path, task: str, form: str, case: Case, expected: dict[str, bool]
) -> None:
    with contextlib.chdir(tmp_path):
        metric = counted([case])
    for reason, right in expected.items():
        assert metric[task, form, reason] == rewarded([case], task, form, reason) == [right]
