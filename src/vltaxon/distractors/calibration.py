"""Calibrate the text of a label: how many of the published distractors each template finds again.

The benchmark says which model and which rule chose its similar distractors, but not the text that a label was put in. Where its
files are absent, its distractors can be mined again only with the right text; this measures it where they are present.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
from tabulate import tabulate

from vltaxon import schemas
from vltaxon.config import Clip
from vltaxon.distractors.embedding import vectors_of
from vltaxon.distractors.encoder import Encoder
from vltaxon.distractors.mining import nearest_wrong
from vltaxon.errors import UserError
from vltaxon.provenance import atomic, facts, read_parquet, write_parquet
from vltaxon.questions import WRONG, Indices, Level, levels
from vltaxon.taxonomy import Taxonomy, normalise


class Published(NamedTuple):
    """A published question: file name of the image, 1-based level, right label, all choices."""

    image: str
    level: int
    truth: str
    choices: tuple[str, ...]


class Compared(NamedTuple):
    """The published questions of a level that are ours, too.

    Attributes:
        level: with its whole label set.
        rows: (n,) rows of the images table.
        truth: (n,) index of the right label.
        wanted: (n, 3) indices of the published distractors, below 0 where there is none or its name is not ours.
        total: (n,) number of published distractors.
    """

    level: Level
    rows: Indices
    truth: Indices
    wanted: Indices
    total: Indices


def published(path: Path) -> Iterator[Published]:
    """Questions of the benchmark's JSONL; a null level has none.

    Raises:
        UserError: a line is not of that form.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                name = Path(record["image"]).name
                for key in record:
                    if key.startswith("level") and record[key] is not None:
                        level, truth = int(key.removeprefix("level")), str(record[key])
                        choices = tuple(str(choice) for choice in record[f"choices_level{level}"])
                        if truth not in choices or len(set(choices)) < len(choices) or len(choices) > 1 + WRONG:
                            raise ValueError(f"level {level} does not have its label among up to four different choices")
                        yield Published(name, level, truth, choices)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                said = f"{type(error).__name__}: {error}"
                raise UserError(f"{path}: line {number} is no record of the benchmark: {said}") from error


def calibrate_templates(
    spec: Clip,
    taxa: Path,
    images: Path,
    image_vectors: Path,
    annotations: Path,
    templates: Sequence[str],
    cases: Sequence[str],
    table: Path,
    text: Path,
) -> None:
    """Measure how many of the published distractors each template and case finds among the top three.

    Args:
        spec: model file of the encoder; its own template and case do not matter.
        taxa: table of the data set.
        images: table of the data set.
        image_vectors: what `embed` wrote for the images with the same encoder.
        annotations: the benchmark's JSONL of similar choices.
        templates: texts of a label, `{}` the taxon.
        cases: keep, lower or both.
        table: written, schema `CALIBRATION`.
        text: the same, written as CSV.

    Raises:
        UserError: no published question is about an image and a label of the data set.
    """
    stored, tree, encoder = read_parquet(images, schemas.IMAGES), Taxonomy.read(taxa), Encoder(spec)
    if facts(image_vectors).get("weights") != encoder.digest:
        raise UserError(f"{image_vectors}: embedded with other weights than those of {spec.name}; delete it and run again")
    compared = list(_compared(annotations, stored, tree))
    names = sorted({name for part in compared for name in part.level.labels})
    place = {name: row for row, name in enumerate(names)}
    pictures = vectors_of(image_vectors, stored["image_id"].to_pylist())
    rows = []
    for template, case in product(templates, cases):
        texts = encoder.texts(names, template, case).astype(np.float16).astype(np.float32)
        for level, asked, truth, wanted, total in compared:
            found = nearest_wrong(pictures[asked], texts[[place[name] for name in level.labels]], truth).labels
            shared = (wanted[:, :, None] == found[:, None, :]).any(axis=2).sum(axis=1)
            chance = found.shape[1] / (len(level.labels) - 1)
            shares = [float((shared / total).mean()), float((shared == total).mean()), chance]
            rows.append([template, case, level.number, level.rank, len(asked), *shares])
    made = pa.Table.from_pylist([dict(zip(schemas.CALIBRATION.names, row, strict=True)) for row in rows], schemas.CALIBRATION)
    print(tabulate(made.to_pydict(), headers="keys", floatfmt=".3f"))
    write_parquet(made, table, schemas.CALIBRATION, rule="calibrate_templates", encoder=spec.name, weights=encoder.digest)
    with atomic(text) as part:
        pa.csv.write_csv(made, part)


def _compared(annotations: Path, images: pa.Table, tree: Taxonomy) -> Iterator[Compared]:
    """The published questions by level, matched to images by file name and to labels by `normalise`."""
    files, left_out = defaultdict(list), Counter[str]()
    for row, member in enumerate(images["member"].to_pylist()):
        files[Path(member).name].append(row)
    asked = defaultdict(list)
    for question in published(annotations):
        asked[question.level].append(question)
    if beyond := sorted(level for level in asked if not 1 <= level <= len(tree.ranks)):
        raise UserError(f"{annotations}: has level {beyond[0]}, the data set has {len(tree.ranks)} ranks")
    some = False
    for level in levels(tree, images["leaf"].to_pylist()):
        index = {normalise(label): place for place, label in enumerate(level.labels)}
        own = dict(zip(level.rows.tolist(), level.truth.tolist(), strict=True))
        kept = []
        for question in asked[level.number]:
            wrong = [index.get(key, -1) for key in map(normalise, question.choices) if key != normalise(question.truth)]
            rows = files[question.image]
            if len(rows) > 1:
                raise UserError(f"{annotations}: {question.image} is the file name of {len(rows)} images of the data set")
            if not wrong:
                left_out["have one option"] += 1
            elif not rows:
                left_out["are about an image that the data set has not"] += 1
            elif own.get(rows[0], -1) != index.get(normalise(question.truth), -2):
                left_out["have another right label"] += 1
            else:
                kept.append((rows[0], own[rows[0]], (wrong + [-1] * WRONG)[:WRONG], len(wrong)))
        if kept:
            some = True
            yield Compared(level, *(np.array(column, dtype=np.int64) for column in zip(*kept, strict=True)))
    for reason, count in left_out.items():
        print(f"{annotations}: {count} questions {reason}: left out", flush=True)
    if not some:
        raise UserError(f"{annotations}: none of its questions is about an image and a label of the data set")
