"""Raw files with a checksum: downloaded, or found on this machine; verified before anything reads them."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from vltaxon.config.base import RawFile
from vltaxon.data.transfer import Patience, Transfer, remaining
from vltaxon.data.verified import record_of, stamp_of
from vltaxon.errors import UserError
from vltaxon.provenance import atomic
from vltaxon.tasks.data import DownloadTask

_BLOCK = 1 << 20
_UNPACKED = 1.1  # size of a tar over that of its tar.gz: JPEG hardly shrinks


def download(task: DownloadTask, patience: Patience | None = None) -> None:
    """Put a verified raw file at `target`: download it, or link to the local file of `source.path`.

    What it takes is printed before it starts: address, size, licence, disk. `state`, the folder for what
    survives a killed download, is to lie on the disk of `target`.

    Args:
        task: the file, and where it is to be.
        patience: with a slow or failing server.

    Raises:
        UserError: no such file, no access, a disk too small, a server that fails for good, a file of another
            checksum.
    """
    target, state, source = task.target, task.state, task.file.source
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.path is not None:
        _link(task, source.path)
    elif source.url is not None:
        state.mkdir(parents=True, exist_ok=True)
        if os.stat(state).st_dev != os.stat(target.parent).st_dev:
            raise UserError(
                f"{target.parent} and {state} lie on different disks, so that a finished download cannot be "
                "renamed; put both on one, or the whole of results/"
            )
        with _alone(state / f"{target.name}.lock"):
            _fetch(task, patience)


def _fetch(task: DownloadTask, patience: Patience | None) -> None:
    """Download a file to the end, verify it, and put it in its place."""
    file, target, state = task.file, task.target, task.state
    url = str(file.source)
    aside = state / f"{target.name}.wrong"
    aside.unlink(missing_ok=True)
    transfer = Transfer(file.source, state / f"{target.name}.part", file.checksum, file.bytes, patience)

    def accept(size: int | None, have: int) -> None:
        others = sum(remaining(note) for note in state.glob("*.json") if note != transfer.note)
        wanted = {"this file": (state, (size or have) - have), "other downloads": (state, others)}
        _announce(file, url, size, task.licence)
        _demand_room(wanted, size, task.unpacked)

    transfer.fetch(accept)
    if wrong := _mismatch(transfer.part, file):
        os.replace(transfer.part, aside)
        raise UserError(
            f"{url}: sent a file that is not the one the data set names: {wrong}. It is put aside as {aside} "
            "until the next run, which downloads anew; if that fails, too, name a mirror in source.url, or "
            "mend the checksum if that is wrong"
        )
    with open(transfer.part, "rb") as whole:
        os.fsync(whole.fileno())
    os.replace(transfer.part, target)
    transfer.note.unlink()
    folder = os.open(target.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Two writers would spoil a partial file: a job of a killed run may still be at it."""
    with open(lock, "w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{lock}: another process is downloading this file; wait for it, or end it"
            ) from error
        yield


def _link(task: DownloadTask, source: Path) -> None:
    """Verify a local file and link to it: no copy, and no second look until it changes."""
    file, target = task.file, task.target
    if not source.is_file():
        raise UserError(
            f"{source}: no such file; source.path of {file.name} names it: put it there, or give a source.url"
        )
    stamp, size = stamp_of(source), source.stat().st_size
    _announce(file, str(source.absolute()), size, task.licence)
    _demand_room({}, size, task.unpacked)
    if wrong := _mismatch(source, file):
        raise UserError(f"{source}: not the file that the data set names: {wrong}")
    if stamp_of(source) != stamp:
        raise UserError(
            f"{source}: was written to while its checksum was taken; run again when it is complete"
        )
    with atomic(record_of(target)) as part:
        part.write_text(stamp)
    with atomic(target) as part:
        part.unlink(missing_ok=True)  # left by a killed job
        part.symlink_to(source.absolute())


def _announce(file: RawFile, where: str, size: int | None, licence: str) -> None:
    said = "of unknown size" if size is None else f"{size:,} bytes ({_gb(size)})"
    print(f"{file.name}: {said}, from {where}\nlicence: {licence}", flush=True)


def _demand_room(needs: dict[str, tuple[Path, int]], size: int | None, unpacked: Path | None) -> None:
    """Say what each disk must hold and has free.

    Args:
        needs: by what they are for, folder and bytes.
        size: of the raw file, None where unknown.
        unpacked: folder that the tar will lie in, if any.

    Raises:
        UserError: a disk is too small.
    """
    if unpacked is not None and size is not None:
        unpacked.mkdir(parents=True, exist_ok=True)
        needs = needs | {"the unpacked tar, about": (unpacked, int(size * _UNPACKED))}
    disks: dict[int, list[str]] = {}
    for what, (folder, count) in needs.items():
        if count:
            disks.setdefault(os.stat(folder).st_dev, []).append(what)
    for parts in disks.values():
        folder = needs[parts[0]][0]
        free, wanted = shutil.disk_usage(folder).free, sum(needs[what][1] for what in parts)
        listed = ", ".join(f"{what} {_gb(needs[what][1])}" for what in parts)
        said = f"disk of {folder}: {_gb(wanted)} needed ({listed}), {_gb(free)} free"
        print(said, flush=True)
        if wanted > free:
            raise UserError(f"{said}: too small; free {_gb(wanted - free)}, or put results/ on a larger disk")


def _mismatch(path: Path, file: RawFile) -> str:
    """Return what is wrong with a file, in words; empty if its size and its checksums are right.

    It is read once, from the disk.
    """
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        return f"it has {size:,} bytes, expected are {file.bytes:,}"
    expected = {name: value for name, value in (("md5", file.md5), ("sha256", file.sha256)) if value}
    sums = {name: hashlib.new(name, usedforsecurity=False) for name in expected}
    with open(path, "rb") as source:
        head = source.read(256).lstrip().lower()
        source.seek(0)
        with tqdm(total=size, unit="B", unit_scale=True, desc=f"verify {file.name}", mininterval=5) as bar:
            while block := source.read(_BLOCK):
                for one in sums.values():
                    one.update(block)
                bar.update(len(block))
    got = {name: one.hexdigest() for name, one in sums.items()}
    wrong = [
        f"its {name} is {got[name]}, expected is {value}"
        for name, value in expected.items()
        if got[name] != value
    ]
    page = "; it is a web page" if head.startswith((b"<!doctype html", b"<html")) else ""
    return f"{', '.join(wrong)}; it has {size:,} bytes{page}" if wrong else ""


def _gb(size: int) -> str:
    return str(tqdm.format_sizeof(size, "B"))
