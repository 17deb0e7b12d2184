"""Calibrate the text of a label: how many of the published distractors each template finds again.

The benchmark says which model and which rule chose its similar distractors, but not the text that a label was
put in. Where its files are absent, its distractors can be mined again only with the right text; this measures
it where they are present.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
import polars as pl
from tabulate import tabulate

from vltaxon import schemas
from vltaxon.distractors.mining import nearest_wrong
from vltaxon.encoders.embedding import vectors_of
from vltaxon.encoders.towers import Encoder
from vltaxon.errors import UserError
from vltaxon.provenance import atomic, facts, read_frame, write_frame
from vltaxon.questions import WRONG, Indices, Level, levels
from vltaxon.tasks.questions import CalibrateTask
from vltaxon.taxonomy import Taxonomy, normalise


class Compared(NamedTuple):
    """The published questions of a level that are ours, too.

    Attributes:
        level: with its whole label set.
        rows: (n,) rows of the images table.
        truth: (n,) index of the right label.
        wanted: (n, 3) indices of the published distractors, below 0 where there is none or its name is not
            ours.
        total: (n,) number of published distractors.
    """

    level: Level
    rows: Indices
    truth: Indices
    wanted: Indices
    total: Indices


def calibrate_templates(task: CalibrateTask) -> None:
    """Measure how many of the published distractors each template and case finds among the top three.

    The encoder's own template and case do not matter. The table has the schema `CALIBRATION`; `text` is the
    same as CSV.

    Raises:
        UserError: the images were embedded with other weights, or no question has a wrong option.
    """
    spec, questions, image_vectors = task.encoder, task.questions, task.image_vectors
    stored, tree, encoder = read_frame(task.images, schemas.IMAGES), Taxonomy.read(task.taxa), Encoder(spec)
    if facts(image_vectors).get("weights") != encoder.digest:
        raise UserError(
            f"{image_vectors}: embedded with other weights than those of {spec.name}; delete it and run again"
        )
    compared = list(_compared(read_frame(questions, schemas.QUESTIONS), stored, tree))
    if not compared:
        raise UserError(f"{questions}: no question has a wrong option, so there is nothing to compare")
    names = sorted({name for part in compared for name in part.level.labels})
    place = {name: row for row, name in enumerate(names)}
    pictures = vectors_of(image_vectors, stored["image_id"].to_list())
    rows = []
    for template, case in product(task.texts.templates, task.texts.cases):
        texts = encoder.texts(names, template, case).astype(np.float16).astype(np.float32)
        for level, asked, truth, wanted, total in compared:
            found = nearest_wrong(
                pictures[asked], texts[[place[name] for name in level.labels]], truth
            ).labels
            shared = (wanted[:, :, None] == found[:, None, :]).any(axis=2).sum(axis=1)
            chance = found.shape[1] / (len(level.labels) - 1)
            shares = [float((shared / total).mean()), float((shared == total).mean()), chance]
            rows.append([template, case, level.number, level.rank, len(asked), *shares])
    made = pl.DataFrame(rows, schema=schemas.CALIBRATION.names, orient="row")
    print(tabulate(made.to_dict(as_series=False), headers="keys", floatfmt=".3f"))
    stamp = {"rule": "calibrate_templates", "encoder": spec.name, "weights": encoder.digest}
    write_frame(made, task.table, schemas.CALIBRATION, **stamp)
    with atomic(task.text) as part:
        made.write_csv(part, quote_style="non_numeric")


def _compared(questions: pl.DataFrame, images: pl.DataFrame, tree: Taxonomy) -> Iterator[Compared]:
    """Yield the published questions by level, their options matched to the labels by `normalise`.

    Those of one option are left out.
    """
    several = questions.filter(pl.col("options").list.len() > 1)
    rows = images.select("image_id").with_row_index("row")
    for level in levels(tree, images["leaf"]):
        asked = several.filter(pl.col("level") == level.number).join(
            rows, on="image_id", how="left", maintain_order="left"
        )
        if asked.is_empty():
            continue
        truth = np.full(len(images), -1)
        truth[level.rows] = level.truth
        index = {normalise(label): number for number, label in enumerate(level.labels)}
        names = asked["options"].explode().unique()
        number_of = {name: index.get(normalise(name), -1) for name in names}
        wrong = (
            asked.with_row_index("question")
            .select("question", "answer_index", "options", place=pl.int_ranges(pl.col("options").list.len()))
            .explode("options", "place")
            .filter(pl.col("place") != pl.col("answer_index"))
            .group_by("question", maintain_order=True)
            .agg(pl.col("options").replace_strict(number_of, return_dtype=pl.Int64))["options"]
        )
        wanted = [wrong.list.get(place, null_on_oob=True).fill_null(-1) for place in range(WRONG)]
        at = asked["row"].to_numpy()
        yield Compared(level, at, truth[at], np.column_stack(wanted), wrong.list.len().to_numpy())
