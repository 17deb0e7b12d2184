"""Embed a data set's images and taxa, once, for mining and for zero-shot answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vltaxon import schemas
from vltaxon.data.images import ImageStore
from vltaxon.encoders.towers import Encoder
from vltaxon.provenance import parquet_batches, read_frame, write_parquet
from vltaxon.tasks.questions import EmbedTask


def embed(task: EmbedTask) -> None:
    """Embed every image and every distinct taxon of a data set.

    Both tables have the schema `embeddings(d)`: of the images id = image_id, in their order; of the taxa id =
    the taxon as displayed, sorted.
    """
    spec = task.encoder.model_copy(update={"batch_size": task.batch_size})
    encoder = Encoder(spec)
    stamp = {
        "rule": "embed",
        "encoder": spec.name,
        "template": spec.template,
        "case": spec.case,
        "weights": encoder.digest,
    }
    table = read_frame(task.images, schemas.IMAGES)
    ids = table["image_id"].to_list()
    names = read_frame(task.taxa, schemas.TAXA)["taxon"].drop_nulls().unique().sort().to_list()
    found = encoder.images(ids, ImageStore(table).open, task.threads, len(ids))
    for path, keys, vectors in (
        (task.image_vectors, ids, found),
        (task.taxon_vectors, names, encoder.texts(names)),
    ):
        width = vectors.shape[1]
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), width)
        write_parquet(pa.table({"id": keys, "vector": column}), path, schemas.embeddings(width), **stamp)


def vectors_of(table: Path, ids: Sequence[str], dtype: type[np.floating[Any]] = np.float32) -> NDArray[Any]:
    """Return rows of an embedding table in the order of `ids`; it is read in pieces, and no more is kept.

    Args:
        table: what `embed` wrote.
        ids: of images, or taxa; one may stand several times.
        dtype: of the result.

    Returns:
        Vectors of unit length, shape (ids, d).

    Raises:
        ValueError: an id is not in the table; then it was made from another data set, a defect of the
            workflow.
    """
    wanted = pa.array(ids, pa.string())
    distinct = wanted.unique()
    rows: NDArray[Any] | None = None
    there = np.zeros(len(distinct), bool)
    for batch in parquet_batches(table):
        place = pc.index_in(batch["id"], value_set=distinct)
        column, hit = batch["vector"], place.is_valid().to_numpy(zero_copy_only=False)
        vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
        rows = np.empty((len(distinct), column.type.list_size), dtype) if rows is None else rows
        at = place.drop_null().to_numpy()
        rows[at], there[at] = vectors[hit], True
    if lost := len(ids) - int(there[order := pc.index_in(wanted, value_set=distinct).to_numpy()].sum()):
        raise ValueError(f"{table}: {lost} of {len(ids)} ids have no embedding")
    assert rows is not None
    return rows if len(distinct) == len(ids) else rows[order]
