"""Devices for jobs: Snakemake counts `gpu`, but tells a local job of none (all would use the first).

A job that wants devices takes a ticket, waits until no earlier ticket is about any of the same devices, locks
a file for each that it gets, and shows itself only these. Tickets and devices are locked by flock, so the
kernel frees them when the process ends, in any way and at any moment. All jobs of a machine queue together,
whichever user's or Snakemake's they are.

What that guarantees: no device has two jobs; jobs are served in the order in which they came; and while jobs
wait, a free device is taken at once (within twice `_LOOK`) by the first of those that may use it: to work on,
or, until it has as many as it wants, to keep.
"""

import fcntl
import os
import re
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from urllib.parse import quote

from vltaxon.errors import UserError

_LOOK = 0.05  # seconds between two looks at the devices; only the first in line looks, the others sleep in the kernel
# What makes an allocation of a scheduler one: device numbers may start from 0 in each. Steps of a Slurm job
# may have devices of their own, or all see the same: their true numbers tell.
_ALLOCATION = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID")
_DEVICES = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
_held: set[int] = set()  # descriptors of this process's locks


def devices() -> list[str]:
    """Ids of this machine's devices: those of VLTAXON_DEVICES, else numbers for as many as the NVIDIA driver
    shows.

    Numbers count what is visible, as CUDA does: a container that is given the device file nvidia3 alone has
    the device 0.
    """
    if (given := os.environ.get("VLTAXON_DEVICES")) is not None:
        return [name for name in given.split(",") if name]
    return [
        str(i)
        for i, _ in enumerate(p for p in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", p.name))
    ]


def _visible() -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES lists, numbers or ids, up to the first that hides the rest; None where it
    is not set.
    """
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is None:
        return None
    names = (name.strip() for name in given.split(","))
    return list(dict.fromkeys(takewhile(lambda name: name not in ("", "-1", "NoDevFiles"), names)))


@contextmanager
def lease(count: int) -> Iterator[list[str]]:
    """Hold `count` devices for the block and set CUDA_VISIBLE_DEVICES to them; enter it before torch is
    imported.

    Where CUDA_VISIBLE_DEVICES is set already, by a user or a scheduler, the lease is of these. In an
    allocation of a scheduler it is among the jobs of that allocation alone, since others may call other
    devices by the same numbers. Where none is wanted, none is visible; where there is none, the CPU is used.
    A device that is named by number in one job and by id in another counts as two.

    A child that only forks (a data loader's worker) or only is started (a subprocess) has no part in the
    lease; for one that uses the devices itself see `handed_on`.

    Raises:
        UserError: more are wanted than there are, or the folder of the locks cannot be used.
    """
    given = _visible()
    known = devices() if given is None else given
    if count > len(known) > 0:
        has = "this machine has" if given is None else "CUDA_VISIBLE_DEVICES leaves it"
        raise UserError(
            f"a job wants {count} devices, {has} {len(known)}: {', '.join(known)}. Fewer are said by `gpus` in the model's file, "
            "or by `--set-resources RULE:gpu=N`"
        )
    with ExitStack() as held:
        if count and not known:
            _say(
                "none is found (/dev/nvidia0, ...), so none is leased; where there are some, VLTAXON_DEVICES=0,1 says so"
            )
        mine = _leased(known, count, held) if count and known else []
        if mine or not count:
            held.callback(_show, os.environ.get("CUDA_VISIBLE_DEVICES"))
            _show(",".join(mine))
        yield mine


@contextmanager
def handed_on() -> Iterator[tuple[int, ...]]:
    """Descriptors for `subprocess.Popen(pass_fds=...)` of a child that uses the devices itself, as a server
    of models does.

    They stay leased until this child has ended, too: should the job be killed, nobody gets a device whose
    memory is not free yet.
    """
    copies = tuple(map(os.dup, _held))
    try:
        yield copies
    finally:
        for copy in copies:
            os.close(copy)


def _show(names: str | None) -> None:
    if names is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = names


def _leased(known: list[str], count: int, held: ExitStack) -> list[str]:
    """Wait for `count` of the devices, and let `held` free them."""
    started, folder = time.monotonic(), _folder()
    allocation = [
        os.environ[name]
        for name in _ALLOCATION
        if name in os.environ and "CUDA_VISIBLE_DEVICES" in os.environ
    ]
    if allocation:
        allocation += next(([os.environ[name]] for name in _DEVICES if name in os.environ), [])
    files = {name: f"device-{quote('.'.join([*allocation, name]), safe='')}" for name in known}
    said = f"waiting for {count} of the devices {', '.join(known)}"
    advice = f"With `snakemake --resources gpu={len(known)}` jobs wait there, and keep no cores from others"
    with ExitStack() as waiting:
        number = _ticket(folder, set(files.values()), waiting)
        while before := _before(folder, number, set(files.values())):
            _say(f"{said}, behind {len(before)} job{'s' * (len(before) > 1)} that came earlier. {advice}")
            _until_gone(before[-1])
        mine = _free_ones(folder, files, count, [], held)
        if len(mine) < count:
            _say(f"{said}, first in line. {advice}")
        while len(mine) < count:
            time.sleep(_LOOK)
            mine = _free_ones(folder, files, count, mine, held)
    _say(f"{', '.join(mine)}, after {time.monotonic() - started:.1f} s")
    return mine


def _free_ones(
    folder: Path, files: Mapping[str, str], count: int, mine: list[str], held: ExitStack
) -> list[str]:
    """The devices that we have, and more that are free now until they are `count`, in their order."""
    for name, file in files.items():
        if len(mine) < count and name not in mine and _lock(folder / file, held, wait=False):
            mine = [*mine, name]
    return [name for name in files if name in mine]


def _say(what: str) -> None:
    print(f"devices: {what}", file=sys.stderr, flush=True)


# -- the queue -----------------------------------------------------------------------------------------------------------------


def _folder() -> Path:
    """Where locks lie: one folder for all users of the machine, who may read each other's files, and delete
    only their own.

    To lock a file it is enough to read it. A user can stop others by locking everything, as by filling the
    devices.

    Raises:
        UserError: it is no folder that this user may write to.
    """
    folder = Path(os.environ.get("VLTAXON_LEASES", "/tmp/vltaxon-devices"))
    with suppress(FileExistsError):
        folder.mkdir(parents=True)
        folder.chmod(0o1777)
    if not stat.S_ISDIR(folder.lstat().st_mode) or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise UserError(
            f"{folder}: is no folder that this user may write to, so devices cannot be leased; let VLTAXON_LEASES name one that "
            "all users of these devices may write to"
        )
    return folder


def _ticket(folder: Path, wanted: set[str], held: ExitStack) -> int:
    """Join the end of the queue; what nobody holds any more is swept away on the occasion."""
    with ExitStack() as alone:
        _lock(folder / "queue", alone)
        for path in folder.iterdir():
            if re.match("ticket-|device-", path.name) and path.lstat().st_uid == os.getuid():
                _sweep(path)
        number = max(_tickets(folder), default=0) + 1
        _lock(folder / f"ticket-{number}", held)
        (folder / f"ticket-{number}").write_text("\n".join(wanted), encoding="utf-8")
    return number


def _tickets(folder: Path) -> dict[int, Path]:
    return {int(path.name[7:]): path for path in folder.iterdir() if re.fullmatch(r"ticket-\d+", path.name)}


def _before(folder: Path, number: int, wanted: set[str]) -> list[Path]:
    """Earlier tickets of jobs that live and may take one of the same devices, in order."""
    earlier = [path for other, path in sorted(_tickets(folder).items()) if other < number]
    return [path for path in earlier if not _until_gone(path, wait=False) and wanted & _wanted(path)]


def _wanted(path: Path) -> set[str]:
    with suppress(FileNotFoundError):
        return set(path.read_text(encoding="utf-8").splitlines())
    return set()


def _until_gone(ticket: Path, wait: bool = True) -> bool:
    """Whether its owner has left the queue, or this life; waits for it where asked to."""
    try:
        file = os.open(ticket, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(
            file, fcntl.LOCK_SH | (0 if wait else fcntl.LOCK_NB)
        )  # shared: those who look do not see each other
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def _sweep(path: Path) -> None:
    """Delete a file that nobody has locked."""
    with ExitStack() as held:
        if _lock(path, held, wait=False):
            path.unlink(missing_ok=True)


# -- locks ---------------------------------------------------------------------------------------------------------------------


def _lock(path: Path, held: ExitStack, wait: bool = True) -> bool:
    """Lock a file, made where it is not there, until `held` ends; whether it was free, where not waited
    for.
    """
    while True:
        file = _open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.samestat(os.fstat(file), path.stat()):
                _held.add(file)
                held.callback(_free, file)
                return True
        except BlockingIOError:
            os.close(file)
            return False
        except FileNotFoundError:
            pass
        os.close(file)  # it was swept away before we had it


def _open(path: Path) -> int:
    """A descriptor of a file that is there, or that is made for all to read. Python closes it in what the
    process executes.
    """
    while True:
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with suppress(FileExistsError):
            file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.fchmod(file, 0o644)
            return file


def _free(file: int) -> None:
    if file in _held:  # not in a forked child, which has let go of it
        _held.remove(file)
        os.close(file)


def _let_go() -> None:
    """In a forked child: a lock is held as long as any copy of its descriptor is open."""
    for file in _held:
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
