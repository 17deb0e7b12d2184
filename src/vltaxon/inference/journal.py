"""Every answer, kept as it comes: a job that dies at any moment loses no more than what was being generated.

An answer is found by all that shapes it, and by nothing else. What the requests of a job share (weights and adapter, number
format, pixel budget, engine and its version) is an identity, a folder; what differs (image, prompt, decoding, repeat) is the
answer's key. So an answer serves whoever asks the same, by whatever protocol, batch size, number of shards or of devices.

A writer has a file of its own, to which it appends frames, and a lock on it as long as it lives:

    marker (4 bytes, not in UTF-8) | length | CRC-32 of the rest | key (16 bytes) | the answer as JSON

Readers take whole frames only. What is torn or damaged is said and skipped, and cut where it is the end of a file that nobody
writes any more; its requests are simply asked again.
"""

import fcntl
import json
import os
import shutil
import struct
import time
import uuid
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate as layout

from vltaxon.errors import UserError
from vltaxon.inference.engine import Decoding, Engine, Request, Response
from vltaxon.provenance import digest_text, facts

_MARKER = b"\xf5vtj"
_HEAD = struct.Struct("<4sII")
_KEY = 16
_LIMIT = 4 << 20  # bytes of an answer; a longer one is no text that was asked for, and is not kept
_BLOCK = 16 << 20  # bytes read at once: some of the longest frames
_SYNC = 1.0  # seconds of answers that a power cut may take; a killed process takes none, the system has them
_ENTRY = np.dtype([("hash", "<u8"), ("file", "<u4"), ("place", "<u8"), ("length", "<u4")])
_NOTE = "identity.json"
_FIELDS = {field.name for field in fields(Response)}


def _frame(key: bytes, response: Response) -> bytes:
    body = key + json.dumps(vars(response), separators=(",", ":")).encode()
    return _HEAD.pack(_MARKER, len(body), zlib.crc32(body)) + body


def _response(frame: bytes) -> Response:
    said: dict[str, Any] = json.loads(frame[_HEAD.size + _KEY :])
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items() if k in _FIELDS}
    return Response(**known)


def _end(block: bytes, at: int) -> int | None:
    """Where the frame that begins at `at` ends; 0 where there is none, None where the block is too short to tell."""
    if len(block) - at < _HEAD.size:
        return None
    marker, length, crc = _HEAD.unpack_from(block, at)
    if marker != _MARKER or not _KEY < length <= _KEY + _LIMIT:
        return 0
    end = at + _HEAD.size + length
    if end > len(block):
        return None
    return end if zlib.crc32(block[at + _HEAD.size : end]) == crc else 0


def _scan(file: int, start: int, found: Callable[[bytes, int, int], None]) -> tuple[int, list[tuple[int, int]]]:
    """Hand (beginning of the key, place, length) of every whole frame from `start` on to `found`.

    Returns:
        Where the last whole frame ends, and the (begin, end) of damage between frames; what follows the last is for the caller.
    """
    at, bad, lost = start, -1, []
    while True:
        block = os.pread(file, _BLOCK, at)
        last, here = len(block) < _BLOCK, 0
        while here < len(block):
            end = _end(block, here)
            if end:
                if bad >= 0:
                    lost.append((bad, at + here))
                    bad = -1
                found(block[here + _HEAD.size : here + _HEAD.size + 8], at + here, end - here)
                here = end
                continue
            if end is None and not last:
                break
            bad = bad if bad >= 0 else at + here
            here = block.find(_MARKER, here + 1)
            if here < 0:  # the block may end within a marker
                here = len(block) if last else len(block) - len(_MARKER) + 1
                break
        if last:
            return (bad if bad >= 0 else at + here), lost
        at += here


@contextmanager
def _unwritten(path: Path) -> Iterator[int | None]:
    """The file, locked, if nobody writes it; None where somebody does, or where we may not."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        yield None
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
        else:
            yield file
    finally:
        os.close(file)


def _cut(file: int, path: Path, end: int) -> None:
    """Drop what follows the last whole frame."""
    if size := os.fstat(file).st_size - end:
        os.ftruncate(file, end)
        print(f"journal: {path}: its last {size} bytes are no whole answer and were cut; what is lost is asked again", flush=True)


def folder_of(root: Path, identity: Mapping[str, Any]) -> Path:
    """Where the answers of an identity are kept."""
    return root / digest_text(json.dumps(identity, sort_keys=True))


class Journal:
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
            self._index = both[np.argsort(both["hash"], kind="stable")]  # of equal keys the oldest answer comes first

    def _take(self, path: Path, columns: list["array[int]"]) -> None:
        if path not in self._read:
            self._paths.append(path)
        number, start = self._paths.index(path), self._read.get(path, 0)

        def found(key: bytes, place: int, length: int) -> None:
            for column, value in zip(columns, (int.from_bytes(key, "little"), number, place, length), strict=True):
                column.append(value)

        file = os.open(path, os.O_RDONLY)
        try:
            end, lost = _scan(file, start, found)
            if end < os.fstat(file).st_size:
                with _unwritten(path) as free:
                    if free is not None:  # what its writer may have appended before it ended, then the rest goes
                        end, more = _scan(free, end, found)
                        lost += more
                        _cut(free, path, end)
        finally:
            os.close(file)
        for begin, stop in lost:
            print(f"journal: {path}: bytes {begin} to {stop} are damaged; what was answered there is asked again", flush=True)
        self._read[path] = end

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Response]:
        """The answers that there are to some of the keys."""
        if not len(self._index) or not keys:
            return {}
        hashes = np.frombuffer(b"".join(key[:8] for key in keys), "<u8")
        at = np.minimum(np.searchsorted(self._index["hash"], hashes), len(self._index) - 1)
        hit = np.flatnonzero(self._index["hash"][at] == hashes)
        entries = self._index[at[hit]]
        answers: dict[bytes, Response] = {}
        for number in np.unique(entries["file"]).tolist():
            mine = entries["file"] == number
            wanted = sorted(
                zip(entries["place"][mine].tolist(), entries["length"][mine].tolist(), hit[mine].tolist(), strict=True)
            )
            try:
                with self._paths[number].open("rb") as file:
                    for place, length, i in wanted:
                        frame = os.pread(file.fileno(), length, place)
                        if frame[_HEAD.size : _HEAD.size + _KEY] == keys[i] and _end(frame, 0):
                            answers[keys[i]] = _response(frame)
            except FileNotFoundError:  # pruned meanwhile: what is not found is asked
                continue
        return answers

    def append(self, key: bytes, response: Response) -> None:
        """Keep an answer.

        Raises:
            UserError: there is no room, or no permission.
        """
        frame = _frame(key, response)
        if len(frame) > _LIMIT:
            return
        try:
            if self._file is None:
                self._file = self._opened()
            while frame:
                frame = frame[os.write(self._file, frame) :]
            if time.monotonic() - self._synced > _SYNC:
                self.sync()
        except OSError as error:
            raise UserError(f"{self._folder}: {error.strerror}; what was answered before is kept there") from error

    def _opened(self) -> int:
        """A new file, locked; a name that sorts by age."""
        while True:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"{time.time_ns():020}-{uuid.uuid4().hex[:8]}"
            path, note = self._folder / f"{name}.journal", self._folder / f"{name}.json"
            try:
                note.write_text(json.dumps(self._note, indent=1) + "\n", encoding="utf-8")
                note.replace(self._folder / _NOTE)
                file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
            except FileNotFoundError:  # the folder was pruned that instant
                continue
            with suppress(OSError):  # where there are no locks, every file seems to be written, and none is ever cut
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


def key(request: Request, decoding: str, image: str, repeat: int) -> bytes:
    """The key of an answer: image and prompt, how it is written, and which of several runs of the same it belongs to.

    Args:
        request: whose `image_id` is only a name, and does not count.
        decoding: digest of the settings.
        image: digest of the image's bytes.
        repeat: 0 but for a run that asks anew what another has asked.
    """
    asked = vars(request) | {"image_id": image, "decoding": decoding, "repeat": repeat}
    if not request.sample:  # as before there were samples
        del asked["sample"]
    return blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=_KEY).digest()


class Journaled:
    """An engine that is asked only what nobody asked before."""

    def __init__(self, engine: Engine, journal: Journal, images: Mapping[str, str], repeat: int = 0) -> None:
        """Wrap an engine.

        Args:
            engine: who answers; not touched where everything is answered.
            journal: of the engine's identity.
            images: digest of each image.
            repeat: see `key`.
        """
        self._engine, self._journal, self._images, self._repeat = engine, journal, images, repeat
        self._origins: set[str] = set()

    @property
    def digest(self) -> str:
        """The engine's."""
        return self._engine.digest

    @property
    def facts(self) -> Mapping[str, Any]:
        """The engine's, and the models that an endpoint said have answered, now or before."""
        return {**self._engine.facts, **({"answered_by": sorted(self._origins)} if self._origins else {})}

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        """Yield what is answered already, then what the engine says to the rest; equal requests are asked once."""
        if self._repeat and decoding.temperature:  # what is drawn is drawn anew
            decoding = replace(decoding, seed=int(digest_text(str(decoding.seed), str(self._repeat))[:7], 16))
        drawn = () if decoding.temperature else ("temperature", "top_p", "seed")
        said = {name: value for name, value in asdict(decoding).items() if name not in drawn}
        settings = digest_text(json.dumps(said, sort_keys=True))
        places: dict[bytes, list[int]] = {}
        for at, request in enumerate(requests):
            places.setdefault(key(request, settings, self._images[request.image_id], self._repeat), []).append(at)
        self._journal.refresh()
        known = self._journal.find(list(places))
        if known:
            print(f"journal: {len(known):,} of {len(places):,} requests are answered there", flush=True)
        self._origins |= {response.origin for response in known.values() if response.origin is not None}
        for found, response in known.items():
            yield from ((at, response) for at in places[found])
        rest = [new for new in places if new not in known]
        if not rest:
            return
        try:
            for i, response in self._engine.generate([requests[places[new][0]] for new in rest], decoding):
                if response.error is None:
                    self._journal.append(rest[i], response)
                if response.origin is not None:
                    self._origins.add(response.origin)
                yield from ((at, response) for at in places[rest[i]])
        finally:
            self._journal.sync()


class Lazy:
    """An engine that is made when first asked, so that a job whose answers are all there loads no model."""

    def __init__(self, digest: str, make: Callable[[], Engine]) -> None:
        """Wrap.

        Args:
            digest: that the engine will have.
            make: it.
        """
        self.digest, self._make = digest, make
        self._engine: Engine | None = None

    @property
    def facts(self) -> Mapping[str, Any]:
        """The engine's; none of one that was not needed."""
        return {} if self._engine is None else self._engine.facts

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        """See `Engine.generate`."""
        if self._engine is None:
            self._engine = self._make()
            assert self._engine.digest == self.digest, "answers would be kept under the name of other weights"
        yield from self._engine.generate(requests, decoding)


@dataclass(frozen=True)
class Kept:
    """What a folder of the journal holds. `answers` are distinct; `note` is the identity and what it is called."""

    folder: Path
    note: Mapping[str, Any]
    files: int
    answers: int
    bytes: int

    @classmethod
    def of(cls, folder: Path) -> "Kept":
        """Count a folder's whole frames."""
        files, keys = sorted(folder.glob("*.journal")), array("Q")
        for path in files:
            with path.open("rb") as file:
                _scan(file.fileno(), 0, lambda key, *_: keys.append(int.from_bytes(key, "little")))
        note = folder / _NOTE
        said = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
        return cls(folder, said, len(files), len(np.unique(keys)), sum(path.stat().st_size for path in files))


def kept(root: Path) -> list[Kept]:
    """What each folder of the journal holds."""
    return [Kept.of(folder) for folder in sorted(root.glob("*")) if folder.is_dir()]


def prune(root: Path, checkpoints: Collection[str], wanted: Iterable[Mapping[str, Any]]) -> list[Kept]:
    """Delete the answers of checkpoints' identities that are not wanted, but for those that are being written; what was deleted.

    Those of other checkpoints, and of other engines than transformers, are spared: they may have been paid for.
    """
    spared, gone = {folder_of(root, identity) for identity in wanted}, []
    for there in kept(root):
        called = str(there.note.get("called"))
        of_ours = any(called == name or called.startswith(f"{name} + ") for name in checkpoints)
        if there.folder in spared or there.note.get("engine") != "transformers" or not of_ours:
            continue
        with ExitStack() as held:
            if all(held.enter_context(_unwritten(path)) is not None for path in there.folder.glob("*.journal")):
                shutil.rmtree(there.folder)
                gone.append(there)
    return gone


def statistics(root: Path, predictions: Path) -> str:
    """A table for readers: answers and bytes of each identity, and how many rows the present predictions of its weights have."""
    import pyarrow.parquet as pq

    rows: Counter[str] = Counter()
    for path in predictions.rglob("*.parquet"):
        rows[facts(path).get("weights", "")] += pq.read_metadata(path).num_rows
    lines = [
        [
            one.note.get("called", "?"),
            f"{one.note.get('engine', '?')} {one.note.get('version', '?')}",
            one.folder.name,
            one.files,
            one.answers,
            rows[one.note.get("weights", "?")],
            one.bytes,
        ]
        for one in kept(root)
    ]
    total = ["total", "", "", *(sum(line[i] for line in lines) for i in range(3, 7))]
    header = ["model and adapter", "engine", "folder", "files", "answers", "rows now predicted", "bytes"]
    return str(layout([*lines, total], header, tablefmt="github", intfmt=","))
