"""Complete files with a known origin: atomic writes, digests, and versions in every Parquet file."""

import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vltaxon
from vltaxon.errors import UserError

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "open_clip_torch",
    "pyarrow",
    "duckdb",
    "pillow",
    "numpy",
)
_ROWS = 1 << 20  # of a frame that are converted at once


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a sibling path to write to; rename it to `path` only if the block ends well, so that a file
    that exists is whole.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a sibling folder to fill; it takes the place of `folder` only if the block ends well."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def digest_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_folder(folder: Path | str) -> str:
    """SHA-256 over the names and contents of a folder's files, in name order."""
    root, total = Path(folder), hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        total.update(f"{path.relative_to(root).as_posix()}\0{digest_file(path)}\n".encode())
    return total.hexdigest()


def digest_text(*texts: str) -> str:
    """First 16 hex digits of the SHA-256 of texts: short ids for prompts and settings."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


@functools.cache
def origin() -> dict[str, str]:
    """Version of vltaxon, git commit (with `+dirty` where uncommitted), and versions of the packages that
    shape the numbers.
    """
    root = Path(__file__).resolve().parents[2]

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD") or "unknown"
    dirty = "+dirty" if git("status", "--porcelain", "--", "src", "config", "workflow", "Snakefile") else ""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "vltaxon": vltaxon.__version__,
        "commit": commit + dirty,
        "packages": json.dumps(versions, sort_keys=True),
    }


@contextmanager
def parquet_writer(
    path: Path | str, schema: "pa.Schema", late: Callable[[], Mapping[str, Any]] = dict, **facts: Any
) -> Iterator[Callable[["pa.Table"], None]]:
    """Yield a function that adds rows to a Parquet file stamped with `origin()` and `facts` (rule, seed,
    digests, ...).

    `late` gives further facts, that are known at the end. The file is there only if the block ends well. Each
    table that is handed over is checked against `schema` and written at once.

    Raises:
        ValueError: a column is missing, superfluous or cannot be cast; that is a defect of ours, not of the
            user's.
    """
    import pyarrow.parquet as pq

    stamped = schema.with_metadata(_stamp(origin() | facts))

    def write(table: "pa.Table") -> None:
        if sorted(table.column_names) != sorted(schema.names):
            odd = sorted(set(table.column_names) ^ set(schema.names))
            raise ValueError(f"{path}: columns differ from the schema: {', '.join(odd)}")
        writer.write_table(table.select(schema.names).cast(schema).replace_schema_metadata(stamped.metadata))

    with atomic(path) as part, pq.ParquetWriter(part, stamped, compression="zstd") as writer:
        yield write
        writer.add_key_value_metadata(_stamp(late()))


def _stamp(facts: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Facts as a file keeps them."""
    said = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    return {f"vltaxon:{key}".encode(): value.encode() for key, value in sorted(said.items())}


def write_parquet(table: "pa.Table", path: Path | str, schema: "pa.Schema", **facts: Any) -> None:
    """Write one table whole: see `parquet_writer`."""
    with parquet_writer(path, schema, **facts) as write:
        write(table)


def _expect(path: Path | str, schema: "pa.Schema | None") -> None:
    import pyarrow.parquet as pq

    if not Path(path).exists():
        raise UserError(f"{path}: no such file")
    found = pq.read_schema(path)
    if schema is not None and not found.remove_metadata().equals(schema):
        raise UserError(
            f"{path}: its columns are not the expected ones; delete it and run the workflow again"
        )


def read_parquet(
    path: Path | str, schema: "pa.Schema | None" = None, columns: list[str] | None = None, rows: Any = None
) -> "pa.Table":
    """Read a table that `write_parquet` made, refusing one whose columns are not those of `schema`.

    Args:
        path: of the file.
        schema: that it must have.
        columns: to read; all where not said.
        rows: a pyarrow expression that tells which rows to read; others are dropped on the way.

    Raises:
        UserError: the file is missing or has other columns (made by another version, or not by vltaxon).
    """
    import pyarrow.parquet as pq

    _expect(path, schema)
    return pq.read_table(path, columns=columns, filters=rows)


def read_frame(
    path: Path | str, schema: "pa.Schema | None" = None, columns: list[str] | None = None, rows: Any = None
) -> "pl.DataFrame":
    """Read the same as a frame of polars."""
    import polars as pl

    frame = pl.from_arrow(read_parquet(path, schema, columns, rows))
    assert isinstance(frame, pl.DataFrame), "a table is no series"
    return frame


def write_frame(frame: "pl.DataFrame", path: Path | str, schema: "pa.Schema", **facts: Any) -> None:
    """Write a frame of polars whole: see `parquet_writer`."""
    import polars as pl

    with parquet_writer(path, schema, **facts) as write:
        for part in frame.iter_slices(_ROWS):
            write(part.to_arrow(compat_level=pl.CompatLevel.oldest()))


def parquet_batches(
    path: Path | str, schema: "pa.Schema | None" = None, columns: list[str] | None = None, rows: int = 16_384
) -> Iterator["pa.RecordBatch"]:
    """The same in order, some rows at a time, for tables that need not be in memory as a whole."""
    import pyarrow.parquet as pq

    _expect(path, schema)
    with pq.ParquetFile(
        path, pre_buffer=False, buffer_size=1 << 20
    ) as file:  # else whole columns are read ahead
        yield from file.iter_batches(rows, columns=columns)


def facts(path: Path | str) -> dict[str, str]:
    """What `write_parquet` stamped on a file."""
    import pyarrow.parquet as pq

    stamped = pq.read_metadata(path).metadata or {}  # of the file: late facts are not in the schema's
    return {
        k.decode().removeprefix("vltaxon:"): v.decode()
        for k, v in stamped.items()
        if k.startswith(b"vltaxon:")
    }
