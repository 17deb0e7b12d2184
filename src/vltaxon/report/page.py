"""The report: one HTML file with everything in it, made from the scores, the database and the images."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vltaxon import schemas
from vltaxon.config import System
from vltaxon.data.images import ImageStore
from vltaxon.metrics.run import connect, difference
from vltaxon.provenance import atomic, facts, origin, read_parquet
from vltaxon.report.estimates import OPEN, Estimate, Scores
from vltaxon.report.tables import SPECIES, blocks, caption, written
from vltaxon.report.usage import HEADINGS, NOTE, usage

_SITE = Path(__file__).parent / "site"
_THUMBNAIL = 240 * 240

FIGURES = {
    "level_accuracy": (
        "Accuracy per level, from the root to the leaf",
        "Points: share of the images right at a level; bars: 95 % intervals; dotted: what a random choice scores.",
    ),
    "hca_leaf": (
        "Whole lineage against leaf",
        "A system on the dotted line knows the lineage of each leaf it knows; below it, leaves are known without their lineage.",
    ),
    "training": (
        "Training",
        "Pale: each logged step; bold: running mean over a tenth of the curve. Reward is the mean over a batch of completions.",
    ),
}


@dataclass(frozen=True)
class Mark:
    """What a system said of one level; `right` is None where it said nothing that can be read."""

    said: str
    right: bool | None

    @property
    def sign(self) -> str:
        """A sign beside the colour, for readers who do not see it."""
        return {True: "✓", False: "✗", None: "?"}[self.right]

    @property
    def word(self) -> str:
        """The sign in words, for screen readers."""
        return {True: "right", False: "wrong", None: "no answer"}[self.right]


@dataclass(frozen=True)
class Example:
    """A test image with what each system said of it."""

    image_id: str
    data: str
    truth: Mapping[int, str]
    ranks: Mapping[int, str]
    systems: Sequence[tuple[str, Mapping[int, Mark]]]
    stage1: Sequence[tuple[str, str, str]]  # label, outcome, completion


def write_report(
    *,
    scores: Path,
    database: Path,
    images: Path,
    figures: Mapping[str, Path],
    records: Mapping[str, Path],
    systems: Mapping[str, System],
    settings: Mapping[str, Any],
    benchmarks: Path,
    main: str,
    choices: str,
    baseline: str,
    best: str,
    examples: int,
    bootstrap: int,
    seed: int,
    output: Path,
) -> None:
    """Write the report.

    Args:
        scores: scores.parquet.
        database: benchmark.duckdb, whose relative paths must hold here.
        images: images.parquet of the main data set.
        figures: SVG files by name (`level_accuracy`, `hca_leaf`, `training`).
        records: record.json of each training step, by the name to show.
        systems: the systems by name, in the order of the tables.
        settings: what was run, to show as a table: name to value, or to a mapping of names to values.
        benchmarks: folder of Snakemake's benchmark files, which may be empty or absent.
        main: data set of the headline and the examples.
        choices: kind of options of the headline and the examples.
        baseline: system that the headline compares with.
        best: system that the headline is about.
        examples: how many images to show, spread over the species.
        bootstrap: resamples of the headline's difference.
        seed: of the draw of examples and of the resamples.
        output: the HTML file.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Scores.read(scores)
    labels = {name: system.label or name for name, system in systems.items()}
    gain = difference(database, main, choices, "hca", (best, baseline), bootstrap, seed)
    environment = Environment(
        loader=FileSystemLoader(_SITE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("index.html.j2").render(
        css=(_SITE / "style.css").read_text(encoding="utf-8"),
        script=(_SITE / "sort.js").read_text(encoding="utf-8"),
        headline=headline(found, labels, main, choices, best, baseline, gain),
        main=[block.spared() for block in blocks(found, labels)],
        species=blocks(found, labels, SPECIES),
        labels=labels,
        written=written,
        caption=caption(),
        figures=[(*FIGURES[name], _uri(path.read_bytes(), "image/svg+xml")) for name, path in figures.items()],
        systems=systems,
        settings={name: _flat(value) for name, value in settings.items()},
        origin=origin() | {"scored by": facts(scores).get("commit", "unknown")},
        records={name: _flat(json.loads(path.read_text(encoding="utf-8"))) for name, path in records.items()},
        main_dataset=main,
        choices=choices,
        usage=[row.written() for row in usage(benchmarks)],
        headings=HEADINGS,
        note=NOTE,
        examples=_examples(database, images, labels, main, choices, examples, seed),
    )
    with atomic(output) as part:
        part.write_text(page, encoding="utf-8")


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def headline(
    scores: Scores,
    labels: Mapping[str, str],
    dataset: str,
    choices: str,
    best: str,
    baseline: str,
    gain: tuple[float, float, float] | None,
) -> list[str]:
    """The result in two sentences, in the direction that the numbers have; empty where one of the two has no score."""
    hca = {s: scores.get(dataset, choices, s, "hca") for s in (best, baseline)}
    leaf = scores.get(dataset, choices, baseline, "leaf")
    mine, other = hca[best], hca[baseline]
    if mine is None or other is None or leaf is None or gain is None:
        return []
    points, low, high = (100 * number for number in gain)
    verdict = f"{points:+.1f} points" if low * high > 0 else f"{points:+.1f} points, not told apart from none"
    return [
        f"{labels[best]} gets the whole lineage right for {_percent(mine)} of the test images of {dataset} ({choices} choices),"
        f" {labels[baseline]} for {_percent(other)}: {verdict} [{low:+.1f}, {high:+.1f}], paired by image.",
        f"{labels[baseline]} gets the leaf right for {_percent(leaf)}.",
    ]


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _flat(value: Any) -> dict[str, str]:
    """A value as named strings: a mapping line by line, anything else under an empty name."""
    items = value.items() if isinstance(value, Mapping) else [("", value)]
    return {str(name): item if isinstance(item, str) else json.dumps(item, default=str) for name, item in items}


def _drawn(images: Path, count: int, seed: int) -> list[str]:
    """Test images, drawn with a seed so that no species comes twice before every species came once."""
    table = read_parquet(images, schemas.IMAGES, ["image_id", "leaf", "split"])
    by_leaf: dict[str, list[str]] = {}
    for row in sorted(table.to_pylist(), key=lambda row: str(row["image_id"])):
        if row["split"] == "test":
            by_leaf.setdefault(row["leaf"], []).append(row["image_id"])
    rng = np.random.default_rng(seed)
    shuffled = [list(rng.permutation(by_leaf[leaf])) for leaf in rng.permutation(sorted(by_leaf))]
    rounds = [mine[turn] for turn in range(max(map(len, shuffled), default=0)) for mine in shuffled if turn < len(mine)]
    return [str(image) for image in rounds[:count]]


def _examples(
    database: Path, images: Path, labels: Mapping[str, str], dataset: str, choices: str, count: int, seed: int
) -> list[Example]:
    """The images drawn, with true lineage and answers read from the database."""
    drawn, store = _drawn(images, count, seed), ImageStore(images)
    given = {"dataset": dataset, "choices": choices, "ids": drawn}
    with connect(database, read_only=True) as connection:

        def rows(query: str) -> list[tuple[Any, ...]]:
            used = {name: value for name, value in given.items() if f"${name}" in query}
            found: list[tuple[Any, ...]] = connection.sql(query, params=used).fetchall()
            return found

        truth = rows("""
            SELECT image_id, level, rank, taxon FROM images JOIN taxa USING (dataset, leaf)
            WHERE dataset = $dataset AND list_contains($ids, image_id) AND taxon IS NOT NULL ORDER BY level
        """)
        chosen = rows("""
            SELECT a.system, a.image_id, a.level, a.answer, a.outcome, a.answer_index = q.answer_index
            FROM answers AS a JOIN questions AS q USING (dataset, choices, question_id)
            WHERE dataset = $dataset AND choices = $choices AND list_contains($ids, a.image_id) AND q.scored
        """)
        named = rows("""
            SELECT n.system, n.image_id, n.level, l.lineage[n.level], n.outcome, n.correct
            FROM named AS n JOIN leaf_systems USING (system)
            JOIN leaves AS l ON l.system = leaf_system AND l.dataset = n.dataset AND l.image_id = n.image_id
            WHERE n.dataset = $dataset AND list_contains($ids, n.image_id)
        """)
        texts = rows("""
            SELECT system, image_id, outcome, completion FROM leaves
            WHERE dataset = $dataset AND list_contains($ids, image_id)
        """)
    marks: dict[tuple[str, str, str], dict[int, Mark]] = {}
    for kind, answers in (("", chosen), (OPEN, named)):
        for system, image, level, said, outcome, right in answers:
            answered = outcome == "answered" and said is not None
            mark = Mark(
                said if answered else "not named" if outcome == "answered" else outcome,
                bool(right) if answered else None,
            )
            marks.setdefault((image, system, kind), {})[level] = mark
    first = {(image, system): (outcome, text or "") for system, image, outcome, text in texts}
    return [
        Example(
            image_id=image,
            data=_thumbnail(store, image),
            truth={level: taxon for i, level, _, taxon in truth if i == image},
            ranks={level: rank for i, level, rank, _ in truth if i == image},
            systems=[
                (label + (", stage 1" if kind and (image, system, "") in marks else ""), marks[image, system, kind])
                for system, label in labels.items()
                for kind in ("", OPEN)
                if (image, system, kind) in marks and (not kind or (image, system) in first)
            ],
            stage1=[(label, *first[image, system]) for system, label in labels.items() if (image, system) in first],
        )
        for image in drawn
    ]


def _thumbnail(store: ImageStore, image_id: str) -> str:
    data = io.BytesIO()
    store.resized(image_id, _THUMBNAIL, 1).save(data, "JPEG", quality=85)
    return _uri(data.getvalue(), "image/jpeg")
