"""Devices for jobs: Snakemake counts `gpu`, but does not tell a local job which device is its own.

Without this module every job would use the first device. A job that wants devices takes a ticket, waits until
no earlier ticket is about any of the same devices, locks a file for each device that it gets, and makes only
these visible. Tickets and devices are locked by flock, so the kernel frees them whenever and however the
process ends. All jobs of a machine queue together, whichever user or Snakemake started them.

This guarantees that no device has two jobs, that jobs are served in the order in which they came, and that,
while jobs wait, a free device is taken at once (within twice `_POLL_SECONDS`) by the first job that may use
it: to work on, or to keep until the job has as many as it wants.
"""

import fcntl
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from urllib.parse import quote

from vltaxon.errors import UserError

# Time between two looks at the devices. Only the first job in line looks; the others sleep in the kernel.
_POLL_SECONDS = 0.05
# Time between two looks of a holder at its locks, that no cleaner of old files takes them for forgotten.
_TOUCH_SECONDS = 3600.0
# Variables that name the allocation of a scheduler: device numbers may start from 0 in each. Steps of a Slurm
# job may have devices of their own, or all see the same; the second list has their true numbers.
_ALLOCATION = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID")
_TRUE_NUMBERS = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
_LONGEST = 1 << 16  # bytes of a ticket that are read
_locked: set[int] = set()  # file descriptors of this process's locks


def known_devices() -> list[str]:
    """Return the ids of this machine's devices.

    They are those of VLTAXON_DEVICES or, where that is not set, one number for each device that the NVIDIA
    driver shows. Numbers count what is visible, as CUDA does: a container that is given the device file
    nvidia3 alone has the device 0.
    """
    if (listed := os.environ.get("VLTAXON_DEVICES")) is not None:
        return [name for name in listed.split(",") if name]
    files = [path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    return [str(number) for number in range(len(files))]


def _visible_devices() -> list[str] | None:
    """Return the devices of CUDA_VISIBLE_DEVICES, None where it is not set.

    They are numbers or ids, up to the first entry that hides the rest.
    """
    if (listed := os.environ.get("CUDA_VISIBLE_DEVICES")) is None:
        return None
    names = (name.strip() for name in listed.split(","))
    return list(dict.fromkeys(takewhile(lambda name: name not in ("", "-1", "NoDevFiles"), names)))


@contextmanager
def lease(count: int) -> Iterator[list[str]]:
    """Hold `count` devices for the block, and set CUDA_VISIBLE_DEVICES to them.

    Enter it before torch is imported. Where CUDA_VISIBLE_DEVICES is set already, by a user or a scheduler,
    the devices are taken from these. In an allocation of a scheduler only the jobs of that allocation compete
    for them, since other allocations may use the same numbers for other devices. With a count of 0 no device
    is visible; on a machine without devices the CPU is used. A device that one job names by number and
    another by id counts as two.

    A child that only forks (a data loader's worker) or is only started (a subprocess) does not share the
    lease; for one that uses the devices itself see `inheritable_leases`.

    Raises:
        UserError: more are wanted than there are, or the folder of the locks cannot be used.
    """
    visible = _visible_devices()
    candidates = known_devices() if visible is None else visible
    if count > len(candidates) > 0:
        has = "this machine has" if visible is None else "CUDA_VISIBLE_DEVICES leaves it"
        raise UserError(
            f"a job wants {count} devices, {has} {len(candidates)}: {', '.join(candidates)}. "
            "Fewer are said by `gpus` in the model's file, or by `--set-resources RULE:gpu=N`"
        )
    with ExitStack() as held:
        if count and not candidates:
            _report(
                "none is found (/dev/nvidia0, ...), so none is leased; where there are some, "
                "VLTAXON_DEVICES=0,1 says so"
            )
        mine = _wait_for(candidates, count, held) if count and candidates else []
        if mine:
            held.enter_context(_touching())
        if mine or not count:
            held.callback(_set_visible, os.environ.get("CUDA_VISIBLE_DEVICES"))
            _set_visible(",".join(mine))
        yield mine


@contextmanager
def inheritable_leases() -> Iterator[tuple[int, ...]]:
    """Yield file descriptors for `subprocess.Popen(pass_fds=...)` of a child that uses the devices itself.

    A server of models is such a child. The devices stay leased until it has ended, too: should the job be
    killed, nobody gets a device whose memory is not free yet.
    """
    copies = tuple(map(os.dup, _locked))
    try:
        yield copies
    finally:
        for copy in copies:
            os.close(copy)


def _set_visible(names: str | None) -> None:
    if names is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = names


def _wait_for(candidates: list[str], count: int, held: ExitStack) -> list[str]:
    """Wait for `count` of the candidates and return them; they are freed when `held` is closed."""
    started, folder = time.monotonic(), _locks_folder()
    allocation = _allocation()
    files = {name: f"device-{quote('.'.join([*allocation, name]), safe='')}" for name in candidates}
    waiting = f"waiting for {count} of the devices {', '.join(candidates)}"
    advice = (
        f"With `snakemake --resources gpu={len(candidates)}` jobs wait there, and keep no cores from others"
    )
    with ExitStack() as queued:
        number = _take_ticket(folder, set(files.values()), queued)
        while earlier := _earlier_tickets(folder, number, set(files.values())):
            jobs = f"{len(earlier)} job{'s' * (len(earlier) > 1)}"
            _report(f"{waiting}, behind {jobs} that came earlier. {advice}")
            _has_left(earlier[-1], wait=True)
        mine = _take_free(folder, files, count, [], held)
        if len(mine) < count:
            _report(f"{waiting}, first in line. {advice}")
        while len(mine) < count:
            time.sleep(_POLL_SECONDS)
            mine = _take_free(folder, files, count, mine, held)
    _report(f"{', '.join(mine)}, after {time.monotonic() - started:.1f} s")
    return mine


def _allocation() -> list[str]:
    """Return what names a scheduler's allocation and its devices; empty outside of one."""
    if "CUDA_VISIBLE_DEVICES" not in os.environ:
        return []
    ids = [os.environ[name] for name in _ALLOCATION if name in os.environ]
    true_numbers = [os.environ[name] for name in _TRUE_NUMBERS if name in os.environ]
    return ids + true_numbers[:1] if ids else []


def _take_free(
    folder: Path, files: Mapping[str, str], count: int, mine: list[str], held: ExitStack
) -> list[str]:
    """Lock devices that are free now until this job has `count`, and return all it has, in their order."""
    for name, file in files.items():
        if len(mine) < count and name not in mine and _lock(folder / file, held, wait=False):
            mine = [*mine, name]
    return [name for name in files if name in mine]


def _report(text: str) -> None:
    print(f"devices: {text}", file=sys.stderr, flush=True)


# -- the queue -------------------------------------------------------------------------------------------


def _locks_folder() -> Path:
    """Return the folder of the locks, made where it is missing.

    All users of the machine share it; they may read each other's files, and delete only their own. Reading a
    file is enough to lock it. A user can block others by locking everything, as by filling the devices.

    Raises:
        UserError: it is no folder that this user may write to, or others may delete locks in it.
    """
    folder = Path(os.environ.get("VLTAXON_LEASES", "/tmp/vltaxon-devices"))
    with suppress(FileExistsError):
        folder.mkdir(parents=True)
        folder.chmod(0o1777)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise UserError(
            f"{folder}: is no folder that this user may write to, so devices cannot be leased; let "
            "VLTAXON_LEASES name one that all users of these devices may write to"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
        raise UserError(
            f"{folder}: whoever may write to it may delete the locks of others, and two jobs would get one "
            f"device; `chmod +t {folder}`, or let VLTAXON_LEASES name another folder"
        )
    return folder


def _take_ticket(folder: Path, wanted: set[str], held: ExitStack) -> int:
    """Join the end of the queue and return the ticket's number; files that nobody holds are deleted first.

    Numbers are times, so that no ticket of others leads to a number without end.
    """
    with ExitStack() as alone:
        _lock(folder / "queue", alone)
        for path in folder.iterdir():
            if re.match("ticket-|device-", path.name) and path.lstat().st_uid == os.getuid():
                with suppress(UserError):
                    _delete_unlocked(path)
        number = time.time_ns()
        while os.path.lexists(folder / f"ticket-{number}"):
            number += 1
        _lock(folder / f"ticket-{number}", held)
        (folder / f"ticket-{number}").write_text("\n".join(wanted), encoding="utf-8")
    return number


def _tickets(folder: Path) -> dict[int, Path]:
    found = {path: re.fullmatch(r"ticket-(\d{1,19})", path.name) for path in folder.iterdir()}
    return {int(match[1]): path for path, match in found.items() if match is not None}


def _earlier_tickets(folder: Path, number: int, wanted: set[str]) -> list[Path]:
    """Return, in order, the earlier tickets of jobs that still wait and may take one of the same devices."""
    earlier = [path for other, path in sorted(_tickets(folder).items()) if other < number]
    return [path for path in earlier if not _has_left(path) and wanted & _wanted_by(path)]


def _wanted_by(ticket: Path) -> set[str]:
    with suppress(OSError, UserError):
        file = _opened(ticket, os.O_RDONLY)
        try:
            return set(os.read(file, _LONGEST).decode("utf-8", "replace").splitlines())
        finally:
            os.close(file)
    return set()


def _has_left(ticket: Path, wait: bool = False) -> bool:
    """Whether the job of a ticket has left the queue or has ended; with `wait`, wait until it has.

    What is no plain file that all may read is no ticket, whoever made it.
    """
    try:
        file = _opened(ticket, os.O_RDONLY)
    except (FileNotFoundError, UserError):
        return True
    try:
        # A shared lock, so that jobs that look at a ticket at the same time do not see each other.
        fcntl.flock(file, fcntl.LOCK_SH | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def _delete_unlocked(path: Path) -> None:
    """Delete a file unless somebody has locked it."""
    with ExitStack() as held:
        if _lock(path, held, wait=False):
            path.unlink(missing_ok=True)


# -- locks -----------------------------------------------------------------------------------------------


def _lock(path: Path, held: ExitStack, wait: bool = True) -> bool:
    """Lock a file until `held` is closed, and return whether that worked.

    The file is made where it is missing. Without `wait` a file that somebody else has locked is left alone.
    """
    while True:
        file = _open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.samestat(os.fstat(file), path.lstat()):
                _locked.add(file)
                held.callback(_unlock, file)
                return True
        except BlockingIOError:
            os.close(file)
            return False
        except FileNotFoundError:
            pass
        os.close(file)  # the file was deleted before we had its lock


def _open(path: Path) -> int:
    """Return a descriptor of a file, made for all to read where it is missing.

    Python closes the descriptor in programs that the process executes.
    """
    while True:
        with suppress(FileNotFoundError):
            return _opened(path, os.O_RDONLY)
        with suppress(FileExistsError):
            file = _opened(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL)
            os.fchmod(file, 0o644)
            return file


def _opened(path: Path, flags: int) -> int:
    """Open a file of the folder, which anybody may have put there: a pipe would be waited for.

    Raises:
        UserError: it is no plain file, or not readable for all as every lock is.
    """
    try:
        file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:  # a link, or not readable for us
        raise _odd(path) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _odd(path)
    return file


def _odd(path: Path) -> UserError:
    with suppress(OSError):
        return UserError(
            f"{path}: is no lock of vltaxon: user {path.lstat().st_uid} made it, and it is no plain file "
            "that all may read. Have that user, or root, delete it, or let VLTAXON_LEASES name another "
            "folder, the same for all users of these devices"
        )
    return UserError(f"{path}: cannot be opened; let VLTAXON_LEASES name another folder")


@contextmanager
def _touching() -> Iterator[None]:
    """Keep the times of the locks fresh: cleaners of /tmp delete what is old, and a lock with it."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(_TOUCH_SECONDS):
            for file in filter(_locked.__contains__, tuple(_locked)):
                with suppress(OSError):  # one that was freed that instant
                    try:
                        os.utime(file)
                    except PermissionError:  # made by another user; its time of reading will do
                        os.pread(file, 1, 0)

    threading.Thread(target=touch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _unlock(file: int) -> None:
    if file in _locked:  # not so in a forked child, which has closed it already
        _locked.remove(file)
        os.close(file)


def _close_in_child() -> None:
    """Close the locks in a forked child: a lock is held as long as any copy of its descriptor is open."""
    for file in _locked:
        os.close(file)
    _locked.clear()


os.register_at_fork(after_in_child=_close_in_child)
