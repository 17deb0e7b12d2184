"""What stage 1 named, as the stages and the training samples that are conditioned on it read it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vltaxon import parsing, provenance, schemas
from vltaxon.tasks.prediction import ListLeavesTask


def list_leaves(task: ListLeavesTask) -> None:
    """List the shards of stage 1 with their digests, in one file on which all shards of stage 2 depend."""
    digests = {str(path): provenance.digest_file(path) for path in task.leaves}
    with provenance.atomic(task.shards) as part:
        part.write_text(json.dumps(digests, indent=1), encoding="utf-8")


def listed(paths: Iterable[Path]) -> list[Path]:
    """Return tables of stage 1: these, or those of a list of them."""
    tables: list[Path] = []
    for path in paths:
        several = path.suffix == ".json"
        tables += map(Path, json.loads(path.read_text(encoding="utf-8"))) if several else [path]
    return tables


def read_leaves(paths: Sequence[Path], ids: Sequence[str] | None = None) -> Mapping[str, parsing.Reading]:
    """Return stage 1's reading of each image.

    Args:
        paths: tables of stage 1.
        ids: of the images that are wanted; all where not said.
    """
    columns = ["image_id", "outcome", "answer"]
    wanted = None if ids is None else pc.field("image_id").isin(pa.array(ids, pa.string()))
    tables = [provenance.read_parquet(path, schemas.PREDICTIONS, columns, wanted) for path in paths]
    rows = zip(*(column.to_pylist() for column in pa.concat_tables(tables).columns), strict=True)
    return {image_id: parsing.Reading(outcome, answer) for image_id, outcome, answer in rows}
