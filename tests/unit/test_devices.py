"""Leases with pretended devices and real processes."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vltaxon import devices
from vltaxon.errors import UserError

HOLD = """
import os, sys
from vltaxon.devices import lease
with lease(int(sys.argv[1])):
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    sys.stdin.readline()
"""
NOBODY = f"import os, vltaxon.devices; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n{HOLD}"
Job = subprocess.Popen[str]
Start = Callable[..., Job]


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Three pretended devices, and a folder for their locks."""
    monkeypatch.setenv("VLTAXON_DEVICES", "0,1,2")
    monkeypatch.setenv("VLTAXON_LEASES", str(tmp_path / "leases"))
    for name in ("CUDA_VISIBLE_DEVICES", *devices._ALLOCATION):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "leases"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a job that holds devices until it is told to end, or killed with the test."""
    jobs: list[Job] = []

    def started(count: int, script: str = HOLD, **environment: str) -> Job:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command, shown = [sys.executable, "-c", script, str(count)], os.environ | environment
        jobs.append(subprocess.Popen(command, text=True, env=shown, **pipes))
        return jobs[-1]

    yield started
    for job in jobs:
        job.kill()
        job.wait()
        for pipe in (job.stdin, job.stdout, job.stderr):
            assert pipe is not None
            pipe.close()


def held(job: Job) -> set[str]:
    """What a job holds, once it does."""
    assert job.stdout is not None
    return set(job.stdout.readline().strip().split(","))


def said(job: Job) -> str:
    """The next line that a job logs; for one in the queue, that it waits."""
    assert job.stderr is not None
    return job.stderr.readline()


def end(job: Job) -> None:
    job.communicate("\n")


def test_no_device_is_leased_twice_and_a_killed_job_frees_its_own(leases: Path, start: Start) -> None:
    jobs = [start(1), start(2)]
    first, second = map(held, jobs)
    assert first | second == {"0", "1", "2"} and not first & second
    waiting = start(2)
    assert "waiting for 2 of the devices 0, 1, 2, first in line" in said(waiting)
    jobs[1].kill()
    assert held(waiting) == second
    end(waiting)
    with devices.lease(2) as mine:
        assert set(mine) == second and os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(mine)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert len(list(leases.iterdir())) < 8, "what nobody holds is swept away"


def test_jobs_are_served_as_they_came_whatever_they_want_and_a_killed_one_holds_up_nobody(
    leases: Path, start: Start
) -> None:
    holders = [start(1) for _ in range(3)]
    free = {job: held(job) for job in holders}
    line = []
    for place, count in enumerate((1, 3, 2, 1)):
        line.append(start(count))
        first = said(line[-1])
        assert (
            "first in line" if not place else f"behind {place} job"
        ) in first and "--resources gpu=3" in first
    killed, all_three, two, one = line
    killed.kill()
    assert "first in line" in said(all_three)
    end(holders[0])
    end(holders[1])
    third = free[holders[2]]
    with pytest.raises(subprocess.TimeoutExpired):
        all_three.wait(0.5)  # two devices are kept for it, though others would take them
    assert two.poll() is one.poll() is None
    end(holders[2])
    assert held(all_three) == {"0", "1", "2"} > third
    assert "behind 1 job" not in said(two), "it moved up"
    end(all_three)
    both = held(two) | held(one)
    assert both == {"0", "1", "2"}


def test_jobs_that_want_other_devices_do_not_wait(leases: Path, start: Start) -> None:
    assert held(start(1, CUDA_VISIBLE_DEVICES="0")) == {"0"}
    assert "first" in said(start(2, CUDA_VISIBLE_DEVICES="0,1"))
    assert "behind 1" in said(start(1, CUDA_VISIBLE_DEVICES="1"))
    assert held(start(1, CUDA_VISIBLE_DEVICES="2")) == {"2"}


def test_a_value_already_set_is_what_jobs_share(leases: Path, start: Start) -> None:
    """Two jobs of a Snakemake that was started with two devices, and one too many."""
    ids = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6, MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/1/0"
    for given in ("2,3", ids):
        jobs = [start(1, CUDA_VISIBLE_DEVICES=given) for _ in range(2)]
        first, second = map(held, jobs)
        assert first | second == set(given.replace(" ", "").split(",")) and first != second
        third = start(1, CUDA_VISIBLE_DEVICES=given)
        assert "first in line" in said(third)
        end(jobs[0])
        assert held(third) == first
        end(third)
        end(jobs[1])


def test_a_scheduler_s_devices_are_those_of_its_allocation(leases: Path, start: Start) -> None:
    """Each allocation may call its device 0, and each step that has devices of its own; the jobs of one
    share it.
    """
    others = [start(1, CUDA_VISIBLE_DEVICES="0"), start(1, CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="7")]
    steps = [
        start(1, CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="8", SLURM_STEP_GPUS=true) for true in ("5", "6")
    ]
    assert [held(job) for job in (*others, *steps)] == [{"0"}] * 4
    shells = {"SLURM_JOB_ID": "8", "SLURM_STEP_GPUS": "5"}  # two steps that see the same
    assert "first in line" in said(start(1, CUDA_VISIBLE_DEVICES="0", SLURM_STEP_ID="9", **shells))
    assert "first in line" in said(start(1, CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="7"))
    assert held(start(2, SLURM_JOB_ID="9")) == {"1", "2"}, (
        "a node whose devices Slurm does not hand out: those of the machine"
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "wants 4 devices, this machine has 3: 0, 1, 2"),
        ("5,6,-1,7", "wants 4 devices, CUDA_VISIBLE_DEVICES leaves it 2: 5, 6"),
    ],
)
def test_more_than_there_are_is_refused(
    leases: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, words: str
) -> None:
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    with pytest.raises(UserError, match=words), devices.lease(4):
        pass
    assert not leases.exists()


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_where_devices_are_hidden_the_cpu_is_used(
    leases: Path, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    with devices.lease(1) as mine:
        assert mine == [] and os.environ["CUDA_VISIBLE_DEVICES"] == hidden


def test_a_machine_without_devices_uses_the_cpu(leases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLTAXON_DEVICES", "")
    with devices.lease(1) as mine:
        assert mine == [] and "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_job_that_wants_none_sees_none(leases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    with devices.lease(0) as mine:
        assert mine == [] and os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3" and not leases.exists()


CHILD = """
import os, subprocess, sys, time
from vltaxon.devices import inheritable_leases, lease
with lease(3):
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    if sys.argv[1] == "1" and os.fork() == 0:
        time.sleep(60)
    elif sys.argv[1] == "2":
        child = subprocess.Popen(sleep, preexec_fn=os.setsid)
        print(child.pid, flush=True)
    elif sys.argv[1] == "3":
        with inheritable_leases() as leases:
            child = subprocess.Popen(sleep, pass_fds=leases, preexec_fn=os.setsid)
        print(child.pid, flush=True)
    print("", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("way", [1, 2, 3], ids=["forked", "started", "handed on"])
def test_of_children_only_one_that_is_handed_the_lease_keeps_it(leases: Path, start: Start, way: int) -> None:
    job = start(way, CHILD)
    assert job.stdout is not None
    child = int(job.stdout.readline() or 0) if way > 1 else _child_of(job)
    job.kill()
    try:
        after = start(1)
        if way == 3:
            while "first in line" not in (line := said(after)):
                assert "devices: 0" not in line
            with pytest.raises(subprocess.TimeoutExpired):
                after.wait(0.5)
            os.kill(child, 9)
        assert held(after) <= {"0", "1", "2"}
        assert way == 3 or Path(f"/proc/{child}/cmdline").read_text(), "it outlived its parent"
    finally:
        os.kill(child, 9) if way < 3 else None


def _child_of(job: Job) -> int:
    assert job.stdout is not None
    job.stdout.readline()
    return int(Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text())


def test_a_folder_that_is_a_link_is_refused(leases: Path, tmp_path: Path) -> None:
    """Who can write to /tmp could have our locks made, and swept, in another folder of ours."""
    leases.symlink_to(tmp_path)
    with pytest.raises(UserError, match="VLTAXON_LEASES"), devices.lease(1):
        pass


def test_a_folder_in_which_others_may_delete_locks_is_refused(leases: Path) -> None:
    leases.mkdir()
    leases.chmod(0o777)
    with pytest.raises(UserError, match=r"chmod \+t .*VLTAXON_LEASES"), devices.lease(1):
        pass
    leases.chmod(0o1777)
    with devices.lease(1) as mine:
        assert mine == ["0"]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [pipe, link, folder])
@pytest.mark.parametrize("name", ["queue", "device-0"])
def test_what_cannot_be_a_lock_is_refused_at_once(
    leases: Path, start: Start, name: str, make: Callable[[Path], None]
) -> None:
    with devices.lease(1):
        pass
    (leases / name).unlink(missing_ok=True)
    make(leases / name)
    job = start(1)
    said = job.communicate(timeout=20)[1]
    assert job.returncode and f"{leases / name}: is no lock of vltaxon: user {os.getuid()} made it" in said
    assert "let VLTAXON_LEASES name another folder" in said


@pytest.mark.parametrize("make", [pipe, link, folder])
def test_what_cannot_be_a_ticket_holds_up_nobody(
    leases: Path, start: Start, make: Callable[[Path], None]
) -> None:
    with devices.lease(1):
        pass
    make(leases / "ticket-1")
    (leases / f"ticket-{'9' * 240}").write_text("device-0")
    (leases / "ticket-2").write_bytes(b"\xff\0device-0")
    first = start(3)
    assert held(first) == {"0", "1", "2"}
    assert "first in line" in said(start(1))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_files_of_others_that_nobody_else_may_read(monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    """As tickets they hold up nobody; in the place of a lock they are said."""
    root = Path(tempfile.mkdtemp())
    try:
        root.chmod(0o755)
        monkeypatch.setenv("VLTAXON_LEASES", str(root / "leases"))
        monkeypatch.setenv("VLTAXON_DEVICES", "0,1,2")
        with devices.lease(1):
            pass
        (root / "leases/ticket-1").touch(0o600)
        assert len(held(start(1, NOBODY))) == 1
        for device in (0, 1, 2):
            (root / f"leases/device-{device}").unlink(missing_ok=True)
            (root / f"leases/device-{device}").touch(0o600)
        job = start(1, NOBODY)
        said = job.communicate(timeout=20)[1]
        assert job.returncode and "is no lock of vltaxon: user 0 made it" in said
    finally:
        shutil.rmtree(root)


FRESH = f"import vltaxon.devices\nvltaxon.devices._TOUCH_SECONDS = 0.05\n{HOLD}"


def test_the_times_of_a_held_lock_stay_fresh(leases: Path, start: Start) -> None:
    """Cleaners of /tmp delete what was not touched for days; a training takes longer."""
    (device,) = held(start(1, FRESH))
    lock = leases / f"device-{device}"
    os.utime(lock, (0, 0))
    deadline = time.monotonic() + 20
    while lock.stat().st_mtime == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_users_of_a_machine_queue_together(
    monkeypatch: pytest.MonkeyPatch, leases: Path, start: Start
) -> None:
    folder = Path(tempfile.mkdtemp())
    before = os.umask(0o077)
    try:
        folder.chmod(0o755)
        monkeypatch.setenv("VLTAXON_LEASES", str(folder / "leases"))
        mine = start(2)
        assert len(held(mine)) == 2 and (folder / "leases").stat().st_mode & 0o7777 == 0o1777
        other = start(1, NOBODY)
        assert len(held(other)) == 1
        waiting = start(3, NOBODY)
        assert "first" in said(waiting)
        assert "behind 1 job" in said(last := start(1))
        end(mine)
        end(other)
        assert held(waiting) == {"0", "1", "2"}
        waiting.kill()
        assert len(held(last)) == 1
    finally:
        os.umask(before)
        shutil.rmtree(folder)
