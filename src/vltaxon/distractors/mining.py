"""Mine distractors: per image and level, the nearest wrong labels."""

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from vltaxon import schemas
from vltaxon.encoders.embedding import vectors_of
from vltaxon.encoders.towers import Vectors
from vltaxon.provenance import facts, read_frame, write_frame
from vltaxon.questions import WRONG, Chosen, Indices, Level, assemble, levels
from vltaxon.tasks.questions import MineTask
from vltaxon.taxonomy import Taxonomy

_ROWS, _COLUMNS = 1024, 8192  # a block of similarities: 32 MiB
_PAIR = 32  # pairs of a matrix product that take as long as gathering the vectors of one and multiplying them
_PAIRS = 128  # pairs multiplied together: their vectors stay in the cache

Exact = npt.NDArray[np.float64]


def nearest_wrong(
    images: Vectors, labels: Vectors, truth: Indices, rows: int = _ROWS, columns: int = _COLUMNS
) -> Chosen:
    """Find the three wrong labels of highest cosine per image; of equals, the first in label order.

    The result is exact, and memory is a block's. Cosines are sums of products of float16 numbers, which
    float64 holds without rounding: no block size, machine or BLAS changes a bit. A float32 product costs half
    of that but rounds, by no more than a known bound; so it only says which labels may be among the three
    (see `_contenders`), and those few are compared in float64.

    Args:
        images: (n, d) unit vectors that have been through float16.
        labels: (m, d) likewise, in the order of their names.
        truth: (n,) index of each image's own label.
        rows: images in a block.
        columns: labels in a block.

    Returns:
        min(3, m - 1) label indices per image, best first, and the cosines of truth and distractors.
    """
    asked = 1 + min(WRONG, len(labels) - 1)
    options = np.empty((len(images), asked), dtype=np.int64)
    score = np.empty((len(images), asked), dtype=np.float32)
    longest = _lengths(labels).max()
    for start in tqdm(
        range(0, len(images), rows), desc=f"mine among {len(labels)} labels", unit=" blocks", mininterval=5
    ):
        block = slice(start, start + rows)
        mine, own = images[block], truth[block]
        reach = (
            _lengths(mine) * longest
        )  # block by block, in the processor's cache: over all images it costs a tenth of mining
        row, column, cosine = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
        for first in range(0, len(labels), columns):
            part = labels[first : first + columns]
            some_row, some = _contenders(mine, part, own - first, reach)
            row, column = np.append(row, some_row), np.append(column, some + first)
            cosine = np.append(cosine, _cosines(mine, part, some_row, some))
            order = np.lexsort(
                (np.where(column == own[row], -np.inf, -cosine), row)
            )  # its own label, then the nearest; stable
            row = row[order]
            kept = np.arange(len(row)) - np.searchsorted(row, row) < 1 + WRONG
            row, column, cosine = row[kept], column[order][kept], cosine[order][kept]
        options[block], score[block] = column.reshape(-1, asked), cosine.reshape(-1, asked)
    return Chosen(options[:, 1:], score)


def _lengths(vectors: Vectors) -> Exact:
    """Return the length of each vector."""
    length: Exact = np.sqrt(np.add.reduce(vectors * vectors, axis=1, dtype=np.float64))
    return length


def _contenders(images: Vectors, labels: Vectors, own: Indices, reach: Exact) -> tuple[Indices, Indices]:
    """Find pairs (image, label) of a block that may be among the image's three nearest wrong labels.

    And its own label if it is in the block.

    A float32 dot product of d numbers, summed in any order, is off by at most g |x| |y|, with g = d u / (1 -
    d u) and u = 2^-24 (Higham 2002, section 3.1; one of the d roundings is to spare here, as products of
    float16 numbers are exact: that pays for the rounding of the threshold). A label more than twice that
    below the third best is not among the three.

    Args:
        images: (n, d) of the block.
        labels: (m, d) of the block.
        own: (n,) place of each image's own label in the block, below 0 or beyond m where it is in another.
        reach: (n,) largest |x| |y| of each image.
    """
    count, unit = len(labels), images.shape[1] * 2.0**-24
    near = images @ labels.T
    here = np.flatnonzero((own >= 0) & (own < count))
    near[here, own[here]] = -np.inf
    third = np.full(len(images), -np.inf)
    if count >= WRONG:
        fold = max(
            1, count // 256
        )  # the third best of the maxima of sets of labels is no higher, and sooner found
        folded = near[:, : count // fold * fold].reshape(len(near), fold, -1).max(axis=1)
        third = np.partition(np.hstack([folded, near[:, count // fold * fold :]]), -WRONG, axis=1)[
            :, -WRONG
        ].astype(np.float64)
    near[here, own[here]] = np.inf
    floor = (third - 2 * unit / (1 - unit) * reach).astype(np.float32)
    row, column = np.divmod(np.flatnonzero(near >= floor[:, None]), count)
    return row, column


def _cosines(images: Vectors, labels: Vectors, row: Indices, column: Indices) -> Exact:
    """Compute the exact cosines of pairs.

    By one product of the whole block where that is less work, as with few labels or many ties.
    """
    if len(row) * _PAIR > len(images) * len(labels):
        whole: Exact = (images.astype(np.float64) @ labels.astype(np.float64).T)[row, column]
        return whole
    parts = [slice(start, start + _PAIRS) for start in range(0, len(row), _PAIRS)]
    products = (images[row[part]] * labels[column[part]] for part in parts)  # exact: 11 bits times 11 bits
    return np.concatenate([np.add.reduce(product, axis=1, dtype=np.float64) for product in products])


def mine(task: MineTask) -> None:
    """Write the questions of all splits with similar choices: schema `QUESTIONS`, source `mined`."""
    images = read_frame(task.images, schemas.IMAGES, ["image_id", "split", "leaf"])
    pictures = vectors_of(task.image_vectors, images["image_id"].to_list())

    def nearest(level: Level) -> Chosen:
        return nearest_wrong(pictures[level.rows], vectors_of(task.taxon_vectors, level.labels), level.truth)

    chosen = [(level, nearest(level)) for level in levels(Taxonomy.read(task.taxa), images["leaf"])]
    made = assemble(images, chosen, task.scored_levels, task.seed, "mined", task.encoder, task.template)
    weights = facts(task.image_vectors).get("weights", "")
    write_frame(made, task.questions, schemas.QUESTIONS, rule="mine", seed=task.seed, weights=weights)
