"""The file of a writer: frames, one an answer, appended by the one job that holds its lock.

    marker (4 bytes, not in UTF-8) | length | CRC-32 of the rest | key (16 bytes) | the answer as JSON

Readers take whole frames only. What is torn or damaged is said and skipped, and cut where it is the end of a
file that nobody writes any more; its requests are simply asked again.
"""

import fcntl
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from vltaxon.inference.engine import Response
from vltaxon.inference.journal import keys
from vltaxon.provenance import writable

MARKER = b"\xf5vtj"
HEAD = struct.Struct("<4sII")
LIMIT = 4 << 20  # bytes of an answer; a longer one is no text that was asked for, and is not kept
BLOCK = 16 << 20  # bytes read at once: some of the longest frames

_FIELDS = {field.name for field in fields(Response)}


def pack(key: bytes, response: Response) -> bytes:
    """Return the frame of an answer.

    Args:
        key: of the request.
        response: the answer.
    """
    body = key + json.dumps(vars(response), separators=(",", ":")).encode()
    return HEAD.pack(MARKER, len(body), zlib.crc32(body)) + body


def unpack(frame: bytes) -> Response:
    """Return the answer of a whole frame; journals of before may hold texts that no file can hold."""
    said: dict[str, Any] = json.loads(frame[HEAD.size + keys.BYTES :])
    if b"\\ud" in frame:
        said = writable(said)
    known: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in said.items() if k in _FIELDS
    }
    return Response(**known)


def end_of(block: bytes, at: int) -> int | None:
    """Return where a frame ends; 0 where there is none, None where the block is too short to tell.

    Args:
        block: bytes of a file.
        at: where the frame begins.
    """
    if len(block) - at < HEAD.size:
        return None
    marker, length, crc = HEAD.unpack_from(block, at)
    if marker != MARKER or not keys.BYTES < length <= keys.BYTES + LIMIT:
        return 0
    end = at + HEAD.size + length
    if end > len(block):
        return None
    return end if zlib.crc32(block[at + HEAD.size : end]) == crc else 0


def scan(
    file: int, start: int, found: Callable[[bytes, int, int], None]
) -> tuple[int, list[tuple[int, int]]]:
    """Read a file frame by frame, and step over what is damaged.

    Args:
        file: descriptor.
        start: byte to begin at.
        found: is given the beginning of the key, the place and the length of every whole frame.

    Returns:
        Where the last whole frame ends, and the (begin, end) of damage between frames; what follows the last
        is for the caller.
    """
    at, bad, lost = start, -1, []
    while True:
        block = os.pread(file, BLOCK, at)
        last, here = len(block) < BLOCK, 0
        while here < len(block):
            end = end_of(block, here)
            if end:
                if bad >= 0:
                    lost.append((bad, at + here))
                    bad = -1
                found(block[here + HEAD.size : here + HEAD.size + 8], at + here, end - here)
                here = end
                continue
            if end is None and not last:
                break
            bad = bad if bad >= 0 else at + here
            here = block.find(MARKER, here + 1)
            if here < 0:  # the block may end within a marker
                here = len(block) if last else len(block) - len(MARKER) + 1
                break
        if last:
            return (bad if bad >= 0 else at + here), lost
        at += here


@contextmanager
def unwritten(path: Path) -> Iterator[int | None]:
    """Yield the file, locked, if nobody writes it; None where somebody does, or where we may not."""
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


def cut(file: int, path: Path, end: int) -> None:
    """Drop what follows the last whole frame.

    Args:
        file: descriptor, locked.
        path: to be named.
        end: of the last whole frame.
    """
    if size := os.fstat(file).st_size - end:
        os.ftruncate(file, end)
        print(
            f"journal: {path}: its last {size} bytes are no whole answer and were cut; what is lost is asked "
            "again",
            flush=True,
        )
