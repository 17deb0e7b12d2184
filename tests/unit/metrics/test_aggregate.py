"""Aggregates against other computations: resamples drawn out image by image, classes counted one by one."""

import itertools
import random
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.data.builder import Bench, score_task, tree
from vltaxon.errors import UserError
from vltaxon.metrics import heads
from vltaxon.metrics.aggregate import Aggregate, area, harmonic, macro_f1, means
from vltaxon.metrics.score import score

Pair = tuple[str | None, str | None]


def f1_of(pairs: Sequence[Pair], reading: str) -> float:
    """F1 by counting: the definition of a report per class, with 0 where a class is never hit."""
    pairs = [(truth, said) for truth, said in pairs if truth is not None]
    truths, given = {truth for truth, _ in pairs}, {said for _, said in pairs if said is not None}

    def counts(label: str | None) -> tuple[int, int, int]:
        hit = sum(truth == said == label for truth, said in pairs)
        wrong = sum(said == label != truth for truth, said in pairs)
        missed = sum(truth == label != said for truth, said in pairs)
        return hit, wrong, missed

    if reading == "micro":
        hit, wrong, missed = map(sum, zip(*map(counts, truths | given), strict=True))
        return 2 * hit / (2 * hit + wrong + missed)
    each = []
    for label in truths if reading == "true" else truths | given:
        hit, wrong, missed = counts(label)
        precision = hit / (hit + wrong) if hit + wrong else 0.0
        recall = hit / (hit + missed) if hit + missed else 0.0
        each.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return sum(each) / len(each) if each else float("nan")


def area_of(rows: Sequence[tuple[float, float]]) -> float:
    """Mean value of the images kept, for each image the number that are kept with it, ties together."""
    rows = [
        (value, confidence) for value, confidence in rows if not np.isnan(value) and not np.isnan(confidence)
    ]
    heights = []
    for _, confidence in rows:
        kept = [value for value, other in rows if other >= confidence]
        heights.append(sum(kept) / len(kept))
    return sum(heights) / len(heights) if heights else float("nan")


def weights_of(rng: np.random.Generator, images: int, resamples: int = 30) -> np.ndarray:
    """How often each image is drawn; in the last rows only the first images."""
    drawn = [np.bincount(rng.integers(images, size=images), minlength=images) for _ in range(resamples)]
    few = [np.bincount(rng.integers(2, size=images), minlength=images) for _ in range(3)]
    return np.array(drawn + few, dtype=float)


def drawn_out(weights: np.ndarray) -> list[list[int]]:
    return [[i for i, times in enumerate(row) for _ in range(int(times))] for row in weights]


@pytest.mark.parametrize("reading", ["", "true", "micro"])
@pytest.mark.parametrize("seed", range(4))
def test_f1_is_that_of_each_resample_drawn_out(reading: str, seed: int) -> None:
    """With classes never right, never true, or absent from a resample; images without truth or prediction."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(["a", "b", "c", "rare", None], 40, p=[0.4, 0.3, 0.2, 0.05, 0.05]).astype(object)
    said = np.where(rng.random(40) < 0.6, truth, rng.choice(["a", "b", "Unknown", "A", None], 40)).astype(
        object
    )
    weights = weights_of(rng, 40)
    ours = macro_f1(truth, said, reading)(weights)[:, 0]
    theirs = [f1_of([(truth[i], said[i]) for i in some], reading) for some in drawn_out(weights)]
    assert ours == pytest.approx(theirs, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("pairs", "union", "true", "micro"),
    [
        # two classes, one half right: F1 of a is 2/3 (1 hit, 1 missed), of b 4/5 (2 hits, 1 wrong)
        ([("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")], (2 / 3 + 4 / 5) / 2, (2 / 3 + 4 / 5) / 2, 3 / 4),
        # a label that exists nowhere is a class of its own, with F1 0
        ([("a", "a"), ("b", "Unknown")], 1 / 3, 1 / 2, 1 / 2),
        # letters count as they are
        ([("a", "A")], 0, 0, 0),
        # no answer hits nothing and is no class: F1 of a is 2/3
        ([("a", "a"), ("a", None)], 2 / 3, 2 / 3, 2 / 3),
    ],
)
def test_f1_by_hand(pairs: list[Pair], union: float, true: float, micro: float) -> None:
    truth, said = (np.array(labels, dtype=object) for labels in zip(*pairs, strict=True))
    once = np.ones((1, len(pairs)))
    found = [float(macro_f1(truth, said, reading)(once)[0, 0]) for reading in ("", "true", "micro")]
    assert found == pytest.approx([union, true, micro])


def test_a_resample_without_a_label_has_no_f1() -> None:
    truth = np.array([None, "a"], dtype=object)
    values = macro_f1(truth, truth, "")(np.array([[2.0, 0.0], [1.0, 1.0]]))
    assert np.isnan(values[0, 0]) and values[1, 0] == 1


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_area_is_that_of_each_resample_drawn_out(levels: int, seed: int) -> None:
    """With many ties in confidence and with none, and images that have none."""
    rng = np.random.default_rng(seed)
    value = np.where(rng.random(30) < 0.1, np.nan, (rng.random(30) < 0.6).astype(float))
    confidence = np.where(rng.random(30) < 0.1, np.nan, rng.integers(levels, size=30) / levels)
    weights = weights_of(rng, 30)
    theirs = [area_of([(value[i], confidence[i]) for i in some]) for some in drawn_out(weights)]
    assert area(value, confidence)(weights)[:, 0] == pytest.approx(theirs, abs=1e-12, nan_ok=True)


def test_area_by_hand() -> None:
    """The surest is right, the next two are tied, one of them right, the last is wrong."""
    value, confidence = np.array([1.0, 1, 0, 0]), np.array([0.9, 0.5, 0.5, 0.1])
    assert area(value, confidence)(np.ones((1, 4)))[0, 0] == pytest.approx((1 + 2 / 3 + 2 / 3 + 1 / 2) / 4)


def test_harmonic_mean() -> None:
    a, b = np.array([0.5, 0.0, 0.0, 1.0, np.nan]), np.array([0.25, 0.0, 0.7, 1.0, 0.5])
    assert harmonic(a, b) == pytest.approx([1 / 3, 0, 0, 1, np.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("median", 'not one of area, harmonic, macro_f1, mean. Did you mean "mean"'),
        ("harmonic(a)", "harmonic is told two metrics in parentheses"),
        ("macro_f1(macro)", "macro_f1 is told nothing or true or micro in parentheses"),
        ("mean(hca)", "mean is told nothing in parentheses"),
    ],
)
def test_an_aggregate_that_cannot_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(").replace(".", r"\.")):
        Aggregate.parse(text)


# -- as files of metrics --

HEAD = "-- title: X\n-- meaning: y\n-- unit: share\n"
LABELLED = """-- title: Macro F1
-- meaning: F1 of the labels of a level, averaged over the classes
-- unit: share
-- aggregate: macro_f1{reading}
SELECT answers.system, answers.dataset, answers.choices, answers.image_id, answers.level,
    questions.options[questions.answer_index + 1] AS truth, coalesce(answers.answer, 'Unknown') AS predicted
FROM answers JOIN questions USING (dataset, choices, question_id)
WHERE questions.scored
"""
NEW = {
    "f1": LABELLED.format(reading=""),
    "f1_true": LABELLED.format(reading="(true)"),
    "f1_micro": LABELLED.format(reading="(micro)"),
    "both": f"{HEAD}-- aggregate: harmonic(hca, leaf)\n",
    "risk": f"{HEAD}-- aggregate: area\n"
    "SELECT system, dataset, choices, image_id, bool_and(correct) AS value, avg(completion_tokens) AS"
    " confidence\n"
    "FROM judged GROUP BY ALL\n",
}  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Two systems on 60 images of two levels, some answers missing; half of the species are seen."""
    monkeypatch.chdir(tmp_path)
    rng, lineages = random.Random(0), tree([3, 3])
    images = {f"i{k:02}": leaf for k, leaf in enumerate(itertools.islice(itertools.cycle(lineages), 60))}
    made = Bench(tmp_path)
    made.dataset("d", ("genus", "species"), lineages, images, scored=(1, 2))
    made.parts = {leaf: "sft" if k % 2 else "held_out" for k, leaf in enumerate(lineages)}
    for system in ("a", "b"):
        marks = {i: [rng.choice([True, True, False, "unparsed"]), rng.random() < 0.5] for i in images}
        made.answer(system, "d", "similar", marks)
        for row in made.answers[system, "d", "similar"]:
            row["completion_tokens"] = int(row["image_id"][1:]) % 7
    return made


def add(folder: Path, **texts: str) -> list[Path]:
    """The files of the package's metrics, and new ones."""
    for name, text in texts.items():
        (folder / f"{name}.sql").write_text(text)
    return [*heads.files(), *(folder / f"{name}.sql" for name in texts)]


def scores(bench: Bench, metrics: Sequence[Path], bootstrap: int = 40) -> list[dict[str, object]]:
    score(score_task(bench.sources(), bootstrap, 3, Path("scores.parquet"), Path("b.duckdb"), metrics))
    rows: list[dict[str, object]] = pq.read_table("scores.parquet").to_pylist()
    return rows


def test_a_new_file_is_a_new_metric_and_changes_no_other(bench: Bench, tmp_path: Path) -> None:
    before = scores(bench, ())
    after = scores(bench, add(tmp_path, **NEW))
    assert [row for row in after if row["metric"] not in NEW] == before
    found = {(r["system"], r["metric"], r["level"], r["subset"]): r for r in after if r["metric"] in NEW}
    assert {key[1] for key in found} == set(NEW) and {key[3] for key in found} == {"all", "seen", "unseen"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in found.values())  # type: ignore[operator]
    value = {(r["system"], r["metric"], r["subset"]): r["value"] for r in before if r["level"] is None}
    for system, subset in itertools.product("ab", ("all", "seen", "unseen")):
        hca, leaf = (float(value[system, metric, subset]) for metric in ("hca", "leaf"))  # type: ignore[arg-type]
        assert found[system, "both", None, subset]["value"] == pytest.approx(2 * hca * leaf / (hca + leaf))


def test_values_and_intervals_are_those_of_the_rows(bench: Bench, tmp_path: Path) -> None:
    """The draws, drawn out here one by one, are those of the means: the same generator, seed and images."""
    found = {
        (r["system"], r["metric"], r["level"], r["subset"]): r for r in scores(bench, add(tmp_path, **NEW))
    }
    questions = {q["question_id"]: q for q in bench.questions["d", "similar"]}
    answers = sorted(bench.answers["a", "d", "similar"], key=lambda row: str(row["image_id"]))
    level = [row for row in answers if row["level"] == 2]
    pairs: list[Pair] = [
        (
            questions[r["question_id"]]["options"][questions[r["question_id"]]["answer_index"]],
            r["answer"] or "Unknown",
        )
        for r in level
    ]
    right = [
        float(
            all(
                r["answer_index"] == questions[r["question_id"]]["answer_index"]
                for r in answers
                if r["image_id"] == image
            )
        )
        for image in sorted({str(row["image_id"]) for row in answers})
    ]
    tokens = [float(int(row["image_id"][1:]) % 7) for row in level]
    rng = np.random.default_rng((3, zlib.crc32(b"d")))
    draws = [rng.integers(60, size=60).tolist() for _ in range(40)]
    cases: dict[str, tuple[int | None, Callable[[list[int]], float]]] = {
        "f1": (2, lambda some: f1_of([pairs[i] for i in some], "")),
        "f1_true": (2, lambda some: f1_of([pairs[i] for i in some], "true")),
        "f1_micro": (2, lambda some: f1_of([pairs[i] for i in some], "micro")),
        "risk": (None, lambda some: area_of([(right[i], tokens[i]) for i in some])),
    }
    for metric, (at, value) in cases.items():
        row = found["a", metric, at, "all"]
        low, high = np.percentile([value(some) for some in draws], (2.5, 97.5))
        assert [row["value"], row["low"], row["high"], row["n"]] == pytest.approx(
            [value(list(range(60))), low, high, 60]
        ), metric


def test_a_share_that_never_varies_gets_wilsons_interval(bench: Bench, tmp_path: Path) -> None:
    for row, question in zip(
        bench.answers["a", "d", "similar"], itertools.cycle(bench.questions["d", "similar"]), strict=False
    ):
        assert row["question_id"] == question["question_id"]
        row |= {"outcome": "answered", "answer_index": question["answer_index"]}
        row["answer"] = question["options"][question["answer_index"]]
    found = {
        (r["system"], r["metric"], r["level"], r["subset"]): r for r in scores(bench, add(tmp_path, **NEW))
    }
    for metric, level in (("f1_micro", 1), ("both", None), ("risk", None)):
        row = found["a", metric, level, "all"]
        assert row["value"] == row["high"] == 1 and 0.9 < float(row["low"]) < 0.95, metric  # type: ignore[arg-type]


def test_means_alone_are_enough_and_so_is_f1_alone(bench: Bench, tmp_path: Path) -> None:
    alone = scores(bench, add(tmp_path, f1=NEW["f1"])[-1:])
    both = [row for row in scores(bench, add(tmp_path, f1=NEW["f1"])) if row["metric"] == "f1"]
    assert alone == both != []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (NEW["f1"].replace("predicted\nFROM", "x\nFROM"), "its SELECT has no column predicted; macro_f1 needs it"),
        (f"{HEAD}SELECT 1", "has no column system, dataset, choices, image_id, value"),
        (f"{HEAD}SELECT nothing FROM judged", "new.sql: Binder Error"),
        (f"{HEAD}SELECT *, 'odd' AS metric, 1 AS value FROM judged", "gives odd, which no head"),
        (f"{HEAD}SELECT * EXCLUDE (level), 1 AS value FROM judged", "gives an image two values"),
        (f"{HEAD}SELECT *, 1.5 AS value FROM judged", "new is 1.5 for an image; a share is from 0 to 1"),
        (f"{HEAD}SELECT *, 'nan'::DOUBLE AS value FROM judged", "new is nan for an image"),
        (f"{HEAD}SELECT *, 'inf'::DOUBLE AS value FROM judged".replace("share", "count"), "new is inf for"),
        ("SELECT 1", "new has no line `-- title: ...`"),
        ("-- title: X\n-- meaning: y\n-- unti: share\n", 'is not one of .* Did you mean "unit"'),
        ("-- title: X\n-- meaning: y\n-- unit: percent\n", 'unit: "percent" is not one of count, share'),
        (f"{HEAD}-- group: main\n", "group: not of the form"),
        (f"{HEAD}-- warn: often bad\n", "warn: not of the form"),
        ("-- title: X\n-- title: Z\n-- meaning: y\n-- unit: share\n", "title stands twice"),
        (f"{HEAD}-- aggregate: harmonic(hca, laef)\n", 'laef" is not one of .*"leaf"'),
        (f"{HEAD}-- metric: hca\n", r"hca is a metric of .*hca\.sql, too"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_scored_is_told_in_words(
    bench: Bench, tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        scores(bench, add(tmp_path, new=text))
    assert not Path("scores.parquet").exists() and not Path("b.duckdb").exists()


def test_means_of_weights_are_those_of_the_images_drawn() -> None:
    rng = np.random.default_rng(0)
    values = np.where(rng.random((25, 3)) < 0.2, np.nan, rng.random((25, 3)))
    weights = weights_of(rng, 25)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a resample may miss every value
        theirs = [np.nanmean(values[some], axis=0) for some in drawn_out(weights)]
    assert means(values)(weights) == pytest.approx(np.array(theirs), nan_ok=True)
