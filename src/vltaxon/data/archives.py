"""Where images lie: in folders, or in archives, of which a plain tar and an index of byte ranges are made."""

import os
import posixpath
import shutil
import tarfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePath
from stat import S_ISREG
from typing import IO, Protocol, Self

import polars as pl
import pyarrow as pa
from isal import igzip_threaded
from tqdm import tqdm

from vltaxon import schemas
from vltaxon.config.datasets import RawDataset
from vltaxon.data.verified import demand_unchanged
from vltaxon.errors import UserError, listed
from vltaxon.provenance import atomic, exhausted, read_frame, write_parquet
from vltaxon.tasks.data import UnpackTask

_BLOCK = 1 << 20
_PLAUSIBLE = (
    20  # times its size, to which an archive of images and tables unpacks at most; a bomb reaches 1,032
)
_FREE = 1 << 26  # bytes below which the ratio is not looked at: a tar of a few small files is mostly padding
_PLACE = {"archive": pl.String, "offset": pl.Int64, "size": pl.Int64}
_TEXTS = {"archive": pl.String, "member": pl.String}
_LONGEST = 1 << 20  # bytes of a header's extension (a long name), which tarfile takes into memory


@dataclass(frozen=True)
class Archive:
    """An unpacked archive: the tar and its index (schema `ARCHIVE`)."""

    tar: Path
    index: Path

    def __str__(self) -> str:
        return str(self.tar)

    @cached_property
    def members(self) -> pl.DataFrame:
        """Return the index: member, offset, size."""
        return read_frame(self.index, schemas.ARCHIVE)

    def find(self, members: Sequence[str] | pl.Series) -> pl.DataFrame:
        """Return archive, offset and size of each member; the offset and size of an absent one are null."""
        asked = pl.DataFrame({"archive": self.tar.as_posix(), "member": members}, schema_overrides=_TEXTS)
        return asked.join(self.members, on="member", how="left", maintain_order="left").drop("member")

    def absent(self, member: str) -> str:
        """Return why there is no such member."""
        return "not in the archive"

    def read(self, member: str) -> bytes:
        """Return the bytes of one member.

        Raises:
            UserError: the archive has no such member.
        """
        found = self.members.filter(pl.col("member") == member)
        if found.is_empty():
            raise UserError(
                f"{self.tar}: has no member {member}; is it the archive that the data set file names?"
            )
        with open(self.tar, "rb") as file:
            return os.pread(file.fileno(), found["size"][0], found["offset"][0])


@dataclass(frozen=True)
class Folder:
    """Image files as somebody keeps them.

    Each is an archive of its own, which begins at offset 0 as no member of a tar does.
    """

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def find(self, members: Sequence[str] | pl.Series) -> pl.DataFrame:
        """Return archive, offset and size of each file; the offset and size of an absent one are null."""
        files = [self.root / member for member in members]
        places = [(path.as_posix(), None if (size := _size(path)) is None else 0, size) for path in files]
        return pl.DataFrame(places, schema=_PLACE, orient="row")

    def absent(self, member: str) -> str:
        """Return why there is no such file, with what is there instead."""
        path = self.root / member
        there = _listing(path.parent)
        if there is None:
            top = next((folder for folder in path.parents if os.path.isdir(folder)), self.root)
            inside = listed([name for name in _listing(top) or () if os.path.isdir(top / name)])
            return f"no such file (the folder {path.parent} is not there; folders in {top}: {inside})"
        if os.path.isdir(path):
            return "no such file (it is a folder)"
        plain = [unicodedata.normalize("NFC", name) for name in there]
        alike: list[Callable[[str], str]] = [
            lambda name: name,
            str.casefold,
            lambda name: PurePath(name).stem.casefold(),
        ]
        for written in alike:
            wanted = written(unicodedata.normalize("NFC", path.name))
            if found := [name for name, text in zip(there, plain, strict=True) if written(text) == wanted]:
                how = ", in another Unicode form (NFC, NFD)" if written is alike[0] else ""
                return f'no such file (there is "{found[0]}"{how})'
        return f"no such file (its folder has {listed(there)})"


@cache
def _listing(folder: Path) -> list[str] | None:
    """Return the names in a folder, None where there is none."""
    try:
        return sorted(os.fsencode(name).decode(errors="replace") for name in os.listdir(folder))
    except (OSError, ValueError):
        return None


def _size(path: Path) -> int | None:
    try:
        found = path.stat()
    except (OSError, ValueError):  # a path with a NUL is a ValueError
        return None
    return found.st_size if S_ISREG(found.st_mode) else None


def located(dataset: RawDataset, folder: Path) -> dict[str, Archive | Folder]:
    """Return where the images of each split lie: in a folder, or in an archive that `unpack` left.

    Args:
        dataset: its file, checked.
        folder: of the unpacked archives.
    """
    places: dict[str, Archive | Folder] = {}
    for split, part in (("train", dataset.train), ("test", dataset.test)):
        if part is None:
            continue
        root = part.table.parent if part.table is not None else part.folder
        archive = Archive(folder / f"{part.stem}.tar", folder / f"{part.stem}.parquet")
        places[split] = archive if root is None else Folder(root)
    return places


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Passing:
    """The unpacked stream as tarfile reads it, forward only.

    What passes is written to `copy`, `limit` bytes at most.
    """

    def __init__(self, source: _Readable, copy: IO[bytes], limit: int) -> None:
        self._source, self._copy, self._limit, self._place = source, copy, limit, 0

    def tell(self) -> int:
        return self._place

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._place += len(data)
        if self._place > self._limit:
            raise tarfile.ReadError(f"unpacks to more than {_PLAUSIBLE} times its size, which no images do")
        self._copy.write(data)
        return data

    def seek(self, place: int) -> None:
        if place < self._place:
            raise tarfile.ReadError("a header is unreadable")
        while self._place < place and self.read(min(_BLOCK, place - self._place)):
            pass


class _Header(tarfile.TarInfo):
    """A header whose size can be believed.

    Tarfile reads its extensions into memory, however long they claim to be.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.size > _LONGEST and not header.isreg()):
            raise tarfile.ReadError("a header is unreadable")
        return header


def unpack_archive(task: UnpackTask) -> None:
    """Unpack a raw archive that has not changed since its checksum was verified.

    Raises:
        UserError: it has changed, or `unpack` refuses it.
    """
    demand_unchanged(task.archive)
    unpack(task.archive, task.tar, task.index)


def unpack(archive: Path, tar: Path, index: Path) -> None:
    """Decompress a tar.gz to `tar` and write the byte range of each regular file to `index`, in one pass.

    Memory grows with the number of members only. Nothing is extracted to the file system.

    Args:
        archive: the tar.gz.
        tar: written.
        index: written, schema `ARCHIVE`.

    Raises:
        UserError: the archive is missing or damaged, does not fit on the disk, unpacks to far more than
            images do, or holds what no data set has: links, devices, sparse files, two members of one name,
            absolute paths or paths with `..`.
    """
    if not archive.is_file():
        raise UserError(f"{archive}: no such archive; download it there, or name it in the data set's file")
    limit = max(_FREE, _PLAUSIBLE * archive.stat().st_size)
    rows: dict[str, tuple[int, int]] = {}
    current = "the start"
    with atomic(tar) as part:
        _demand_space(archive, part.parent)
        try:
            with open(part, "w+b") as copy, igzip_threaded.open(archive, "rb") as source:
                passing = _Passing(source, copy, limit)
                with tarfile.open(  # type: ignore[call-overload]
                    fileobj=passing, mode="r:", tarinfo=_Header
                ) as stream:
                    for info in tqdm(
                        _members(stream), f"unpack {archive.name}", unit=" members", mininterval=5
                    ):
                        current = f"member {info.name!a}"
                        name = _checked(info, archive, limit)
                        if info.isdir():
                            continue
                        if name in rows:
                            raise UserError(f"{archive}: {current}: occurs twice")
                        rows[name] = (info.offset_data, info.size)
                    end = stream.offset
                while passing.read(_BLOCK):  # the checksum of gzip comes last
                    pass
                _demand_zeros(copy, end)
        except (UserError, MemoryError):
            raise
        except OSError as error:
            if error.errno is None:  # gzip's own
                raise _damaged(archive, current, error) from error
            words = exhausted(error, tar) or error.strerror
            raise UserError(f"{archive}: cannot be unpacked to {tar}, at {current}: {words}") from error
        except Exception as error:  # damaged bytes make tarfile raise nearly anything
            raise _damaged(archive, current, error) from error
        columns = [list(rows), [offset for offset, _ in rows.values()], [size for _, size in rows.values()]]
        write_parquet(
            pa.table(columns, schema=schemas.ARCHIVE),
            index,
            schemas.ARCHIVE,
            rule="unpack",
            archive=archive.name,
        )


def _demand_space(archive: Path, folder: Path) -> None:
    """Refuse a disk with less room than the archive takes as it is."""
    packed, free = archive.stat().st_size, shutil.disk_usage(folder).free
    if free < packed:
        raise UserError(
            f"{archive}: takes {packed / 1e9:.1f} GB and more, unpacked; {folder} has "
            f"{free / 1e9:.1f} GB left"
        )


def _damaged(archive: Path, current: str, error: Exception) -> UserError:
    return UserError(f"{archive}: damaged, after {current}: {error}; download it again")


def _members(stream: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := stream.next()) is not None:
        yield info
        stream.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header otherwise


def _checked(info: tarfile.TarInfo, archive: Path, limit: int) -> str:
    """Return a member's path without `./`; refuse what is no plain file or folder, or leads elsewhere."""
    name = posixpath.normpath(info.name)
    problem = ""
    if not (info.isreg() or info.isdir()) or info.issparse():
        problem = "is a link, a device or a sparse file, not a plain file"
    elif name.startswith("/") or ".." in info.name.split("/"):
        problem = "has a path that leads out of the archive"
    elif any(0xD800 <= ord(letter) <= 0xDFFF for letter in name):
        problem = "has a name that is not UTF-8"
    elif not 0 <= info.size <= limit:
        problem = f"claims {info.size} bytes, more than {_PLAUSIBLE} times the whole archive"
    if problem:
        raise UserError(
            f"{archive}: member {info.name!a}: {problem}; data sets have none, so it is not trusted"
        )
    return name


def _demand_zeros(copy: IO[bytes], start: int) -> None:
    """Refuse a damaged header, which tarfile takes for the end: zeros alone follow a real one."""
    copy.seek(start)
    while block := copy.read(_BLOCK):
        if block.count(0) != len(block):
            raise tarfile.ReadError("a header is unreadable")
