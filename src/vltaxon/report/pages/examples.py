"""Test images with what each system said of them."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from vltaxon import schemas
from vltaxon.data.images import ImageStore
from vltaxon.metrics.database import reading
from vltaxon.metrics.heads import OPEN
from vltaxon.provenance import read_parquet
from vltaxon.report.sections import Content, Section, uri

SECTION = Section(30, "Examples", "examples")
_THUMBNAIL = 240 * 240

_TRUTH = """
    SELECT image_id, level, rank, taxon FROM images JOIN taxa USING (dataset, leaf)
    WHERE dataset = $dataset AND list_contains($ids, image_id) AND taxon IS NOT NULL ORDER BY level
"""
_ANSWERS = f"""
    WITH given AS (
        SELECT '' AS kind, a.system, a.image_id, a.level, a.answer, a.outcome,
            a.answer_index = q.answer_index AS correct
        FROM answers AS a JOIN questions AS q USING (dataset, choices, question_id)
        WHERE dataset = $dataset AND choices = $choices AND list_contains($ids, a.image_id) AND q.scored
        UNION ALL
        SELECT '{OPEN}', n.system, n.image_id, n.level, l.lineage[n.level], n.outcome, n.correct
        FROM named AS n JOIN leaf_systems USING (system)
        JOIN leaves AS l ON l.system = leaf_system AND l.dataset = n.dataset AND l.image_id = n.image_id
        WHERE n.dataset = $dataset AND list_contains($ids, n.image_id)
    )
    SELECT image_id, system, kind, level,
        CASE WHEN outcome = 'answered' THEN coalesce(answer, 'not named') ELSE outcome END AS said,
        CASE WHEN outcome = 'answered' AND answer IS NOT NULL THEN coalesce(correct, false) END AS is_right
    FROM given
"""
_STAGE1 = """
    SELECT image_id, system, outcome, coalesce(completion, '') FROM leaves
    WHERE dataset = $dataset AND list_contains($ids, image_id)
"""


@dataclass(frozen=True)
class Mark:
    """What a system said of one level; `right` is None where it said nothing that can be read."""

    said: str
    right: bool | None

    @property
    def sign(self) -> str:
        """Return a sign beside the colour, for readers who do not see it."""
        return {True: "✓", False: "✗", None: "?"}[self.right]

    @property
    def word(self) -> str:
        """Return the sign in words, for screen readers."""
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


def context(content: Content) -> dict[str, object]:
    """Return the images, and what they are of."""
    about = content.task.about
    return {"examples": _examples(content), "main_dataset": about.dataset, "choices": about.choices}


def drawn(images: Path, count: int, seed: int) -> list[str]:
    """Return test images, drawn so that no species comes twice before every species came once.

    Args:
        images: images.parquet of the data set.
        count: how many.
        seed: of the draw.
    """
    frame = pl.DataFrame(read_parquet(images, schemas.IMAGES, ["image_id", "leaf", "split"]))
    test = frame.filter(pl.col("split") == "test").sort("image_id")
    by_leaf = dict(test.group_by("leaf", maintain_order=True).agg("image_id").iter_rows())
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(by_leaf[leaf]) for leaf in rng.permutation(sorted(by_leaf))]
    rounds = chain.from_iterable(zip_longest(*shuffled))
    return [str(image) for image in rounds if image is not None][:count]


def _examples(content: Content) -> list[Example]:
    """Return the images drawn, with true lineage and answers read from the database."""
    task, labels = content.task, content.labels
    ids, store = drawn(task.images, task.about.examples, task.seed), ImageStore(task.images)
    given: dict[str, str | list[str]] = {
        "dataset": task.about.dataset,
        "choices": task.about.choices,
        "ids": ids,
    }
    with reading(task.database) as connection:
        truth, answers, stage1 = (_rows(connection, query, given) for query in (_TRUTH, _ANSWERS, _STAGE1))
    marks: dict[tuple[str, str, str], dict[int, Mark]] = {}
    for image, system, kind, level, said, right in answers.iter_rows():
        marks.setdefault((image, system, kind), {})[level] = Mark(said, right)
    first = {row[:2]: row[2:] for row in stage1.iter_rows()}
    return [
        Example(
            image_id=image,
            data=_thumbnail(store, image),
            truth=dict(mine.select("level", "taxon").iter_rows()),
            ranks=dict(mine.select("level", "rank").iter_rows()),
            systems=[
                (
                    label + (", stage 1" if kind and (image, system, "") in marks else ""),
                    marks[image, system, kind],
                )
                for system, label in labels.items()
                for kind in ("", OPEN)
                if (image, system, kind) in marks and (not kind or (image, system) in first)
            ],
            stage1=[
                (label, *first[image, system]) for system, label in labels.items() if (image, system) in first
            ],
        )
        for image in ids
        for mine in [truth.filter(pl.col("image_id") == image)]
    ]


def _rows(
    connection: duckdb.DuckDBPyConnection, query: str, given: Mapping[str, str | list[str]]
) -> pl.DataFrame:
    used = {name: value for name, value in given.items() if f"${name}" in query}
    found: pl.DataFrame = connection.sql(query, params=used).pl()
    return found


def _thumbnail(store: ImageStore, image_id: str) -> str:
    data = io.BytesIO()
    store.resized(image_id, _THUMBNAIL, 1).save(data, "JPEG", quality=85)
    return uri(data.getvalue(), "image/jpeg")
