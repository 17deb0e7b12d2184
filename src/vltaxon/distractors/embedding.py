"""Embed a data set's images and taxa, once, for mining and for zero-shot answers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vltaxon import schemas
from vltaxon.config import Clip
from vltaxon.data.images import ImageStore
from vltaxon.distractors.encoder import Encoder, Vectors
from vltaxon.provenance import read_parquet, write_parquet


def embed(spec: Clip, images: Path, taxa: Path, image_vectors: Path, taxon_vectors: Path, threads: int = 1) -> None:
    """Embed every image and every distinct taxon of a data set.

    Args:
        spec: model file of the encoder.
        images: table of the data set.
        taxa: table of the data set.
        image_vectors: written, schema `embeddings(d)`, id = image_id, ordered as `images`.
        taxon_vectors: written, schema `embeddings(d)`, id = the taxon as displayed, sorted.
        threads: images prepared at once.
    """
    encoder = Encoder(spec)
    stamp = {"rule": "embed", "encoder": spec.name, "template": spec.template, "case": spec.case, "weights": encoder.digest}
    table = read_parquet(images, schemas.IMAGES)
    ids = table["image_id"].to_pylist()
    names = sorted(set(read_parquet(taxa, schemas.TAXA)["taxon"].drop_null().to_pylist()))
    found = encoder.images(ids, ImageStore(table).open, threads, len(ids))
    for path, keys, vectors in ((image_vectors, ids, found), (taxon_vectors, names, encoder.texts(names))):
        width = vectors.shape[1]
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), width)
        write_parquet(pa.table({"id": keys, "vector": column}), path, schemas.embeddings(width), **stamp)


def vectors_of(table: Path, ids: Sequence[str]) -> Vectors:
    """Rows of an embedding table in the order of `ids`: float32 (n, d).

    Raises:
        ValueError: an id is not in the table; then it was made from another data set, a defect of the workflow.
    """
    found = read_parquet(table)
    places = pc.index_in(pa.array(ids, pa.string()), value_set=found["id"].combine_chunks())
    if places.null_count:
        raise ValueError(f"{table}: {places.null_count} of {len(ids)} ids have no embedding")
    column = found["vector"].combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
    return np.asarray(vectors[places.to_numpy()], dtype=np.float32)
