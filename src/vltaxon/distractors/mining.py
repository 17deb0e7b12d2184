"""Mine distractors: per image and level, the nearest wrong labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from vltaxon import schemas
from vltaxon.distractors.embedding import vectors_of
from vltaxon.distractors.encoder import Vectors
from vltaxon.provenance import facts, read_parquet, write_parquet
from vltaxon.questions import WRONG, Chosen, Indices, Level, assemble, levels
from vltaxon.taxonomy import Taxonomy

_ROWS, _COLUMNS = 1024, 8192  # a block of similarities: 64 MiB


def nearest_wrong(images: Vectors, labels: Vectors, truth: Indices, rows: int = _ROWS, columns: int = _COLUMNS) -> Chosen:
    """The three wrong labels of highest cosine per image; of equals, the first in label order.

    One matrix product in blocks with a running top three, so memory is bounded by a block. Summed in float64: products of
    float16 numbers are then exact, and so are their sums, whatever the block size, the machine or its BLAS.

    Args:
        images: (n, d) unit vectors that have been through float16.
        labels: (m, d) likewise, in the order of their names.
        truth: (n,) index of each image's own label.
        rows: images in a block.
        columns: labels in a block.

    Returns:
        min(3, m - 1) label indices per image, best first, and the cosines of truth and distractors.
    """
    wrong = min(WRONG, len(labels) - 1)
    best = np.empty((len(images), wrong), dtype=np.int64)
    score = np.empty((len(images), 1 + wrong), dtype=np.float32)
    texts = labels.astype(np.float64).T
    for start in tqdm(range(0, len(images), rows), desc=f"mine among {len(labels)} labels", unit=" blocks", mininterval=5):
        block = slice(start, start + rows)
        mine, own = images[block].astype(np.float64), truth[block]
        top = np.full((len(mine), wrong), -np.inf)
        index = np.zeros((len(mine), wrong), dtype=np.int64)
        for first in range(0, len(labels), columns):
            cosine = mine @ texts[:, first : first + columns]
            here = np.flatnonzero((own >= first) & (own < first + columns))
            score[start + here, 0] = cosine[here, own[here] - first]
            cosine[here, own[here] - first] = -np.inf
            top, index = _merged(top, index, cosine, first)
        best[block], score[block, 1:] = index, top
    return Chosen(best, score)


def _merged(
    top: npt.NDArray[np.float64], index: Indices, cosine: npt.NDArray[np.float64], first: int
) -> tuple[npt.NDArray[np.float64], Indices]:
    """Running top k and a block of later labels -> top k of both. `argmax` takes the first of equals, here the first by name."""
    rows = np.arange(len(top))
    pool = np.concatenate([top, cosine], axis=1)
    known = top.shape[1]
    values, places = np.empty_like(top), np.empty_like(index)
    for rank in range(known):
        at = pool.argmax(axis=1)
        values[:, rank] = pool[rows, at]
        places[:, rank] = np.where(at < known, index[rows, np.minimum(at, known - 1)], at - known + first)
        pool[rows, at] = -np.inf
    return values, places


def mine(
    taxa: Path,
    images: Path,
    image_vectors: Path,
    taxon_vectors: Path,
    encoder: str,
    template: str,
    scored_levels: Sequence[int],
    seed: int,
    questions: Path,
) -> None:
    """Write a data set's questions with similar choices.

    Args:
        taxa: table of the data set.
        images: table of the data set; all splits are asked.
        image_vectors: what `embed` wrote for the images.
        taxon_vectors: what `embed` wrote for the taxa.
        encoder: name of the model file.
        template: its text of a label.
        scored_levels: 1-based levels that count.
        seed: of the order of the options; the choice itself has none.
        questions: written, schema `QUESTIONS`, source `mined`.
    """
    table = read_parquet(images, schemas.IMAGES)
    pictures = vectors_of(image_vectors, table["image_id"].to_pylist())

    def nearest(level: Level) -> Chosen:
        return nearest_wrong(pictures[level.rows], vectors_of(taxon_vectors, level.labels), level.truth)

    chosen = [(level, nearest(level)) for level in levels(Taxonomy.read(taxa), table["leaf"].to_pylist())]
    made = assemble(table, chosen, scored_levels, seed, "mined", encoder, template)
    weights = facts(image_vectors).get("weights", "")
    write_parquet(made, questions, schemas.QUESTIONS, rule="mine", seed=seed, weights=weights)
