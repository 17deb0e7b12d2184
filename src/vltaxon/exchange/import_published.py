"""Import the benchmark's questions about the test images of a data set."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from vltaxon import schemas
from vltaxon.errors import UserError
from vltaxon.exchange.annotations import Record, git_blob, read_annotations
from vltaxon.exchange.matching import demand_known, demand_lineage, match
from vltaxon.provenance import write_parquet
from vltaxon.tasks.questions import ImportTask
from vltaxon.taxonomy import Taxonomy


def import_published(task: ImportTask) -> None:
    """Write the benchmark's questions about the test images of a data set, options and order as published.

    Records about images that the data set lacks are kept in `records` (schema `PUBLISHED`, in the order of
    the file) with the reason, counted in the log, and not asked. The questions have the schema `QUESTIONS`
    and the source `published`; one with one option is never scored.

    Raises:
        UserError: the file is not sound (`read_annotations`), two records or two images are one by their
            paths, no image is in the data set, one is in its train split, or a record contradicts the taxa or
            the taxonomy.
    """
    annotations = task.annotations
    records, tree = read_annotations(annotations, task.blob), Taxonomy.read(task.taxa)
    if task.taxonomy is not None:
        demand_known(records, Taxonomy.read(task.taxonomy), annotations)
    asked: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    for found in match(records, task):
        record, image_id, reason = found.record, found.image_id, found.reason
        if image_id is not None and not record.asked:
            image_id, reason = None, "all levels are null"
        rest = json.dumps(record.rest)
        kept.append(
            {"line": record.line, "image": record.image, "image_id": image_id, "reason": reason, "rest": rest}
        )
        if image_id is not None and found.leaf is not None:
            demand_lineage(record, found.leaf, tree, task)
            asked += _questions(record, image_id, tree.ranks, task.scored_levels)
    if not asked:
        raise UserError(
            f"{annotations}: none of its {len(records)} images is a test image of the data set; the first is "
            f"{records[0].image}: {kept[0]['reason']}. Images are compared by the last {task.parts} parts of "
            "their paths (`parts`). Are these the annotations of this data set?"
        )
    table = pa.Table.from_pylist(kept, schemas.PUBLISHED)
    print(_summary(annotations, table, len(asked)))
    stamp = {
        "rule": "import_published",
        "annotations": annotations.name,
        "blob": git_blob(annotations.read_bytes()),
    }
    order = [("image_id", "ascending"), ("level", "ascending")]
    questions = pa.Table.from_pylist(asked, schemas.QUESTIONS).sort_by(order)
    write_parquet(questions, task.questions, schemas.QUESTIONS, **stamp)
    write_parquet(table, task.records, schemas.PUBLISHED, **stamp)


def _questions(
    record: Record, image_id: str, ranks: Sequence[str], scored_levels: Sequence[int]
) -> Iterator[dict[str, Any]]:
    for level, (options, right) in record.asked.items():
        yield dict.fromkeys(schemas.QUESTIONS.names) | {
            "question_id": f"{image_id}:{level}",
            "image_id": image_id,
            "split": "test",
            "level": level,
            "rank": ranks[level - 1],
            "options": options,
            "answer_index": right,
            "scored": level in scored_levels and len(options) > 1,
            "source": "published",
        }


def _summary(annotations: Path, records: pa.Table, questions: int) -> str:
    """Say what was asked and what was not, with the first images of each reason."""
    kept = pl.DataFrame(records)
    left = (
        kept.filter(pl.col("reason").is_not_null())
        .group_by("reason", maintain_order=True)
        .agg(pl.len(), pl.col("image").head(3))
        .sort("reason")
    )
    asked = kept["reason"].null_count()
    lines = [f"{annotations}: {len(kept)} records, {asked} asked in {questions} questions"]
    lines += [f"  {count} {reason}: {', '.join(images)}" for reason, count, images in left.iter_rows()]
    return "\n".join(lines)
