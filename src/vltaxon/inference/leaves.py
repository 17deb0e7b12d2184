"""What stage 1 named, as the stages and the training samples that are conditioned on it read it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vltaxon import parsing, provenance, schemas


def read_leaves(paths: Sequence[Path], ids: Sequence[str] | None = None) -> Mapping[str, parsing.Reading]:
    """Stage 1's reading of each image, or of each of `ids`, from its shards."""
    columns, rows = (
        ["image_id", "outcome", "answer"],
        None if ids is None else pc.field("image_id").isin(pa.array(ids, pa.string())),
    )
    tables = [provenance.read_parquet(path, schemas.PREDICTIONS, columns, rows) for path in paths]
    return {row["image_id"]: parsing.Reading(row["outcome"], row["answer"]) for row in pa.concat_tables(tables).to_pylist()}
