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
    import pyarrow.compute as pc

_PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "open_clip_torch",
    "pyarrow",
    "polars",
    "duckdb",
    "pillow",
    "numpy",
)
_ROWS = 1 << 20  # rows of a frame that are converted at once


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a sibling path to write to, and rename it to `path` only if the block ends well.

    So a file that exists is whole.
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
    """Return the SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_folder(folder: Path | str) -> str:
    """Return the SHA-256 over the names and contents of a folder's files, in name order."""
    root, total = Path(folder), hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        total.update(f"{path.relative_to(root).as_posix()}\0{digest_file(path)}\n".encode())
    return total.hexdigest()


def digest_text(*texts: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of texts: short ids for prompts and settings."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


@functools.cache
def origin() -> dict[str, str]:
    """Return the version of vltaxon, the git commit, and the versions of packages that shape the numbers.

    The commit ends in `+dirty` where there are uncommitted changes.
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
    """Yield a function that adds the rows of a table to a Parquet file, checked against its schema.

    Each table is written at once. The file is there only if the block ends well.

    Args:
        path: file to write.
        schema: its columns.
        late: returns further facts, which are known only at the end.
        **facts: what is stamped on the file beside `origin()`: rule, seed, digests, ...

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
    """Return facts as the metadata of a Parquet file holds them."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    return {f"vltaxon:{key}".encode(): value.encode() for key, value in sorted(texts.items())}


def write_parquet(table: "pa.Table", path: Path | str, schema: "pa.Schema", **facts: Any) -> None:
    """Write one whole table as a Parquet file: see `parquet_writer`.

    Args:
        table: its rows.
        path: file to write.
        schema: columns of the file.
        **facts: what is stamped on the file: rule, seed, digests, ...
    """
    with parquet_writer(path, schema, **facts) as write:
        write(table)


def _expect(path: Path | str, schema: "pa.Schema | None") -> None:
    import pyarrow.parquet as pq

    if not Path(path).exists():
        raise UserError(f"{path}: no such file")
    if schema is not None and not pq.read_schema(path).remove_metadata().equals(schema):
        raise UserError(
            f"{path}: its columns are not the expected ones; delete it and run the workflow again"
        )


def read_parquet(
    path: Path | str,
    schema: "pa.Schema | None" = None,
    columns: list[str] | None = None,
    rows: "pc.Expression | None" = None,
) -> "pa.Table":
    """Read a table that `write_parquet` made, refusing one whose columns are not those of `schema`.

    Args:
        path: file to read.
        schema: the columns that it must have; not checked where None.
        columns: names of the columns to read; None for all.
        rows: condition on the rows to read; None for all.

    Raises:
        UserError: the file is missing or has other columns (made by another version, or not by vltaxon).
    """
    import pyarrow.parquet as pq

    _expect(path, schema)
    return pq.read_table(path, columns=columns, filters=rows)


def read_frame(
    path: Path | str,
    schema: "pa.Schema | None" = None,
    columns: list[str] | None = None,
    rows: "pc.Expression | None" = None,
) -> "pl.DataFrame":
    """Read a table that `write_parquet` made as a polars frame: see `read_parquet`.

    Args:
        path: file to read.
        schema: the columns that it must have; not checked where None.
        columns: names of the columns to read; None for all.
        rows: condition on the rows to read; None for all.
    """
    import polars as pl

    frame = pl.from_arrow(read_parquet(path, schema, columns, rows))
    assert isinstance(frame, pl.DataFrame), "a table is no series"
    return frame


def write_frame(frame: "pl.DataFrame", path: Path | str, schema: "pa.Schema", **facts: Any) -> None:
    """Write a whole polars frame as a Parquet file: see `parquet_writer`.

    Args:
        frame: its rows.
        path: file to write.
        schema: columns of the file.
        **facts: what is stamped on the file: rule, seed, digests, ...
    """
    import polars as pl

    with parquet_writer(path, schema, **facts) as write:
        for part in frame.iter_slices(_ROWS):
            write(part.to_arrow(compat_level=pl.CompatLevel.oldest()))


def parquet_batches(
    path: Path | str, schema: "pa.Schema | None" = None, columns: list[str] | None = None, rows: int = 16_384
) -> Iterator["pa.RecordBatch"]:
    """Read a table that `write_parquet` made in order, in batches: it need not fit into memory.

    Args:
        path: file to read.
        schema: the columns that it must have; not checked where None.
        columns: names of the columns to read; None for all.
        rows: rows of a batch.

    Raises:
        UserError: the file is missing or has other columns.
    """
    import pyarrow.parquet as pq

    _expect(path, schema)
    # Without these settings whole columns are read ahead.
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        yield from file.iter_batches(rows, columns=columns)


def facts(path: Path | str) -> dict[str, str]:
    """Return what `write_parquet` stamped on a file."""
    import pyarrow.parquet as pq

    # The metadata of the file, not of its schema, which has no late facts.
    stamped = pq.read_metadata(path).metadata or {}
    return {
        key.decode().removeprefix("vltaxon:"): value.decode()
        for key, value in stamped.items()
        if key.startswith(b"vltaxon:")
    }
