"""What stage 1 named, as the stages and the training samples that are conditioned on it read it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from vltaxon import parsing, provenance, schemas


def read_leaves(paths: Sequence[Path]) -> Mapping[str, parsing.Reading]:
    """Stage 1's reading of each image, from its shards."""
    tables = [provenance.read_parquet(path, schemas.PREDICTIONS, ["image_id", "outcome", "answer"]) for path in paths]
    return {row["image_id"]: parsing.Reading(row["outcome"], row["answer"]) for row in pa.concat_tables(tables).to_pylist()}
