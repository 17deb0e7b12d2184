"""The answers of one identity: a folder that many jobs may read and write at once."""

import fcntl
import json
import os
import time
import uuid
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vltaxon.errors import UserError
from vltaxon.inference.engine import Response
from vltaxon.inference.journal import frames, keys
from vltaxon.provenance import digest_text, exhausted, write_text

NOTE = "identity.json"

_SYNC = 1.0  # seconds of answers that a power cut may take; a killed process takes none, the system has them
_ENTRY = np.dtype([("hash", "<u8"), ("file", "<u4"), ("place", "<u8"), ("length", "<u4")])


def folder_of(root: Path, identity: Mapping[str, Any]) -> Path:
    """Return where the answers of an identity are kept.

    Args:
        root: folder of all identities.
        identity: what all answers have in common.
    """
    return root / digest_text(json.dumps(identity, sort_keys=True))


class JournalFolder:
    """The answers of one identity: those of all files of a folder, and a file to append to."""

    def __init__(self, root: Path, identity: Mapping[str, Any], called: str) -> None:
        """Begin to read.

        Args:
            root: folder of all journals.
            identity: what all answers have in common.
            called: what readers of statistics may call it; not part of it.
        """
        self._folder, self._note = folder_of(root, identity), {"called": called} | dict(identity)
        self._paths: list[Path] = []
        self._read: dict[Path, int] = {}  # how far
        self._index = np.empty(0, _ENTRY)
        self._file: int | None = None
        self._synced = 0.0

    def __len__(self) -> int:
        return len(self._index)

    def refresh(self) -> None:
        """Index what was appended since, by us or by other jobs: 24 bytes of memory an answer."""
        columns = [array("Q"), array("I"), array("Q"), array("I")]
        for path in sorted(self._folder.glob("*.journal")):
            try:
                size = path.stat().st_size
                if size > self._read.get(path, 0):
                    self._take(path, columns)
            except FileNotFoundError:  # pruned meanwhile
                continue
        if columns[0]:
            new = np.empty(len(columns[0]), _ENTRY)
            for name, column in zip(_ENTRY.names or (), columns, strict=True):
                new[name] = np.frombuffer(column, column.typecode)
            both = np.concatenate([self._index, new])
            self._index = both[
                np.argsort(both["hash"], kind="stable")
            ]  # of equal keys the oldest answer comes first

    def _take(self, path: Path, columns: list["array[int]"]) -> None:
        if path not in self._read:
            self._paths.append(path)
        number, start = self._paths.index(path), self._read.get(path, 0)

        def found(key: bytes, place: int, length: int) -> None:
            for column, value in zip(
                columns, (int.from_bytes(key, "little"), number, place, length), strict=True
            ):
                column.append(value)

        file = os.open(path, os.O_RDONLY)
        try:
            end, lost = frames.scan(file, start, found)
            if end < os.fstat(file).st_size:
                with frames.unwritten(path) as free:
                    if (
                        free is not None
                    ):  # what its writer may have appended before it ended, then the rest goes
                        end, more = frames.scan(free, end, found)
                        lost += more
                        frames.cut(free, path, end)
        finally:
            os.close(file)
        for begin, stop in lost:
            print(
                f"journal: {path}: bytes {begin} to {stop} are damaged; what was answered there is asked "
                "again",
                flush=True,
            )
        self._read[path] = end

    def find(self, wanted: Sequence[bytes]) -> dict[bytes, Response]:
        """Return the answers that there are to some keys."""
        if not len(self._index) or not wanted:
            return {}
        hashes = np.frombuffer(b"".join(key[:8] for key in wanted), "<u8")
        at = np.minimum(np.searchsorted(self._index["hash"], hashes), len(self._index) - 1)
        hit = np.flatnonzero(self._index["hash"][at] == hashes)
        entries = self._index[at[hit]]
        answers: dict[bytes, Response] = {}
        for number in np.unique(entries["file"]).tolist():
            mine = entries["file"] == number
            columns = entries["place"][mine].tolist(), entries["length"][mine].tolist(), hit[mine].tolist()
            try:
                with self._paths[number].open("rb") as file:
                    for place, length, i in sorted(zip(*columns, strict=True)):
                        frame = os.pread(file.fileno(), length, place)
                        if frame[frames.HEAD.size : frames.HEAD.size + keys.BYTES] == wanted[
                            i
                        ] and frames.end_of(frame, 0):
                            answers[wanted[i]] = frames.unpack(frame)
            except FileNotFoundError:  # pruned meanwhile: what is not found is asked
                continue
        return answers

    def append(self, key: bytes, response: Response) -> None:
        """Keep an answer.

        Args:
            key: of the request.
            response: the answer.

        Raises:
            UserError: there is no room, or no permission.
        """
        frame = frames.pack(key, response)
        if len(frame) > frames.LIMIT:
            return
        try:
            if self._file is None:
                self._file = self._opened()
            while frame:
                frame = frame[os.write(self._file, frame) :]
            if time.monotonic() - self._synced > _SYNC:
                self.sync()
        except OSError as error:
            words = exhausted(error, self._folder) or error.strerror
            raise UserError(
                f"{self._folder}: what was answered before is kept there, but no more: {words}"
            ) from error

    def _opened(self) -> int:
        """Return a new file, locked; its name sorts by age."""
        while True:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"{time.time_ns():020}-{uuid.uuid4().hex[:8]}"
            path = self._folder / f"{name}.journal"
            try:
                write_text(self._folder / NOTE, json.dumps(self._note, indent=1) + "\n")
                file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
            except FileNotFoundError:  # the folder was pruned that instant
                continue
            with suppress(
                OSError
            ):  # where there are no locks, every file seems to be written, and none is ever cut
                fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists():
                return file
            os.close(file)

    def sync(self) -> None:
        """Have the disk hold what was appended."""
        if self._file is not None:
            os.fsync(self._file)
            self._synced = time.monotonic()

    def close(self) -> None:
        """End the file; a later answer begins another."""
        if self._file is not None:
            self.sync()
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self.close()
