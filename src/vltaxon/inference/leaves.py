"""What stage 1 named, as the stages and the training samples that are conditioned on it read it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vltaxon import parsing, provenance, schemas


def list_leaves(paths: Iterable[Path], output: Path) -> None:
    """List the shards of stage 1 with the digests of their bytes, as one file for all shards of stage 2 to depend on."""
    with provenance.atomic(output) as part:
        part.write_text(json.dumps({str(path): provenance.digest_file(path) for path in paths}, indent=1), encoding="utf-8")


def listed(paths: Iterable[str]) -> list[Path]:
    """Tables of stage 1: these, or those of a list of them."""
    found: list[Path] = []
    for path in paths:
        found += map(Path, json.loads(Path(path).read_text(encoding="utf-8")) if path.endswith(".json") else [path])
    return found


def read_leaves(paths: Sequence[Path], ids: Sequence[str] | None = None) -> Mapping[str, parsing.Reading]:
    """Stage 1's reading of each image, or of each of `ids`, from its shards."""
    columns, rows = (
        ["image_id", "outcome", "answer"],
        None if ids is None else pc.field("image_id").isin(pa.array(ids, pa.string())),
    )
    tables = [provenance.read_parquet(path, schemas.PREDICTIONS, columns, rows) for path in paths]
    return {row["image_id"]: parsing.Reading(row["outcome"], row["answer"]) for row in pa.concat_tables(tables).to_pylist()}
