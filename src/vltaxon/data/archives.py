"""Archives as downloaded, turned into a plain tar and an index of byte ranges, so that any image is one seek away."""

import gzip
import os
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from vltaxon import config, schemas
from vltaxon.errors import UserError
from vltaxon.provenance import atomic, read_parquet, write_parquet

_BLOCK = 1 << 18  # tarfile copies the rest of a block at each small read, so larger is slower


@dataclass(frozen=True)
class Archive:
    """An unpacked archive: the tar and its index (schema `ARCHIVE`)."""

    tar: Path
    index: Path

    @cached_property
    def members(self) -> pa.Table:
        """The index: member, offset, size."""
        return read_parquet(self.index, schemas.ARCHIVE)

    def read(self, member: str) -> bytes:
        """The bytes of one member.

        Raises:
            UserError: the archive has no such member.
        """
        found = self.members.filter(pc.equal(self.members["member"], member)).to_pylist()
        if not found:
            raise UserError(f"{self.tar}: has no member {member}; is it the archive that the data set file names?")
        with open(self.tar, "rb") as file:
            return os.pread(file.fileno(), found[0]["size"], found[0]["offset"])


def located(dataset: config.Dataset, folder: Path) -> dict[str, Archive]:
    """The unpacked archives of a data set's splits, as `unpack` leaves them in `folder`."""
    splits = {"train": dataset.train, "test": dataset.test}
    names = {split: part.stem for split, part in splits.items() if part is not None}
    return {split: Archive(folder / f"{name}.tar", folder / f"{name}.parquet") for split, name in names.items()}


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Tee:
    """Reads one stream and keeps a copy of all that passes."""

    def __init__(self, source: _Readable, copy: IO[bytes]) -> None:
        self._source, self._copy = source, copy

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._copy.write(data)
        return data


def unpack(archive: Path, tar: Path, index: Path) -> None:
    """Decompress a tar.gz to `tar` and write the byte range of each regular file to `index`, in one pass.

    Memory grows with the number of members only. Nothing is extracted to the file system.

    Raises:
        UserError: the archive is missing, damaged, or holds what no data set has: links, devices, sparse files,
            two members of one name, absolute paths or paths with `..`.
    """
    if not archive.is_file():
        raise UserError(f"{archive}: no such archive; download it there, or name it in the data set's file")
    rows: dict[str, tuple[int, int]] = {}
    current = "the start"
    with atomic(tar) as part:
        try:
            with open(part, "w+b") as copy, gzip.open(archive, "rb") as source:
                tee = _Tee(source, copy)
                with tarfile.open(fileobj=tee, mode="r|", bufsize=_BLOCK) as stream:  # type: ignore[call-overload]
                    for info in tqdm(_members(stream), desc=f"unpack {archive.name}", unit=" members", mininterval=5):
                        current = info.name
                        if info.isdir():
                            continue
                        name = _checked(info, archive)
                        if name in rows:
                            raise UserError(f"{archive}: member {name}: occurs twice")
                        rows[name] = (info.offset_data, info.size)
                    end = stream.offset
                while tee.read(_BLOCK):  # the checksum of gzip comes last
                    pass
                _demand_zeros(copy, end)
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise UserError(f"{archive}: damaged, after {current}: {error}; download it again") from error
        columns = [list(rows), [offset for offset, _ in rows.values()], [size for _, size in rows.values()]]
        write_parquet(pa.table(columns, schema=schemas.ARCHIVE), index, schemas.ARCHIVE, rule="unpack", archive=archive.name)


def _members(stream: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := stream.next()) is not None:
        yield info
        stream.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header otherwise


def _checked(info: tarfile.TarInfo, archive: Path) -> str:
    """The member's path without `./`, refused unless it is a plain file with a plain relative path."""
    name = posixpath.normpath(info.name)
    problem = ""
    if not info.isreg() or info.issparse():
        problem = "is a link, a device or a sparse file, not a plain file"
    elif name.startswith("/") or ".." in info.name.split("/"):
        problem = "has a path that leads out of the archive"
    elif any(0xD800 <= ord(letter) <= 0xDFFF for letter in name):
        problem = "has a name that is not UTF-8"
    if problem:
        raise UserError(f"{archive}: member {info.name!a}: {problem}; data sets have none, so it is not trusted")
    return name


def _demand_zeros(copy: IO[bytes], start: int) -> None:
    """tarfile takes a damaged header for the end; a real end is followed by zeros alone."""
    copy.seek(start)
    while block := copy.read(_BLOCK):
        if block.count(0) != len(block):
            raise tarfile.ReadError("a header is unreadable")
