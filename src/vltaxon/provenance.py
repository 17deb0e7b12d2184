"""Complete files with a known origin: atomic writes, digests, and versions in every Parquet file."""

import errno
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vltaxon
from vltaxon.errors import UserError, flat

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
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOTHING = 1 << 16  # bytes of a disk that count as none


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` to write to, and rename it to `path` only if the block ends well.

    So a file that exists is whole, after a power cut, too: it is on the disk before it has its name.

    Raises:
        UserError: the disk is full.
    """
    target = Path(path)
    with _aside(target) as part:
        yield part
        _sync(part)
        os.replace(part, target)
        _sync(target.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole.

    Args:
        path: of the file.
        text: all of it.

    Raises:
        UserError: the disk is full.
    """
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder` to fill; it takes that one's place only if the block ends well.

    Raises:
        UserError: the disk is full.
    """
    with _aside(folder) as part:
        part.mkdir()
        yield part
        for path in (*part.rglob("*"), part):
            _sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
        _sync(folder.parent)


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """Yield a path in a folder beside `target` that this process has for itself until the block ends.

    The folder is locked, so what a killed process left in it is told from what is being written: it is
    deleted, and a second writer of the same target takes a folder of its own.
    """
    with fits(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        numbers = ("", *(f".{number}" for number in range(1, 100)))
        folders = (target.with_name(f".{target.name}{number}.part") for number in numbers)
        folder, lock = next((folder, lock) for folder in folders if (lock := _claim(folder)) is not None)
    part = folder / f"{target.name}.part"  # no other suffix: what is half written is not found as a result
    try:
        for left in folder.iterdir():
            _delete(left)
        with fits(target, part):
            yield part
    finally:
        _delete(folder)
        os.close(lock)


def _claim(folder: Path) -> int | None:
    """Return a descriptor of a folder, made where it is missing, with its lock; None if another has that.

    Where a file system has no locks, the folder is whose who came last.
    """
    while True:
        with suppress(FileExistsError):
            folder.mkdir()
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # its owner was done that instant
            continue
        except NotADirectoryError:  # of an earlier version
            _delete(folder)
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:
            return handle
        if folder.exists() and os.path.samestat(os.fstat(handle), folder.stat()):
            return handle
        os.close(handle)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder."""
    if path.is_symlink():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in (*_FULL, errno.EIO):  # else the file system cannot
            raise
    finally:
        os.close(handle)


@contextmanager
def fits(path: Path, part: Path | None = None) -> Iterator[None]:
    """Say which file a full disk has hit.

    Args:
        path: that the block writes.
        part: where its bytes are until it is whole.

    Raises:
        UserError: the disk, the user's share of it, or a file's largest size is exhausted.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (words := exhausted(error, path)) is None:
            raise
        there = "" if part is None or not part.is_file() else f", after {_megabytes(part.stat().st_size)}"
        raise UserError(f"{path}: could not be written{there}: {words}") from error


def exhausted(error: BaseException, path: Path) -> str | None:
    """Return in words that there is no room for a file; None of an error of any other kind.

    Libraries pass on the system's words without its number; torch and numpy pass on neither. "File too large"
    counts by its number alone: a server may say it, too.

    Args:
        error: raised while the file was written.
        path: of the file.
    """
    whole = path.absolute()
    folder = next(folder for folder in (whole, *whole.parents) if folder.is_dir())
    free = shutil.disk_usage(folder).free
    said = [error, *filter(None, (error.__cause__, error.__context__))]
    codes = {getattr(one, "errno", None) for one in said}
    words = [
        os.strerror(code)
        for code in _FULL
        if code in codes or (code != errno.EFBIG and os.strerror(code) in f"{said}")
    ]
    if not words and free >= _NOTHING:
        return None
    what = words[0] if words else flat(error)
    return f"{what} ({_megabytes(free)} are free in {folder}). Make room, then run the workflow again"


def writable(value: Any) -> Any:
    """Return a value of JSON with `?` for what UTF-8 has no bytes for: half a pair of surrogates.

    Raises:
        RecursionError: it is too deep.
    """
    return json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


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

    with (
        atomic(path) as part,
        pq.ParquetWriter(part, stamped, compression="zstd", write_page_checksum=True) as writer,
    ):
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


@contextmanager
def _undamaged(path: Path | str) -> Iterator[None]:
    """Say which file it is that cannot be read."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path}: is damaged ({flat(error)}); delete it and run the workflow again"
        ) from error


def _expect(path: Path | str, schema: "pa.Schema | None") -> None:
    import pyarrow.parquet as pq

    with _undamaged(path):
        there = pq.read_schema(path).remove_metadata()
    if schema is not None and not there.equals(schema):
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
        UserError: the file is missing or damaged, or has other columns (made by another version, or not by
            vltaxon).
    """
    import pyarrow.parquet as pq

    _expect(path, schema)
    with _undamaged(path):
        return pq.read_table(path, columns=columns, filters=rows, page_checksum_verification=True)


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
        UserError: the file is missing or damaged, or has other columns.
    """
    import pyarrow.parquet as pq

    _expect(path, schema)
    # Without the first two settings whole columns are read ahead.
    how = {"pre_buffer": False, "buffer_size": 1 << 20, "page_checksum_verification": True}
    with _undamaged(path), pq.ParquetFile(path, **how) as file:
        yield from file.iter_batches(rows, columns=columns)


def verify(paths: Iterable[Path]) -> None:
    """Read tables that `write_parquet` made against the checksums of their pages, for readers that do not.

    DuckDB takes most flipped bits for data.

    Raises:
        UserError: a file is missing or damaged.
    """
    for path in dict.fromkeys(paths):
        for _ in parquet_batches(path):
            pass


def facts(path: Path | str) -> dict[str, str]:
    """Return what `write_parquet` stamped on a file.

    Raises:
        UserError: the file is missing or damaged.
    """
    import pyarrow.parquet as pq

    with _undamaged(path):
        # The metadata of the file, not of its schema, which has no late facts.
        stamped = pq.read_metadata(path).metadata or {}
    return {
        key.decode().removeprefix("vltaxon:"): value.decode()
        for key, value in stamped.items()
        if key.startswith(b"vltaxon:")
    }
