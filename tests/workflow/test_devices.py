"""Many jobs on few pretended devices: never two on one, none idle while a job waits, in the order in which
they came.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DEVICES = ("0", "1", "2", "3")

# Only leases, and tells when: the times are of one clock for all processes of a machine.
JOB = """
import json, os, sys, time
from vltaxon.devices import lease

def tell(event, **more):
    with open(os.environ["TOLD"], "a") as file:
        file.write(json.dumps({"event": event, "job": sys.argv[3], "at": time.monotonic()} | more) + "\\n")

tell("came")
with lease(int(sys.argv[1])):
    tell("got", devices=os.environ["CUDA_VISIBLE_DEVICES"].split(","))
    time.sleep(float(sys.argv[2]))
    tell("left")
"""


@dataclass(frozen=True)
class Job:
    """When a job came, got devices (None where it was killed before), and left them: at the earliest, and
    at the last.
    """

    came: float
    got: float | None
    devices: Sequence[str]
    left: float
    gone: float


def history(told: Path, killed: Mapping[str, tuple[float, float]]) -> list[Job]:
    """What became of each job. Those that were not killed were served, and ended by themselves."""
    events: dict[str, dict[str, Any]] = {}
    for line in told.read_text().splitlines():
        said = json.loads(line)
        events.setdefault(said["job"], {})[said["event"]] = said
    jobs = []
    for name, by in events.items():
        assert name in killed or by.keys() == {"came", "got", "left"}
        left, gone = (by["left"]["at"],) * 2 if "left" in by else killed[name]
        got = by.get("got", {"at": None, "devices": []})
        jobs.append(Job(by["came"]["at"], got["at"], got["devices"], left, gone))
    return jobs


def overlaps(jobs: Sequence[Job]) -> list[tuple[str, Job, Job]]:
    """Devices that a job got while another had them."""
    held = sorted(((name, job.got, job) for job in jobs for name in job.devices), key=lambda each: each[:2])
    return [(name, a, b) for (name, _, a), (other, at, b) in pairwise(held) if name == other and at < a.left]


def idle(jobs: Sequence[Job]) -> list[float]:
    """The times for which a device was free while a job waited, in seconds; of jobs of one device each."""
    changes = [(job.came, 1, 0) for job in jobs] + [
        (job.left if job.got is None else job.got, -1, 0) for job in jobs
    ]
    changes += [
        change for job in jobs if job.got is not None for change in ((job.got, 0, -1), (job.gone, 0, 1))
    ]
    spells, waiting, free, since = [], 0, len(DEVICES), None
    for at, more, freed in sorted(changes):
        waiting, free = waiting + more, free + freed
        if waiting > 0 and free > 0:
            since = at if since is None else since
        elif since is not None:
            spells.append(at - since)
            since = None
    return spells


def delays(jobs: Sequence[Job]) -> list[float]:
    """How long each lease took once the job was there, a device was free, and the one before it was
    served; in seconds.
    """
    changes = [(job.got, 0, job) for job in jobs if job.got is not None] + [
        (job.gone, 1, job) for job in jobs if job.got is not None
    ]
    took, free, since, last = [], len(DEVICES), 0.0, 0.0
    for at, freed, job in sorted(changes, key=lambda change: change[:2]):
        if freed:
            free, since = free + 1, since if free > 0 else at
        else:  # that of a killed job may be free, and taken, before we know that it is dead
            took.append(at - max(job.came, since, last) if free > 0 else 0.0)
            free, last = free - 1, at
    return took


def checked(jobs: Sequence[Job], kills: int) -> str:
    """The figures, once they are right.

    On a machine that is busy with other things a process may wait for a core longer than these jobs take, so
    the bounds on delays are wide; see `test_no_device_is_idle_while_jobs_wait` for jobs that take longer.
    """
    assert not overlaps(jobs)
    took, span = sorted(delays(jobs)), max(job.gone for job in jobs) - min(job.came for job in jobs)
    middle, late, most = (took[int(len(took) * part)] for part in (0.5, 0.95, 0.9999))
    said = (
        f"{len(took)} leases in {span:.0f} s, {kills} kills; the first in line has a free device within {middle:.3f} s (median), "
        f"{late:.3f} s (95 %), {most:.3f} s (all)"
    )
    assert middle < 1 and most < 10, said
    return said


class Storm:
    """As many processes as three Snakemakes with eight jobs each have, a new one for each that ends."""

    def __init__(
        self,
        folder: Path,
        jobs: int,
        kills: int = 0,
        wanted: Sequence[int] = (1,),
        seconds: tuple[float, float] = (0.05, 0.2),
    ) -> None:
        self.folder, self.told, self.wanted, self.chance = (
            folder,
            folder / "told.jsonl",
            wanted,
            random.Random(0),
        )
        self.jobs, self.kills, self.killed, self.seconds = (
            jobs,
            kills,
            dict[str, tuple[float, float]](),
            seconds,
        )
        self.environment = os.environ | {
            "VLTAXON_DEVICES": ",".join(DEVICES),
            "VLTAXON_LEASES": str(folder / "leases"),
        }
        self.environment |= {"TOLD": str(self.told), "PYTHONPATH": str(ROOT / "src")}
        self.environment.pop("CUDA_VISIBLE_DEVICES", None)

    def start(self, name: str) -> subprocess.Popen[bytes]:
        count, seconds = self.chance.choice(self.wanted), self.chance.uniform(*self.seconds)
        command = [sys.executable, "-c", JOB, str(count), str(seconds), name]
        return subprocess.Popen(command, env=self.environment, stderr=subprocess.DEVNULL)

    def run(self) -> list[Job]:
        """Let so many jobs run at least, and as many more as it takes to kill so many at random moments."""
        running: dict[str, subprocess.Popen[bytes]] = {}
        deadline, started = time.monotonic() + 500, 0
        while running or not started:
            assert time.monotonic() < deadline, "jobs wait for ever"
            running = {name: job for name, job in running.items() if job.poll() is None}
            while len(running) < 24 and (started < self.jobs or len(self.killed) < self.kills):
                running[str(started)] = self.start(str(started))
                started += 1
            if len(self.killed) < self.kills and running:
                name, before = self.chance.choice(list(running)), time.monotonic()
                running[name].kill()
                if running[name].wait() == -signal.SIGKILL:
                    self.killed[name] = before, time.monotonic()
            time.sleep(self.chance.uniform(0, 0.06))
        return history(self.told, self.killed)


def test_no_device_is_idle_while_jobs_wait(tmp_path: Path) -> None:
    """All of 24 jobs come before the first is done: as long as one waits, all four devices are busy nearly
    all of the time.
    """
    jobs = Storm(tmp_path, jobs=24, seconds=(1.5, 2)).run()
    assert not overlaps(jobs)
    got = sorted(job.got for job in jobs if job.got is not None)
    wasted, waited = sum(idle(jobs)), got[-1] - got[0]
    print(f"24 jobs in {waited:.1f} s of which for {wasted:.2f} s a device was idle while a job waited")
    assert wasted < waited / 3


def test_a_storm_of_jobs_of_which_some_are_killed(tmp_path: Path) -> None:
    storm = Storm(tmp_path, jobs=100, kills=20)
    print(checked(storm.run(), len(storm.killed)))
    assert len(storm.killed) == 20


@pytest.mark.slow
def test_two_hundred_kills(tmp_path: Path) -> None:
    storm = Storm(tmp_path, jobs=900, kills=200)
    print(checked(storm.run(), len(storm.killed)))
    assert len(storm.killed) == 200


@pytest.mark.slow
def test_two_hundred_kills_among_jobs_of_one_to_four_devices(tmp_path: Path) -> None:
    """No bound on idle time here: a device is kept for the first in line. All are served, and none shares
    a device.
    """
    storm = Storm(tmp_path, jobs=700, kills=200, wanted=(1, 1, 1, 2, 3, 4))
    jobs = storm.run()
    assert not overlaps(jobs) and len(storm.killed) == 200
    assert {len(job.devices) for job in jobs} == {0, 1, 2, 3, 4}
    print(f"{sum(job.got is not None for job in jobs)} leases of 1 to 4 devices, 200 kills")


SNAKEFILE = """
rule all:
    input: expand("done/{n}", n=range(8))
rule work:
    output: "done/{n}"
    log: "logs/{n}.log"
    resources: gpu=1
    retries: 3
    script: "work.py"
"""
SCRIPT = """
import json, os, time
from pathlib import Path
from vltaxon.logs import logged

def tell(event, **more):
    with open(os.environ["TOLD"], "a") as file:
        file.write(json.dumps({"event": event, "job": str(os.getpid()), "at": time.monotonic()} | more) + "\\n")

if __name__ == "__main__":
    tell("came")
    with logged(snakemake.log[0], snakemake.threads, snakemake.resources.gpu):
        tell("got", devices=os.environ["CUDA_VISIBLE_DEVICES"].split(","))
        time.sleep(0.5)
        Path(snakemake.output[0]).touch()
        tell("left")
"""


def test_three_snakemakes_with_eight_jobs_each_and_no_limit_of_their_own(tmp_path: Path) -> None:
    """Started without --resources; some jobs are killed while they hold a device, and Snakemake starts
    them again.
    """
    told, chance, killed = tmp_path / "told.jsonl", random.Random(0), dict[str, tuple[float, float]]()
    environment = os.environ | {
        "VLTAXON_DEVICES": ",".join(DEVICES),
        "VLTAXON_LEASES": str(tmp_path / "leases"),
    }
    environment |= {"TOLD": str(told), "PYTHONPATH": str(ROOT / "src")}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    folders, running = [tmp_path / name for name in "abc"], []
    for folder in folders:
        folder.mkdir()
        (folder / "Snakefile").write_text(SNAKEFILE)
        (folder / "work.py").write_text(SCRIPT)
        command = [sys.executable, "-m", "snakemake", "--cores", "8", "--quiet", "all"]
        with (folder / "said").open("w") as said:
            running.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said))
    while any(snakemake.poll() is None for snakemake in running):
        time.sleep(0.1)
        lines = [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []
        holding = [
            line["job"] for line in lines if line["event"] == "got" and time.monotonic() - line["at"] < 0.3
        ]
        if len(killed) < 4 and (alive := sorted(set(holding) - killed.keys())):
            victim, before = chance.choice(alive), time.monotonic()
            with suppress(ProcessLookupError):
                os.kill(int(victim), signal.SIGKILL)
                killed[victim] = before, time.monotonic()
    assert [snakemake.returncode for snakemake in running] == [0, 0, 0], [
        (folder / "said").read_text() for folder in folders
    ]
    jobs = history(told, killed)
    print(checked(jobs, len(killed)))
    assert sum(job.got is not None for job in jobs) == 24 + len(killed) == 28
    logs = [path.read_text() for folder in folders for path in (folder / "logs").iterdir()]
    assert len(logs) == 24 and any("behind" in log and "--resources gpu=4" in log for log in logs)
