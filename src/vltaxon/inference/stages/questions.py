"""The questions about some images, read window by window, so that memory does not grow with their number."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vltaxon import provenance, schemas

BLOCK = 65_536  # questions read off a table at once

_COLUMNS = ["question_id", "image_id", "level", "rank", "options"]


def question_windows(path: Path, ids: Sequence[str], size: int) -> Iterator[pa.Table]:
    """Yield the questions about some images in windows, by image and level; those of an image together.

    Args:
        path: table of questions.
        ids: of the images.
        size: questions at a time; a window ends with the image with which it reaches that.

    Raises:
        ValueError: the table is not in order; then no step of ours wrote it.
    """
    wanted, rest, last = pa.array(ids, pa.string()), pa.table({}), ""
    for batch in provenance.parquet_batches(path, schemas.QUESTIONS, _COLUMNS):
        some = pa.Table.from_batches([batch.filter(pc.is_in(batch["image_id"], wanted))])
        rest = pa.concat_tables([rest, some]).combine_chunks() if len(rest) else some
        starts = _image_starts(rest)
        if len(rest) and (starts is None or rest["image_id"][0].as_py() < last):
            raise ValueError(f"{path}: its questions are not in the order of images and levels")
        done = 0
        while starts is not None and len(later := starts[starts >= done + size]):
            yield rest.slice(done, int(later[0]) - done)
            done = int(later[0])
        rest = rest.slice(done)
        last = rest["image_id"][0].as_py() if len(rest) else last
    if len(rest):
        yield rest


def _image_starts(questions: pa.Table) -> NDArray[np.int64] | None:
    """Return the rows at which another image begins, but for the first; None where rows are not in order."""
    images, levels = questions["image_id"], questions["level"].to_numpy()
    before, after = images.slice(0, max(len(images) - 1, 0)), images.slice(1)
    new = pc.not_equal(before, after).to_numpy()
    if not (pc.less_equal(before, after).to_numpy() & (new | (np.diff(levels) > 0))).all():
        return None
    return np.flatnonzero(new) + 1


def count_questions(path: Path, ids: Sequence[str]) -> int:
    """Return how many questions there are about some images.

    Args:
        path: table of questions.
        ids: of the images.
    """
    wanted = pa.array(ids, pa.string())
    batches = provenance.parquet_batches(path, schemas.QUESTIONS, ["image_id"])
    return sum(int(pc.sum(pc.is_in(batch["image_id"], wanted)).as_py() or 0) for batch in batches)
