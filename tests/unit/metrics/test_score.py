"""Metrics against rows computed by hand, and against plain Python on random predictions."""

import contextlib
import csv
import itertools
import json
import math
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from tests.data.builder import Bench, Lineage, marks, score_task, tree
from vltaxon import schemas
from vltaxon.errors import UserError
from vltaxon.metrics import heads
from vltaxon.metrics.compare import Compared, differences
from vltaxon.metrics.learnt import Learnt
from vltaxon.metrics.score import score
from vltaxon.provenance import facts, write_parquet
from vltaxon.report.tables import tabulate
from vltaxon.tasks.scoring import MainTableTask

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
SEVEN = {f"S{i}": ("K", f"P{i}", f"C{i}", f"O{i}", f"F{i}", f"G{i}", f"S{i}") for i in range(5)}
Values = dict[tuple[str, str, str, str, int | None, str], dict[str, float]]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path)


def scored(bench: Bench, shards: int = 1, bootstrap: int = 20) -> Values:
    files = Path("results/metrics/scores.parquet"), Path("results/benchmark.duckdb")
    score(score_task(bench.sources(shards), bootstrap, 0, *files))
    rows = pq.read_table("results/metrics/scores.parquet").to_pylist()
    return {
        tuple(row[k] for k in ("system", "dataset", "choices", "metric", "level", "subset")): row
        for row in rows
    }  # type: ignore[misc]


T, F = True, False


HAND: list[tuple[list[bool | str], dict[str, float | None]]] = [
    # only phylum wrong: the worked example; pairs right: 4 of 5
    (
        [F, T, T, T, T, T],
        {
            "hca": 0,
            "leaf": 1,
            "hca_given_leaf": 0,
            "por": 5 / 6,
            "strict_por_prefix": 0,
            "strict_por_run": 5 / 6,
            "tor": 4 / 5,
        },
    ),
    (
        [T] * 6,
        {
            "hca": 1,
            "leaf": 1,
            "hca_given_leaf": 1,
            "por": 1,
            "strict_por_prefix": 1,
            "strict_por_run": 1,
            "tor": 1,
        },
    ),
    (
        [F] * 6,
        {
            "hca": 0,
            "leaf": 0,
            "hca_given_leaf": None,
            "por": 0,
            "strict_por_prefix": 0,
            "strict_por_run": 0,
            "tor": 0,
        },
    ),
    # runs of 2 and 3: the longest counts; pairs right: 1 + 2
    (
        [T, T, F, T, T, T],
        {"hca": 0, "por": 5 / 6, "strict_por_prefix": 2 / 6, "strict_por_run": 3 / 6, "tor": 3 / 5},
    ),
    # two runs of the same length
    ([T, T, F, F, T, T], {"leaf": 1, "strict_por_prefix": 2 / 6, "strict_por_run": 2 / 6, "tor": 2 / 5}),
    # leaf wrong only
    (
        [T, T, T, T, T, F],
        {"hca": 0, "leaf": 0, "hca_given_leaf": None, "por": 5 / 6, "strict_por_prefix": 5 / 6, "tor": 4 / 5},
    ),
    # no two neighbours right
    ([T, F, T, F, T, F], {"por": 0.5, "strict_por_prefix": 1 / 6, "strict_por_run": 1 / 6, "tor": 0}),
    # what is no answer is wrong, stays in the denominator, and has a column of its own
    (
        [T, "truncated", "unparsed", "empty", "error", T],
        {
            "hca": 0,
            "leaf": 1,
            "por": 2 / 6,
            "strict_por_prefix": 1 / 6,
            "strict_por_run": 1 / 6,
            "tor": 0,
            "outcome_answered": 2 / 6,
            "outcome_truncated": 1 / 6,
            "outcome_unparsed": 1 / 6,
            "outcome_empty": 1 / 6,
            "outcome_error": 1 / 6,
            "outcome_refused": 0,
            "answered_accuracy": 1,
        },
    ),
    (
        ["truncated"] * 6,
        {"hca": 0, "por": 0, "outcome_truncated": 1, "outcome_answered": 0, "answered_accuracy": None},
    ),
]


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Values:
    """All cases of HAND at once, each as a system that answers for one image."""
    folder = tmp_path_factory.mktemp("hand")
    with contextlib.chdir(folder):
        bench = Bench(folder)
        bench.dataset("d", RANKS, SEVEN, {"i": "S0"}, scored=range(2, 8))
        for number, (right, _) in enumerate(HAND):
            bench.answer(f"s{number}", "d", "similar", {"i": right})
        return scored(bench)


@pytest.mark.parametrize("number", range(len(HAND)))
def test_hand_computed_rows(by_hand: Values, number: int) -> None:
    expected = HAND[number][1]
    got = {
        m: by_hand[k]["value"] if (k := (f"s{number}", "d", "similar", m, None, "all")) in by_hand else None
        for m in expected
    }
    assert got == {m: v if v is None else pytest.approx(v, abs=1e-12) for m, v in expected.items()}


def test_kingdom_is_asked_but_not_scored(bench: Bench) -> None:
    bench.dataset("d", RANKS, SEVEN, {"i": "S0"}, scored=range(1, 8))
    assert [q["scored"] for q in bench.questions["d", "similar"]] == [False] + [
        True
    ] * 6  # one option: no question
    bench.answer("s", "d", "similar", {"i": [T] * 6})
    levels = {key[4] for key in scored(bench) if key[3] == "level_accuracy"}
    assert levels == {2, 3, 4, 5, 6, 7}


def test_what_predictions_are_stamped_with_as_a_warning_goes_with_the_scores(bench: Bench) -> None:
    """Once for all shards, and of a stage 1 to every system that uses it."""
    bench.dataset("d", RANKS, SEVEN, {"i": "S0", "j": "S1"}, scored=range(2, 8))
    for system in ("s", "t"):
        bench.answer(system, "d", "similar", {"i": [T] * 6, "j": [T] * 6})
    bench.name("s", "d", {"i": ("S0", SEVEN["S0"]), "j": ("S1", SEVEN["S1"])})
    sources = bench.sources(2)
    sources = sources.model_copy(update={"leaf_systems": {"s": "s", "t": "s"}})
    for paths, words in (
        (sources.answers["t", "d", "similar"], "two models"),
        (sources.leaves["s", "d"], "alike"),
    ):
        for path in paths:
            write_parquet(pq.read_table(path), path, schemas.PREDICTIONS, warnings=[words])
    files = Path("results/metrics/scores.parquet"), Path("results/benchmark.duckdb")
    score(score_task(sources, 20, 0, *files))
    assert json.loads(facts(files[0])["warnings"]) == [
        ["d", "similar", "t", "two models"],
        ["d", "open_set", "s", "alike"],
        ["d", "open_set", "t", "alike"],
    ]
    score(score_task(bench.sources(), 20, 0, *files))
    assert "warnings" not in facts(files[0])


def test_several_models_under_one_name_are_warned_of_over_shards_and_stages(bench: Bench) -> None:
    """Once, though each file has one alone. Fingerprints alone tell nothing."""
    bench.dataset("d", RANKS, SEVEN, {"i": "S0", "j": "S1"}, scored=range(2, 8))
    for system in ("s", "t", "u"):
        bench.answer(system, "d", "similar", {"i": [T] * 6, "j": [T] * 6})
    bench.name("t", "d", {"i": ("S0", SEVEN["S0"]), "j": ("S1", SEVEN["S1"])})
    sources = bench.sources(2).model_copy(update={"leaf_systems": {"t": "t", "u": "t"}})
    origins = {  # of each shard
        ("s", "similar"): (["m-1 fp_1"], ["m-2 fp_1"]),
        ("t", "similar"): (["m-1 fp_1", "m-1 fp_2"], ["m-1"]),
        ("u", "similar"): (["m-3 fp_3"], ["m-3 fp_4"]),
        ("t", "leaf"): (["m-1 fp_5"], ["m-1 fp_6"]),
    }
    for (system, kind), of in origins.items():
        paths = sources.leaves[system, "d"] if kind == "leaf" else sources.answers[system, "d", kind]
        for path, one in zip(paths, of, strict=True):
            write_parquet(pq.read_table(path), path, schemas.PREDICTIONS, answered_by=one)
    files = Path("results/metrics/scores.parquet"), Path("results/benchmark.duckdb")
    score(score_task(sources, 20, 0, *files))
    words = "answered by more than one model under the same name"
    assert json.loads(facts(files[0])["warnings"]) == [
        ["d", "similar", "s", f"{words}: m-1, m-2"],
        ["d", "similar", "u", f"{words}: m-1, m-3 (4 fingerprints)"],
    ]


def test_missing_ranks_leave_no_gap(bench: Bench) -> None:
    """Order missing: family follows class. Species missing: the genus is the leaf, in both kinds of
    answer.
    """
    lineages = SEVEN | {
        "S0": ("K", "P0", "C0", None, "F0", "G0", "S0"),
        "G1 sp.": ("K", "P1", "C1", "O1", "F1", "G1", None),
    }
    bench.dataset("d", RANKS, lineages, {"gap": "S0", "short": "G1 sp."}, scored=range(2, 8))
    bench.answer("s", "d", "similar", {"gap": [F, T, T, T, T], "short": [T, T, T, T, T]})
    bench.name("s", "d", {"gap": ("S0", lineages["S0"]), "short": ("g1", lineages["G1 sp."])})
    found = scored(bench)
    value = {k[2:5]: (v["value"], v["n"]) for k, v in found.items() if k[5] == "all"}
    assert value["similar", "tor", None] == (pytest.approx((3 / 4 + 1) / 2), 2)
    assert value["similar", "leaf", None] == (1, 2)
    assert value["similar", "strict_por_run", None] == (pytest.approx((4 / 5 + 1) / 2), 2)
    assert value["similar", "level_accuracy", 2] == (0.5, 2)
    assert value["similar", "level_accuracy", 4] == (1, 1)
    assert value["similar", "level_accuracy", 7] == (1, 1)
    assert value["open_set", "open_leaf", None] == (1, 2)
    assert value["open_set", "open_lineage", None] == (1, 2)


def test_one_level(bench: Bench) -> None:
    bench.dataset("d", ("species",), {"x": ("x",), "y": ("y",)}, {"i": "x", "j": "y"}, scored=[1])
    bench.answer("s", "d", "similar", {"i": [T], "j": [F]})
    value = {k[3]: v["value"] for k, v in scored(bench).items()}
    assert value["tor"] == 0
    assert (
        value["hca"]
        == value["leaf"]
        == value["por"]
        == value["strict_por_run"]
        == value["strict_por_prefix"]
        == 0.5
    )


def test_chance_follows_the_number_of_options(bench: Bench) -> None:
    lineages = {f"s{i}": (f"o{i % 2}", f"s{i}") for i in range(6)}
    bench.dataset("d", ("order", "species"), lineages, {"i": "s0"}, scored=[1, 2])
    bench.answer("s", "d", "similar", {"i": [T, T]})
    found = scored(bench)
    assert [found["s", "d", "similar", "chance", level, "all"]["value"] for level in (1, 2)] == [0.5, 0.25]


STRAIT = ("K", "P0", "C0", "O0", "F0", "G0", "Straße É")


OPEN: list[
    tuple[str | None, Lineage | None, str, int, int]
] = [  # answer, lineage, outcome; leaf right, lineage right
    ("Straße É", STRAIT, "answered", 1, 1),
    (" STRASSE  E\u0301. ", STRAIT, "answered", 1, 1),  # case-folded, composed, spaces and full stop dropped
    ("Strase É", STRAIT, "answered", 0, 0),
    ("Straße É", ("wrong", *STRAIT[1:]), "answered", 1, 1),  # kingdom is not scored
    ("Straße É", ("K", "P1", *STRAIT[2:]), "answered", 1, 0),
    ("Straße É", ("K", None, *STRAIT[2:]), "answered", 1, 0),
    ("Straße É", None, "answered", 1, 0),
    ("S1", STRAIT, "answered", 0, 0),  # the reasoning alone is not enough
    ("Straße É", STRAIT, "truncated", 0, 0),
    (None, STRAIT, "unparsed", 0, 0),
]


def test_open_set(bench: Bench) -> None:
    """Each case is a system that names one image."""
    bench.dataset("d", RANKS, SEVEN | {"x": STRAIT}, {"i": "x"}, scored=range(2, 8))
    for number, (answer, lineage, outcome, _, _) in enumerate(OPEN):
        bench.name(f"s{number}", "d", {"i": (answer, lineage)}, outcome=outcome, tokens=33)
    found = scored(bench)
    for number, (_, lineage, outcome, leaf, whole) in enumerate(OPEN):
        got = {
            k[3:5]: v["value"]
            for k, v in found.items()
            if k[0] == f"s{number}" and k[2] == "open_set" and k[5] == "all"
        }
        assert (got["open_leaf", None], got["open_lineage", None]) == (leaf, whole), OPEN[number]
        assert got.get(("open_lineage_given_leaf", None)) == (whole if leaf else None), OPEN[number]
        assert got["completion_tokens", None] == 33
        assert got[f"outcome_{outcome}", None] == 1
        assert got["open_level_accuracy", 4] == (1 if lineage and outcome == "answered" else 0)


def test_open_lineage_given_the_leaf_is_over_the_images_with_the_leaf_right(bench: Bench) -> None:
    """Four images: whole lineage, leaf only (two of them), neither. Of the leaf the answer counts, not the
    reasoning.
    """
    bench.dataset("d", RANKS, SEVEN, {f"i{k}": f"S{k}" for k in range(4)}, scored=range(2, 8))
    said = {
        "i0": ("S0", (*SEVEN["S0"][:-1], "S4")),
        "i1": ("S1", SEVEN["S4"]),
        "i2": ("S2", None),
        "i3": ("S4", SEVEN["S3"]),
    }
    bench.name("s", "d", said)
    value = {k[3]: (v["value"], v["n"]) for k, v in scored(bench).items() if k[4] is None and k[5] == "all"}
    assert value["open_leaf"] == (0.75, 4) and value["open_lineage"] == (0.25, 4)
    assert value["open_lineage_given_leaf"] == (pytest.approx(1 / 3), 3)


Said = tuple[
    str | None, bool | str, bool | None
]  # completion, our reading, theirs; right, wrong, or none (with our outcome)
PUBLISHED: list[tuple[list[Said], dict[str, float]]] = [
    # the bare letter: both read the same
    ([("A", T, T), ("B", F, F), ("C", T, T)], {"published_hca": 0, "published_leaf": 1, "parsers_differ": 0, "leaf": 1}),
    ([("A", T, T)] * 3, {"published_hca": 1, "published_leaf": 1, "parsers_differ": 0, "hca": 1}),
    # a letter before the answer: "Answer: C" is A to theirs; by luck it may be right
    ([("A", T, T), ("Answer: C", F, T), ("Answer: B", T, F)],
     {"hca": 0, "published_hca": 0, "leaf": 1, "published_leaf": 0, "parsers_differ": 2 / 3}),
    ([("Answer: C", F, T)] * 3, {"hca": 0, "published_hca": 1, "leaf": 0, "published_leaf": 1, "parsers_differ": 1}),
    # one reads an answer and the other none; none and none is the same
    ([("b", T, None), ("Based on it", "unparsed", T), ("?", "unparsed", None)],
     {"hca": 0, "published_hca": 0, "published_leaf": 0, "parsers_differ": 2 / 3, "outcome_unparsed": 2 / 3}),
    # stage 1 gave no name: nothing was asked, both are wrong and alike
    ([(None, "truncated", None)] * 3, {"hca": 0, "published_hca": 0, "leaf": 0, "published_leaf": 0, "parsers_differ": 0}),
]  # fmt: skip


def read_twice(bench: Bench, system: str, said: list[Said]) -> None:
    """One image's answers, as ours and as the benchmark's rule read them; a completion that is None was
    not asked for.
    """
    bench.answer(system, "d", "similar", {"i": [mark for _, mark, _ in said]})
    gold = [question["answer_index"] for question in bench.questions["d", "similar"]]
    for row, right, (text, _, theirs) in zip(bench.answers[system, "d", "similar"], gold, said, strict=True):
        row["completion"], row["finish_reason"] = text, "not asked" if text is None else "stop"
        row["published_index"] = None if theirs is None else right if theirs else (right + 1) % 3


def test_published_reading(bench: Bench) -> None:
    """Each case is a system that answers the three questions of one image; a wrong option is the same one
    for both readings.
    """
    bench.dataset(
        "d",
        RANKS[4:],
        {f"S{i}": (f"F{i}", f"G{i}", f"S{i}") for i in range(3)},
        {"i": "S0"},
        scored=(1, 2, 3),
    )
    for number, (said, _) in enumerate(PUBLISHED):
        read_twice(bench, f"s{number}", said)
    found = scored(bench)
    for number, (_, expected) in enumerate(PUBLISHED):
        got = {
            metric: found[f"s{number}", "d", "similar", metric, None, "all"]["value"] for metric in expected
        }
        assert got == {metric: pytest.approx(value) for metric, value in expected.items()}, PUBLISHED[number]


def test_two_wrong_options_differ(bench: Bench) -> None:
    bench.dataset("d", ("species",), {f"S{i}": (f"S{i}",) for i in range(3)}, {"i": "S0"}, scored=[1])
    read_twice(bench, "s", [("Answer: C", F, F)])
    bench.answers["s", "d", "similar"][0]["published_index"] = (
        bench.questions["d", "similar"][0]["answer_index"] + 2
    ) % 3
    value = {k[3]: v["value"] for k, v in scored(bench).items()}
    assert (value["published_hca"], value["hca"], value["parsers_differ"]) == (0, 0, 1)


def test_published_reading_counts_images_not_asked_and_leaves_out_systems_that_write_nothing(
    bench: Bench,
) -> None:
    """The second image was not asked, for want of a name, and stays in the denominator. A lookup has no
    value, which is not 0.
    """
    bench.dataset(
        "d",
        RANKS[4:],
        {f"S{i}": (f"F{i}", f"G{i}", f"S{i}") for i in range(3)},
        {"i": "S0", "j": "S1"},
        scored=(1, 2, 3),
    )
    bench.answer("model", "d", "similar", {"i": [T] * 3, "j": ["truncated"] * 3})
    for row in bench.answers["model", "d", "similar"][3:]:
        row |= {"completion": None, "finish_reason": "not asked"}
    bench.answer("lookup", "d", "similar", {"i": [T] * 3, "j": ["truncated"] * 3}, tokens=None)
    found = {k: (v["value"], v["n"]) for k, v in scored(bench).items() if k[5] == "all"}
    for metric, value in (
        ("hca", 0.5),
        ("published_hca", 0.5),
        ("published_leaf", 0.5),
        ("parsers_differ", 0),
    ):
        assert found["model", "d", "similar", metric, None, "all"] == (value, 2)
    assert {k[3] for k in found if k[0] == "model"} - {k[3] for k in found if k[0] == "lookup"} == {
        "published_hca", "published_leaf", "parsers_differ", "completion_tokens",
    }  # fmt: skip


def test_stage_1_of_another_system_counts_for_its_users(bench: Bench) -> None:
    bench.dataset("d", RANKS, SEVEN, {"i": "S0"}, scored=range(2, 8))
    bench.name("first", "d", {"i": ("S0", SEVEN["S0"])})
    bench.leaf_systems["second"] = "first"
    found = scored(bench)
    assert {k[0] for k in found if k[3] == "open_leaf"} == {"first", "second"}


def test_seen_and_unseen(bench: Bench) -> None:
    images = {f"i{k}": f"S{k}" for k in range(4)}
    bench.dataset("train_set", RANKS, SEVEN, images, scored=range(2, 8))
    bench.dataset("other", RANKS, SEVEN, {f"o{i}": leaf for i, leaf in images.items()}, scored=range(2, 8))
    bench.parts = {"S0": "sft", "S1": "grpo", "S2": "held_out", "S3": "held_out", "S4": "sft"}
    bench.answer("s", "train_set", "similar", {i: [i in ("i0", "i1", "i2")] * 6 for i in images})
    bench.answer("s", "other", "similar", {f"o{i}": [T] * 6 for i in images})
    found = {(k[1], k[5]): (v["value"], v["n"]) for k, v in scored(bench).items() if k[3] == "hca"}
    assert found == {
        ("train_set", "all"): (0.75, 4),
        ("train_set", "seen"): (1, 2),
        ("train_set", "unseen"): (0.5, 2),
        ("other", "all"): (1, 4),
        ("other", "seen"): (1, 2),
        ("other", "unseen"): (1, 2),
    }


def test_what_training_showed_is_seen_in_any_data_set(bench: Bench) -> None:
    """By another spelling of the name, or as the very photo; the photo is told of, too."""
    bench.dataset("learnt", RANKS, SEVEN, {"i0": "S0"}, scored=range(2, 8))
    [row] = bench.images["learnt"]
    train = {"t0": ("S0", "one"), "t1": ("S1", "held")}
    bench.images["learnt"] += [
        row | {"image_id": image, "leaf": leaf, "sha256": digest, "split": "train"}
        for image, (leaf, digest) in train.items()
    ]
    bench.parts = {"S0": "sft"} | {leaf: "held_out" for leaf in SEVEN if leaf != "S0"}
    others = {"s\u00ad0.": (*SEVEN["S0"][:-1], "s\u00ad0."), "S1": SEVEN["S1"]}
    images = {"name": "s\u00ad0.", "copy": "S1", "held": "S1", "none": "S1"}
    digests = {"name": "a", "copy": "one", "held": "held", "none": "b"}
    bench.dataset("other", RANKS, others, images, scored=range(2, 8), sha256=digests)
    bench.answer("s", "learnt", "similar", {"i0": [T] * 6})
    bench.answer("s", "other", "similar", {i: [i in ("name", "copy")] * 6 for i in images})
    found = {(k[1], k[5]): (v["value"], v["n"]) for k, v in scored(bench).items() if k[3] == "hca"}
    assert (found["other", "seen"], found["other", "unseen"]) == ((1, 2), (0, 2))
    [(dataset, words)] = json.loads(facts(Path("results/metrics/scores.parquet"))["notes"])
    assert (dataset, words.partition(" byte")[0]) == ("other", "1 of the test images are")


def test_seen_is_told_however_a_data_set_writes_and_reads() -> None:
    """Underscores, homonyms that are called by their lineages, and photos whose values are read otherwise."""
    learnt = Learnt("a", frozenset(("Rosa canina", "Plantae > Oenanthe")), frozenset(("rosa canina", "oenanthe")),
                    frozenset(("0" * 64,)))  # fmt: skip
    images = pl.DataFrame(
        {
            "leaf": ["Rosa_canina", "Animalia > Oenanthe", "Rosa alba", "Rosa alba"],
            "sha256": ["1" * 64, "1" * 64, "0" * 64 + "+12bit", None],
        }
    )
    assert learnt.saw("b", images).tolist() == [True, True, True, False]
    assert learnt.saw("a", images).tolist() == [False, False, True, False], "by its own names in its own data"
    assert learnt.copies("b", images) == 1


def test_without_training_there_is_nothing_seen(bench: Bench) -> None:
    bench.dataset("d", RANKS, SEVEN, {"i": "S0"}, scored=range(2, 8))
    bench.answer("s", "d", "similar", {"i": [T] * 6})
    sources = bench.sources().model_copy(update={"partition": {}, "trained": {}})
    score(score_task(sources, 10, 0, Path("scores.parquet"), Path("benchmark.duckdb")))
    assert set(pq.read_table("scores.parquet")["subset"].to_pylist()) == {"all"}


def drop(bench: Bench) -> None:
    bench.answers["s", "d", "similar"].pop()


def double(bench: Bench) -> None:
    bench.answers["s", "d", "similar"].append(bench.answers["s", "d", "similar"][0])


def drop_leaf(bench: Bench) -> None:
    bench.leaves["s", "d"].pop()


def drop_taxon(bench: Bench) -> None:
    bench.taxa["d"] = [row for row in bench.taxa["d"] if row["leaf"] != "S0"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (drop, "s, d, similar: of 12 predictions 1 missing, 0 more than once"),
        (double, "s, d, similar: of 12 predictions 0 missing, 1 more than once"),
        (drop_leaf, "s, d, leaf: of 2 predictions 1 missing"),
        (drop_taxon, "d: 6 questions about an image or a level that is not in images and taxa"),
    ],
)
def test_incomplete_predictions_are_refused(bench: Bench, spoil: Callable[[Bench], None], words: str) -> None:
    bench.dataset("d", RANKS, SEVEN, {"i": "S0", "j": "S1"}, scored=range(2, 8))
    bench.answer("s", "d", "similar", {"i": [T] * 6, "j": [T] * 6})
    bench.name("s", "d", {"i": ("S0", SEVEN["S0"]), "j": ("S1", SEVEN["S1"])})
    spoil(bench)
    with pytest.raises(UserError, match=words):
        scored(bench)
    assert (
        not list(Path("results").rglob("*.duckdb*")) and not Path("results/metrics/scores.parquet").exists()
    )


def plain(right: list[bool | str]) -> dict[str, float]:
    """The metrics of one image, written again without SQL."""
    ok = [mark is True for mark in right]
    depth, prefix, run, best = len(ok), 0, 0, 0
    while prefix < depth and ok[prefix]:
        prefix += 1
    for mark in ok:
        run = run + 1 if mark else 0
        best = max(best, run)
    pairs = [a and b for a, b in itertools.pairwise(ok)]
    values = {
        "hca": all(ok),
        "leaf": ok[-1],
        "por": sum(ok) / depth,
        "strict_por_prefix": prefix / depth,
        "strict_por_run": best / depth,
        "tor": sum(pairs) / len(pairs) if pairs else 0.0,
        "outcome_answered": sum(isinstance(mark, bool) for mark in right) / depth,
    }
    return values | ({"hca_given_leaf": all(ok)} if ok[-1] else {})


def test_random_predictions_agree_with_plain_python(bench: Bench) -> None:
    """About 2,000 answers, with missing ranks at random places, several systems and shards."""
    rng = random.Random(0)
    lineages = {
        leaf: tuple(t if k in (0, 1) or rng.random() < 0.8 else None for k, t in enumerate(path))
        for leaf, path in tree([2, 3, 3, 2]).items()
    }
    images = {f"i{k:04}": rng.choice(list(lineages)) for k in range(300)}
    bench.dataset("d", ("order", "family", "genus", "species"), lineages, images, scored=(1, 2, 3, 4))
    said = {
        s: {
            i: marks(rng, sum(t is not None for t in lineages[leaf]), upper, 0.6)
            for i, leaf in images.items()
        }
        for s, upper in (("a", 0.9), ("b", 0.4))
    }
    for system, right in said.items():
        bench.answer(system, "d", "similar", right)
    found = scored(bench, shards=3)
    for system, right in said.items():
        rows = [plain(mark) for mark in right.values()]
        for metric in rows[0] | {"hca_given_leaf": 0}:
            values = [row[metric] for row in rows if metric in row]
            row = found[system, "d", "similar", metric, None, "all"]
            assert (row["value"], row["n"]) == (
                pytest.approx(sum(values) / len(values), abs=1e-9),
                len(values),
            ), metric
            assert row["low"] <= row["value"] <= row["high"]
    hca, leaf, given = (
        found["a", "d", "similar", m, None, "all"]["value"] for m in ("hca", "leaf", "hca_given_leaf")
    )
    assert hca == pytest.approx(leaf * given, abs=1e-12)

    told = differences(Path("results/benchmark.duckdb"), [("a", "b")], ["hca"], 200, 0)
    assert told.keys() == {Compared(("a", "b"), "d", "similar", "hca")}
    value, low, high, p = told.popitem()[1]
    assert value == pytest.approx(hca - found["b", "d", "similar", "hca", None, "all"]["value"])
    assert 0 < low < value < high < 1
    whole = {s: [plain(mark)["hca"] for mark in right.values()] for s, right in said.items()}
    better, worse = (
        sum(pair == wanted for pair in zip(whole["a"], whole["b"], strict=True))
        for wanted in ((1, 0), (0, 1))
    )
    tail = sum(math.comb(better + worse, k) for k in range(min(better, worse) + 1)) / 2 ** (better + worse)
    assert p == pytest.approx(min(1.0, 2 * tail)), "McNemar's exact test"


def test_same_seed_same_bytes_and_shards_do_not_matter(bench: Bench) -> None:
    rng = random.Random(1)
    lineages = tree([3, 3])
    images = {f"i{k}": leaf for k, leaf in enumerate(lineages)}
    bench.dataset("d", ("genus", "species"), lineages, images, scored=(1, 2))
    bench.answer("s", "d", "similar", {i: marks(rng, 2, 0.7, 0.5) for i in images})
    scored(bench)
    first = Path("results/metrics/scores.parquet").read_bytes()
    scored(bench, shards=2)
    assert Path("results/metrics/scores.parquet").read_bytes() == first


def test_database_answers_questions_of_its_own(bench: Bench) -> None:
    bench.dataset("d", RANKS, SEVEN, {"i": "S0"}, scored=range(2, 8))
    bench.answer("s", "d", "similar", {"i": [F, T, T, T, T, T]})
    scored(bench)
    with duckdb.connect("results/benchmark.duckdb", read_only=True) as connection:
        views = {
            name
            for (name,) in connection.sql(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main'"
            ).fetchall()
        }
        assert views >= {"images", "taxa", "questions", "answers", "leaves", "splits", "scores", "per_image"}
        assert connection.sql("SELECT value FROM per_image WHERE metric = 'tor'").fetchall() == [(0.8,)]
        assert connection.sql(
            "SELECT value FROM scores WHERE metric = 'tor' AND subset = 'all'"
        ).fetchall() == [(0.8,)]
        assert connection.sql("SELECT count(*) FROM metrics.level_accuracy").fetchall() == [(6,)]
        text = " ".join(
            sql for (sql,) in connection.sql("SELECT sql FROM duckdb_views() WHERE NOT internal").fetchall()
        )
    assert str(bench.root) not in text


def test_images_without_a_scored_question_are_told(bench: Bench, tmp_path: Path) -> None:
    """In the scores, the database and under the heading of every form of the table; others' n is as it was."""
    lineages: dict[str, Lineage] = {"S0": ("A", "S0"), "S1": ("A", "S1"), "bare": ("A", None)}
    shown = {f"i{k}": ("S0", "S1", "bare")[k % 3] for k in range(12)}
    bench.dataset("d", ("class", "species"), lineages, shown, scored=(1, 2), choices=("similar", "published"))
    bench.dataset("e", ("class", "species"), lineages, {"i": "S0"}, scored=(2,))
    asked = [image for image, leaf in shown.items() if leaf != "bare"]
    for choices in ("similar", "published"):
        bench.answer("s", "d", choices, {image: [T] for image in asked})
    bench.answer("s", "e", "similar", {"i": [T]})
    found = scored(bench)
    assert {row["n"] for key, row in found.items() if key[1] == "d"} == {8}
    scores = Path("results/metrics/scores.parquet")
    assert json.loads(facts(scores)["unasked"]) == [
        ["d", "open_set", 4, 12],
        ["d", "published", 4, 12],
        ["d", "similar", 4, 12],
    ]
    with duckdb.connect("results/benchmark.duckdb", read_only=True) as connection:
        query = "SELECT image_id FROM unasked WHERE choices = 'similar' ORDER BY ALL"
        assert connection.sql(query).fetchall() == [("i11",), ("i2",), ("i5",), ("i8",)]
    made = [tmp_path / f"t.{suffix}" for suffix in ("csv", "md", "tex")]
    tabulate(
        MainTableTask(
            scope="main", labels={"s": "S"}, metrics=tuple(heads.files()), scores=scores, csv=made[0], md=made[1],
            tex=made[2],
        )
    )  # fmt: skip
    line = "4 of 12 images have no scored question: "
    why = [
        "no scored level has a taxon for them and a second one",
        "the benchmark's file asks none about them",
    ]
    text = made[1].read_text()
    assert f"## d, similar choices, n = 8 images\n\n{line}{why[0]}" in text and line + why[1] in text
    assert "## e, similar choices, n = 1 images\n\n|" in text
    assert made[2].read_text().count(line) == 2
    counts = {
        (row["dataset"], row["images"], row["images_without_question"])
        for row in csv.DictReader(made[0].read_text().splitlines())
    }
    assert counts == {("d", "8", "4"), ("e", "1", "")}


def test_a_test_set_without_a_question_that_counts_is_refused(bench: Bench) -> None:
    bench.dataset("d", RANKS, SEVEN, {"i": "S0"}, scored=range(2, 8))
    bench.dataset("e", ("class", "species"), {"a": ("A", None), "b": ("A", "B")}, {"i": "a"}, scored=(1, 2))
    bench.answer("s", "d", "similar", {"i": [T] * 6})
    bench.answer("s", "e", "similar", {})
    with pytest.raises(UserError, match="e, similar choices: no test image has a question that counts"):
        scored(bench)


READ = """
import duckdb, json, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
connection.execute(f"SET file_search_path = '{sys.argv[2]}'")  # as for a program that starts elsewhere
tables = "SELECT table_schema, table_name FROM information_schema.tables ORDER BY ALL"
found = {}
for schema, name in connection.sql(tables).fetchall():
    columns = ", ".join(f'"{name}"' for name in sorted(connection.sql(f'FROM {schema}."{name}"').columns))
    found[f"{schema}.{name}"] = connection.sql(f'SELECT {columns} FROM {schema}."{name}" ORDER BY ALL').fetchall()
print(duckdb.__version__, json.dumps(found, default=str))
"""


def test_the_database_is_written_for_readers_of_old_versions(bench: Bench) -> None:
    """That they read it, the slow test below tries; these are the three things that kept them from it."""
    bench.dataset("d", RANKS, SEVEN, {"i": "S0"}, scored=range(2, 8))
    bench.answer("s", "d", "similar", {"i": [T] * 6})
    scored(bench)
    head = Path("results/benchmark.duckdb").read_bytes()[8:20]
    assert head[:4] == b"DUCK" and int.from_bytes(head[4:], "little") == 64, "64 is that of 0.10 to 1.1"
    with duckdb.connect("results/benchmark.duckdb", read_only=True) as connection:
        views = dict(
            connection.sql("SELECT view_name, sql FROM duckdb_views() WHERE NOT internal").fetchall()
        )
    assert " WITH " not in views["per_image"], "DuckDB 1.4 mixes up tables that are called alike"
    offset = r"\b(lag|lead)\([^()]*,"
    assert not [name for name, sql in views.items() if re.search(offset, sql)], "lost when they are stored"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.1.0", "1.4.4"])
def test_old_versions_read_the_same_in_the_database(bench: Bench, version: str) -> None:
    """As R, DBeaver and shells have them, and from any folder."""
    bench.dataset("d", RANKS, SEVEN, {"i": "S0", "j": "S1"}, scored=range(2, 8))
    bench.answer("s", "d", "similar", {"i": [F, T, T, T, T, T], "j": [T, T, "truncated", F, T, T]})
    bench.name("s", "d", {"i": ("S0", SEVEN["S0"]), "j": ("S1", SEVEN["S1"])})
    scored(bench)
    got = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", "old",
         f"duckdb=={version}"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    if got.returncode:
        pytest.skip(f"DuckDB {version} cannot be had: {got.stderr.strip()}")
    command = [
        sys.executable,
        "-S",
        "-c",
        READ,
        str(bench.root / "results/benchmark.duckdb"),
        str(bench.root),
    ]
    old = subprocess.run(
        command, cwd="/", env={"PYTHONPATH": str(bench.root / "old")}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert old.returncode == 0 and old.stdout.startswith(f"{version} "), old.stderr
    ours = subprocess.run(
        [command[0], *command[2:]], cwd="/", capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(old.stdout.partition(" ")[2]) == json.loads(ours.partition(" ")[2])


def test_scores_have_the_schema_and_no_metric_is_silent(bench: Bench) -> None:
    bench.dataset("d", RANKS, SEVEN, {"i": "S0"}, scored=range(2, 8))
    bench.answer("s", "d", "similar", {"i": [T] * 6})
    bench.name("s", "d", {"i": ("S0", SEVEN["S0"])})
    found = scored(bench)
    assert pq.read_schema("results/metrics/scores.parquet").remove_metadata() == schemas.SCORES
    names = {key[3] for key in found}
    known = heads.read(heads.files())
    assert names == set(known)
    assert {name.removeprefix("outcome_") for name in names if known[name].file.stem == "outcomes"} == set(
        schemas.OUTCOMES
    )


def test_each_metric_says_what_it_means() -> None:
    for name, metric in heads.read(heads.files()).items():
        assert metric.title and metric.meaning, name


def test_level_accuracy_given_leaf(bench: Bench) -> None:
    """Only images with the leaf right count, at every level."""
    bench.dataset("d", RANKS, SEVEN, {"i": "S0", "j": "S1", "k": "S2"}, scored=range(2, 8))
    bench.answer(
        "s",
        "d",
        "similar",
        {"i": [F, T, T, T, T, T], "j": [T, T, F, T, T, T], "k": [F, F, F, F, F, "truncated"]},
    )
    found = scored(bench)
    rows = [found["s", "d", "similar", "level_accuracy_given_leaf", level, "all"] for level in range(2, 8)]
    assert [row["value"] for row in rows] == [0.5, 1, 0.5, 1, 1, 1] and {row["n"] for row in rows} == {2}


SHELL = """
import duckdb, os, sys
shell = duckdb.connect("results/benchmark.duckdb")
shell.execute("CREATE TABLE notes AS SELECT 1 AS mine")
print("open", flush=True)
sys.stdin.readline()
os._exit(0)  # as a window that is closed: what was written is still in a file beside the database
"""


def test_a_shell_that_is_open_on_the_database_is_in_nobody_s_way(bench: Bench) -> None:
    bench.dataset("d", RANKS, SEVEN, {"i": "S0", "j": "S1"}, scored=range(2, 8))
    for system in ("a", "b"):
        bench.answer(system, "d", "similar", {"i": [T] * 6, "j": [T] * 6})
    found = scored(bench)
    database = Path("results/benchmark.duckdb")
    shell = subprocess.Popen(
        [sys.executable, "-c", SHELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert shell.stdout is not None and shell.stdout.readline() == "open\n"
    with pytest.raises(duckdb.IOException, match="lock"):
        duckdb.connect(str(database), read_only=True)
    assert list(differences(database, [("a", "b")], ["hca"], 20, 0).values()) == [(0, 0, 0, 1)]
    assert scored(bench) == found
    shell.communicate("\n")
    with duckdb.connect(str(database)) as connection:
        tables = {name for (name,) in connection.sql("SELECT table_name FROM duckdb_tables()").fetchall()}
        assert "notes" not in tables and connection.sql("SELECT count(*) FROM scores").fetchall()[0][0]


def test_a_database_that_is_none_is_said(bench: Bench) -> None:
    Path("results").mkdir(exist_ok=True)
    Path("results/benchmark.duckdb").write_text("half")
    with pytest.raises(
        UserError, match=r"results/benchmark\.duckdb: .*delete it.* and run the workflow again"
    ):
        differences(Path("results/benchmark.duckdb"), [("a", "b")], ["hca"], 20, 0)


def test_a_flipped_bit_of_a_prediction_is_no_score(bench: Bench) -> None:
    bench.dataset("d", RANKS, SEVEN, {f"i{k}": f"S{k % 5}" for k in range(50)}, scored=range(2, 8))
    bench.answer("s", "d", "similar", {f"i{k}": [T] * 6 for k in range(50)})
    sources = bench.sources()
    (path,) = sources.answers["s", "d", "similar"]
    place = pq.read_metadata(path).row_group(0).column(schemas.PREDICTIONS.get_field_index("answer_index"))
    data = bytearray(path.read_bytes())
    data[place.data_page_offset + place.total_compressed_size // 2] ^= 1
    path.write_bytes(data)
    task = score_task(sources, 20, 0, Path("results/scores.parquet"), Path("results/benchmark.duckdb"))
    with pytest.raises(UserError, match=rf"{path}: is damaged .*; delete it and run the workflow again"):
        score(task)
