"""Questions: one image, one level, up to four options in an order frozen by a hash."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from vltaxon import schemas
from vltaxon.errors import UserError
from vltaxon.provenance import read_frame, write_frame
from vltaxon.seeded import draw_numbers, stretch
from vltaxon.tasks.questions import DrawTask
from vltaxon.taxonomy import Taxonomy, normalise, spell_out

WRONG = 3  # distractors of a question

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Level:
    """One level of a data set's images: its whole label set, and which images have a taxon there.

    Attributes:
        number: 1-based.
        rank: its name.
        labels: distinct taxa, sorted by name.
        rows: (n,) rows of the images table that are asked.
        truth: (n,) their labels' indices.
    """

    number: int
    rank: str
    labels: list[str]
    rows: Indices
    truth: Indices


@dataclass(frozen=True)
class Chosen:
    """Distractors of a level's images.

    Attributes:
        labels: (n, k) label indices, k <= 3.
        similarity: (n, 1 + k) cosine of the truth and of the distractors, None where not chosen by
            similarity.
    """

    labels: Indices
    similarity: npt.NDArray[np.float32] | None = None


def levels(taxonomy: Taxonomy, leaves: Sequence[str] | pl.Series) -> Iterator[Level]:
    """Yield the levels of a taxonomy for images.

    Homonyms of a level are one label, so that none is ever a wrong option of another.

    Args:
        taxonomy: of the data set.
        leaves: of the images; one without taxon at a level is not asked there.

    Raises:
        UserError: two labels of a level are one taxon in two spellings, of which one would be wrong.
    """
    column = pl.Series("leaf", leaves, pl.String)
    kinds = column.unique().sort()
    kind = column.cast(pl.Enum(kinds)).to_physical().to_numpy()
    for number, rank in enumerate(taxonomy.ranks, start=1):
        labels = taxonomy.labels(number)
        spelt: dict[str, str] = {}
        for label in labels:
            if (other := spelt.setdefault(normalise(label), label)) != label:
                raise UserError(
                    f"{rank} {spell_out(other)} and {spell_out(label)} are one taxon, and cannot be options "
                    "of one question; spell it in one way in the labels"
                )
        index: dict[str | None, int] = {label: place for place, label in enumerate(labels)}
        places = [index.get(taxonomy.taxon(leaf, number), -1) for leaf in kinds]
        truth = np.array(places, dtype=np.int64)[kind]
        rows = np.flatnonzero(truth >= 0)
        yield Level(number, rank, labels, rows, truth[rows])


def assemble(
    images: pl.DataFrame,
    chosen: Iterable[tuple[Level, Chosen]],
    scored_levels: Sequence[int],
    seed: int,
    source: str,
    encoder: str | None = None,
    template: str | None = None,
) -> pl.DataFrame:
    """Build the table of questions.

    The order of the options depends on the question's id and the seed alone, so the right letter of a
    question is the same for similar and for random choices.

    Args:
        images: image_id and split.
        chosen: levels and their distractors.
        scored_levels: 1-based levels that count; a question with one option never does.
        seed: of the order.
        source: mined or drawn.
        encoder: name of the model that chose.
        template: text of a label that it compared with.

    Returns:
        Table of schema `QUESTIONS`, ordered by image_id and level.
    """
    parts = []
    for level, picked in chosen:
        mine = images[level.rows].select("image_id", "split")
        names = mine["image_id"] + f":{level.number}"
        candidates = np.column_stack([level.truth, picked.labels])
        count = candidates.shape[1]
        order = np.argsort(stretch(draw_numbers("options", seed, names), count), axis=1, kind="stable")
        shown = pl.Series(level.labels, dtype=pl.String)[
            np.take_along_axis(candidates, order, axis=1).ravel()
        ]
        similarity: pl.Expr | pl.Series = pl.lit(None, pl.List(pl.Float32))
        if picked.similarity is not None:
            near = pl.Series(np.take_along_axis(picked.similarity, order, axis=1).ravel())
            similarity = near.reshape((len(names), count)).arr.to_list()
        columns: dict[str, pl.Expr | pl.Series] = {
            "question_id": names,
            "level": pl.lit(level.number, pl.Int8),
            "rank": pl.lit(level.rank),
            "options": shown.reshape((len(names), count)).arr.to_list(),
            "answer_index": pl.Series(np.argmin(order, axis=1), dtype=pl.Int8),
            "scored": pl.lit(level.number in scored_levels and count > 1),
            "source": pl.lit(source),
            "encoder": pl.lit(encoder, pl.String),
            "template": pl.lit(template, pl.String),
            "similarity": similarity,
        }
        parts.append(mine.with_columns(**columns).select(schemas.QUESTIONS.names))
    return pl.concat(parts).sort("image_id", "level")


def drawn(level: Level, image_ids: Iterable[str], seed: int) -> Chosen:
    """Draw wrong labels at random, uniform without repetition, each image's from a stream of its own.

    Args:
        level: with the images that are asked.
        image_ids: of these, in their order.
        seed: of the run.
    """
    wrong = min(WRONG, len(level.labels) - 1)
    numbers = stretch(draw_numbers(f"distractors of level {level.number}", seed, image_ids), max(wrong, 1))
    taken = level.truth[:, None]
    for place in range(wrong):
        free = len(level.labels) - 1 - place
        pick = (numbers[:, place] % np.uint64(free)).astype(np.int64)
        for used in np.sort(taken, axis=1).T:  # the pick counts free labels only: step over those taken
            pick += pick >= used
        taken = np.column_stack([taken, pick])
    return Chosen(taken[:, 1:])


def draw(task: DrawTask) -> None:
    """Write the questions of all splits with random choices: schema `QUESTIONS`, source `drawn`."""
    images = read_frame(task.images, schemas.IMAGES, ["image_id", "split", "leaf"])
    chosen = [
        (level, drawn(level, images["image_id"][level.rows], task.seed))
        for level in levels(Taxonomy.read(task.taxa), images["leaf"])
    ]
    made = assemble(images, chosen, task.scored_levels, task.seed, source="drawn")
    write_frame(made, task.questions, schemas.QUESTIONS, rule="draw", seed=task.seed)
