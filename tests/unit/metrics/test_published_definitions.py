"""The metrics against the benchmark's definitions, computed anew from what we export in its JSON format.

The definitions are those of its metric script (Tan et al., arXiv 2505.24840), edge cases included; the longest run is TARA's
(arXiv 2603.00431, eq. 7). Where our metrics differ on purpose, a test below says on which inputs.
"""

import contextlib
import itertools
import json
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.data.builder import Bench, Lineage, score_task, tree
from vltaxon import schemas
from vltaxon.exchange.export import export_predictions
from vltaxon.metrics.score import score
from vltaxon.parsing import Reading, published_index, read_choice
from vltaxon.tasks.questions import ExportAnswersTask
from vltaxon.tasks.scoring import Sources

IMAGES = 5_000  # of each of the two kinds of data set: 10,000 in all
RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
Entry = dict[str, Any]


# -- the definitions -------------------------------------------------------------------------------------------------------


def taxa_of(entry: Entry, key: str, first: int) -> list[str]:
    """The taxa under a key, root first: from level `first` to the first level without the key; null ones are left out."""
    levels = itertools.takewhile(lambda level: f"{key}{level}" in entry, itertools.count(first))
    return [entry[f"{key}{level}"].lower() for level in levels if entry[f"{key}{level}"] is not None]


def pairs_of(entries: Iterable[Entry], first: int) -> list[tuple[list[str], list[str]]]:
    """True and predicted taxa of each entry; one that lacks either leaves the denominator."""
    pairs = [
        (taxa_of(entry, "ground_truth_level", first), taxa_of(entry, "predicted_level", first))
        for entry in entries
    ]
    return [pair for pair in pairs if all(pair)]


def measured(entries: Sequence[Entry], first: int) -> dict[str, float]:
    """Means over the entries; position by position, however long the predicted list is."""
    sums, pairs = (
        dict.fromkeys(("hca", "leaf", "por", "strict_por_prefix", "strict_por_run", "tor"), 0.0),
        pairs_of(entries, first),
    )
    for truth, said in pairs:
        depth, right = len(truth), [said[at : at + 1] == [taxon] for at, taxon in enumerate(truth)]
        prefix = sum(1 for _ in itertools.takewhile(bool, right))
        runs = [len(list(group)) for value, group in itertools.groupby(right) if value]
        both = sum(right[at] and right[at + 1] for at in range(depth - 1))
        sums["hca"] += said == truth
        sums["leaf"] += said[-1] == truth[-1]
        sums["por"] += sum(right) / depth
        sums["strict_por_prefix"] += prefix / depth
        sums["strict_por_run"] += max(runs, default=0) / depth
        sums["tor"] += both / (depth - 1) if depth > 1 else 0
    return {name: total / len(pairs) for name, total in sums.items()}


def by_position(entries: Sequence[Entry], first: int) -> dict[int, float]:
    """Accuracy of each place in the list of true taxa, over the entries whose list is that long."""
    right: dict[int, list[bool]] = {}
    for truth, said in pairs_of(entries, first):
        for at, taxon in enumerate(truth):
            right.setdefault(at + first, []).append(said[at : at + 1] == [taxon])
    return {level: sum(values) / len(values) for level, values in right.items()}


def letter_of(completion: str | None, shown: Iterable[str]) -> str | None:
    """The benchmark's reading: the first of A, B, C, D anywhere, if it is shown."""
    found = next((letter for letter in "ABCD" if letter in (completion or "")), None)
    return found if found in shown else None


def reread(entry: Entry) -> Entry:
    """The entry as the benchmark's evaluators, which read by that rule, would have written it."""
    changed = dict(entry)
    for key, options in entry.items():
        if key.startswith("choices_level"):
            level = key.removeprefix("choices_level")
            letter = letter_of(entry[f"prediction_level{level}"], options)
            changed[f"predicted_level{level}"] = "Unknown" if letter is None else options[letter]
    return changed


def differing(entries: Sequence[Entry], first: int) -> float:
    """Mean share of an entry's answers that the two readings take for different letters."""
    shares = []
    for entry in entries:
        levels = [level for level in range(first, len(RANKS) + 1) if f"choices_level{level}" in entry]
        theirs = [
            letter_of(entry[f"prediction_level{level}"], entry[f"choices_level{level}"]) or "Unknown"
            for level in levels
        ]
        ours = [entry[f"predicted_level{level}_letter"] for level in levels]
        shares += [sum(a != b for a, b in zip(ours, theirs, strict=True)) / len(levels)] if levels else []
    return sum(shares) / len(shares)


# -- random predictions ----------------------------------------------------------------------------------------------------


def said(rng: random.Random, skill: float, gold: int, options: Sequence[str]) -> tuple[str, str, Reading]:
    """A completion, why it ended, and how inference reads it: right, wrong, or no answer in one of many ways."""
    right, wrong = "ABCD"[gold], "ABCD"[(gold + 1) % len(options)]
    slips = (
        wrong, wrong, f"{wrong}. {options[(gold + 1) % len(options)]}", f"Answer: {right}", right.lower(), options[gold].upper(),
        "D", "E", "", "Based on its leaves", "The Correct one", "I'm sorry, I can't tell", "<think>Kingdom: Pl",
        f"{right} or {wrong}",
    )  # fmt: skip
    completion = right if rng.random() < skill else rng.choice(slips)
    reason = "length" if completion.startswith("<think>") else "stop"
    return completion, reason, read_choice(completion, options, "bare", reason)


def answered(bench: Bench, rng: random.Random) -> None:
    """What a model said, one image in twenty not asked for want of a name; and what a lookup gave, which writes nothing."""
    skills: dict[str, float | None] = {}
    for question in bench.questions["d", "similar"]:
        image, gold, options = question["image_id"], question["answer_index"], question["options"]
        skill = skills.setdefault(image, rng.choice([0.3, 0.8, 0.97, 0.99]) if rng.random() < 0.95 else None)
        ids = {key: question[key] for key in ("question_id", "image_id", "level")}
        blank: Entry = dict.fromkeys(schemas.PREDICTIONS.names) | ids | {"stage": "answer"}
        if skill is None:
            row = blank | {"outcome": "truncated", "finish_reason": "not asked"}
        else:
            text, reason, reading = said(rng, skill, gold, options)
            seen = {
                "completion": text,
                "finish_reason": reason,
                "published_index": published_index(text, options),
            }
            row = (
                blank
                | seen
                | {"outcome": reading.outcome, "answer": reading.answer, "answer_index": reading.index}
            )
            if rng.random() < 0.01:
                row |= {"outcome": "error", "completion": "", "published_index": None, "answer_index": None}
        bench.answers.setdefault(("model", "d", "similar"), []).append(row)
        index = gold if rng.random() < 0.8 else rng.choice([None, (gold + 1) % len(options)])
        looked_up = (
            {"outcome": "unparsed"} if skill is None else {"outcome": "answered", "answer_index": index}
        )
        bench.answers.setdefault(("lookup", "d", "similar"), []).append(blank | looked_up)


def ragged(rng: random.Random, first: int) -> Bench:
    """A data set of `IMAGES` images whose taxa and questions have gaps anywhere: ranks that are missing, levels not asked.

    Each level from `first` on has two labels or more; above it is a root with one, which is asked and not scored.
    """
    lineages: dict[str, Lineage] = dict(tree([1, 3, 2, 2, 2, 2, 2] if first == 2 else [3, 2, 2, 2]))
    for leaf in rng.sample(sorted(lineages), len(lineages) // 3):
        gaps = rng.sample(range(first - 1, len(lineages[leaf])), rng.randint(1, 2))
        lineages[leaf] = tuple(None if at in gaps else taxon for at, taxon in enumerate(lineages[leaf]))
    images = {f"i{k:05}": rng.choice(sorted(lineages)) for k in range(IMAGES)}
    bench, depth = Bench(Path.cwd()), len(next(iter(lineages.values())))
    bench.dataset(
        "d", RANKS[-depth:], lineages, images, range(first, depth + 1), member={i: f"{i}.jpg" for i in images}
    )
    keep = {
        i: rng.sample(range(1, depth + 1), rng.randint(1, depth)) if rng.random() < 0.2 else range(9)
        for i in images
    }
    asked = [q for q in bench.questions["d", "similar"] if q["level"] in keep[q["image_id"]]]
    bench.questions["d", "similar"] = asked
    return bench


def exported(sources: Sources, system: str) -> list[Entry]:
    """A system's answers in the benchmark's JSON."""
    task = ExportAnswersTask(
        questions=sources.questions["d", "similar"],
        images=sources.images["d"],
        taxa=sources.taxa["d"],
        records=None,
        answers=tuple(sources.answers[system, "d", "similar"]),
        output=Path(f"{system}.json"),
    )
    export_predictions(task)
    found: list[Entry] = json.loads(Path(f"{system}.json").read_text(encoding="utf-8"))
    return found


def scored(sources: Sources) -> dict[tuple[str, str, int | None], float]:
    """Our values by system, metric and level."""
    score(score_task(sources, 2, 0, Path("scores.parquet"), Path("b.duckdb")))
    rows = pq.read_table("scores.parquet").to_pylist()
    return {
        (row["system"], row["metric"], row["level"]): row["value"] for row in rows if row["subset"] == "all"
    }


def taken(entry: Entry) -> bool:
    """Whether truth and prediction are null at the same levels, and have keys for all of them."""
    truth, said = (
        {
            key.removeprefix(kind): value is None
            for key, value in entry.items()
            if re.fullmatch(rf"{kind}\d+", key)
        }
        for kind in ("ground_truth_level", "predicted_level")
    )
    return truth == said and truth.keys() == {str(level) for level in range(1, len(truth) + 1)}


def whole(entry: Entry) -> bool:
    """Whether no level is missing above one that is asked, so that a taxon's place in the list is its level."""
    return all(entry[key] is not None for key in entry if key.startswith("ground_truth_level"))


@pytest.mark.parametrize("first", [1, 2], ids=["all levels, as for CUB", "without the root, as for iNat"])
def test_metrics_are_the_benchmark_s_on_what_we_export(tmp_path: Path, first: int) -> None:
    """Nulls, unknowns and gaps included: an entry has both keys for every level, so the loop of the script goes on over gaps."""
    with contextlib.chdir(tmp_path):
        rng = random.Random(first)
        bench = ragged(rng, first)
        answered(bench, rng)
        sources = bench.sources(shards=3)
        ours = scored(sources)
        entries = {system: exported(sources, system) for system in ("model", "lookup")}
        with duckdb.connect("b.duckdb", read_only=True) as connection:
            levels = connection.sql(
                "SELECT system, level, image_id || '.jpg', value FROM per_image WHERE metric = 'level_accuracy'"
            ).fetchall()
    for system, found in entries.items():
        assert all(taken(entry) for entry in found), (
            "a prediction without truth, or the reverse, would shift those below"
        )
        theirs = measured(found, first)
        assert len(set(theirs.values())) == len(theirs) and all(
            0.1 < value < 0.9 for value in theirs.values()
        )
        assert {name: ours[system, name, None] for name in theirs} == pytest.approx(theirs, abs=1e-9)
        gapless = [entry for entry in found if whole(entry)]
        names = {entry["image"] for entry in gapless}
        assert len(found) * 0.2 < len(gapless) < len(found) * 0.9
        values: dict[int, list[float]] = {}
        for said_by, level, image, value in levels:
            if said_by == system and image in names:
                values.setdefault(level, []).append(value)
        mine = {level: sum(right) / len(right) for level, right in values.items()}
        assert mine == pytest.approx(by_position(gapless, first), abs=1e-9)
        by_key = {
            level: [entry[f"predicted_level{level}"].lower() == entry[f"ground_truth_level{level}"].lower()
                    for entry in found if entry.get(f"ground_truth_level{level}") is not None]
            for level in mine
        }  # fmt: skip
        for level, right in by_key.items():
            assert ours[system, "level_accuracy", level] == pytest.approx(sum(right) / len(right), abs=1e-9)
    theirs = measured([reread(entry) for entry in entries["model"]], first)
    for name in ("hca", "leaf"):
        assert ours["model", f"published_{name}", None] == pytest.approx(theirs[name], abs=1e-9)
        assert abs(theirs[name] - ours["model", name, None]) > 0.01, "the two readings are told apart"
        assert ("lookup", f"published_{name}", None) not in ours
    assert ours["model", "parsers_differ", None] == pytest.approx(
        differing(entries["model"], first), abs=1e-9
    )


# -- where they differ -----------------------------------------------------------------------------------------------------


def one_image(lineages: dict[str, Lineage], right: Sequence[bool], scored_levels: Sequence[int]) -> Sources:
    """One image of `x`, all of whose questions are answered, those with one option included."""
    bench = Bench(Path.cwd())
    ranks = RANKS[-len(lineages["x"]) :]
    bench.dataset("d", ranks, lineages, {"i": "x"}, scored_levels, member={"i": "i.jpg"})
    for question in bench.questions["d", "similar"]:
        question["scored"] = True
    bench.answer("s", "d", "similar", {"i": right})
    for question in bench.questions["d", "similar"]:
        question["scored"] = question["level"] in scored_levels and len(question["options"]) > 1
    return bench.sources()


def test_a_gap_ends_a_lineage_only_in_the_benchmark_s_own_files(tmp_path: Path) -> None:
    """Its evaluators write no key for a null level, and its script stops there. Phylum and class right is then all right."""
    lineages = {"x": ("K", "P", "C", None, "F", "G", "x"), "y": ("K", "Q", "D", "O", "E", "H", "y")}
    with contextlib.chdir(tmp_path):
        sources = one_image(lineages, [True, True, True, False, False, False], range(2, 8))
        ours, [entry] = scored(sources), exported(sources, "s")
    assert measured([entry], 2)["hca"] == ours["s", "hca", None] == 0
    assert measured([entry], 2)["por"] == ours["s", "por", None] == 2 / 5
    theirs = {key: value for key, value in entry.items() if value is not None}
    assert measured([theirs], 2)["hca"] == measured([theirs], 2)["leaf"] == 1


def test_a_place_in_the_list_is_not_a_level_below_a_gap(tmp_path: Path) -> None:
    """Accuracy by place counts what stands below a missing order as the order; ours is by level, among images that have it."""
    lineages = {"x": ("C", None, "F", "G", "x"), "y": ("D", "O", "E", "H", "y")}
    with contextlib.chdir(tmp_path):
        sources = one_image(lineages, [True, False, True, True], range(1, 6))
        ours, [entry] = scored(sources), exported(sources, "s")
    assert by_position([entry], 1) == {1: 1, 2: 0, 3: 1, 4: 1}
    assert {level: value for (_, name, level), value in ours.items() if name == "level_accuracy"} == {
        1: 1,
        3: 0,
        4: 1,
        5: 1,
    }


def test_a_level_with_one_option_is_a_question_to_the_script_alone(tmp_path: Path) -> None:
    """All of one family: the family is asked and exported, but says nothing of a system, and is not scored here."""
    lineages = {"x": ("C", "F", "G", "x"), "y": ("D", "F", "H", "y")}
    with contextlib.chdir(tmp_path):
        sources = one_image(lineages, [True, True, False, False], range(1, 5))
        ours, [entry] = scored(sources), exported(sources, "s")
    assert measured([entry], 1)["por"] == 2 / 4
    assert ours["s", "por", None] == 1 / 3


def test_no_answer_is_wrong_even_where_a_taxon_is_called_unknown(tmp_path: Path) -> None:
    lineages = {"x": ("G", "Unknown"), "y": ("H", "y")}
    with contextlib.chdir(tmp_path):
        bench = Bench(tmp_path)
        bench.dataset("d", RANKS[-2:], lineages, {"i": "x"}, (1, 2), member={"i": "i.jpg"})
        bench.answer("s", "d", "similar", {"i": [True, "unparsed"]})
        sources = bench.sources()
        ours, [entry] = scored(sources), exported(sources, "s")
    assert measured([entry], 1)["leaf"] == ours["s", "leaf", None] == 0
