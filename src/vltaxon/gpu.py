"""A device for each job: Snakemake counts `gpu`, but tells a local job of none (all would use the first).

A job locks one file per device and shows itself only those devices. The kernel frees a lock when its process ends, in any way.
"""

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from vltaxon.errors import UserError


def devices() -> list[str]:
    """Ids of this machine's devices: those of VLTAXON_DEVICES (for tests), else of the NVIDIA driver."""
    if (given := os.environ.get("VLTAXON_DEVICES")) is not None:
        return [name for name in given.split(",") if name]
    return sorted((p.name[6:] for p in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", p.name)), key=int)


@contextmanager
def lease(count: int) -> Iterator[list[str]]:
    """Hold `count` devices for the block and set CUDA_VISIBLE_DEVICES to them; enter it before torch is imported.

    Nothing is leased where no device is wanted or there is none (then the CPU is used), or where CUDA_VISIBLE_DEVICES is set
    already, by a user or a cluster. Waits until enough devices are free.

    Raises:
        UserError: more are wanted than the machine has.
    """
    known = devices()
    if not count or not known or "CUDA_VISIBLE_DEVICES" in os.environ:
        yield []
        return
    if count > len(known):
        raise UserError(f"a job wants {count} devices, this machine has {len(known)}: {', '.join(known)}")
    folder = Path(tempfile.gettempdir()) / f"vltaxon-devices-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    with ExitStack() as held:
        while len(mine := _free(folder, known, count, held)) < count:
            time.sleep(0.5)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
        try:
            yield mine
        finally:
            del os.environ["CUDA_VISIBLE_DEVICES"]


def _free(folder: Path, known: list[str], count: int, held: ExitStack) -> list[str]:
    """Lock `count` free devices, or none, so that two jobs never wait for each other's."""
    locks: dict[str, IO[str]] = {}
    for name in known:
        file = (folder / f"{name}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        locks[name] = file
        if len(locks) == count:
            for lock in locks.values():
                held.enter_context(lock)
            return list(locks)
    for lock in locks.values():
        lock.close()
    return []
