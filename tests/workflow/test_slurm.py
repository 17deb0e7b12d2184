"""The small run through a real Slurm: what it gives, who gets which device, and what it survives."""

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.data.slurm import Slurm
from tests.workflow.conftest import Run

pytestmark = pytest.mark.slow

OPTIONS = (
    "--profile",
    "profiles/slurm",
    "--latency-wait",
    "10",
    "--slurm-init-seconds-before-status-checks",
    "2",
)
MODEL_JOB = re.compile(r"rule_(train|name_training|predict_leaf|answer_questions)")


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    try:
        cluster = Slurm()
    except FileNotFoundError as error:
        pytest.skip(f"no Slurm can be started: {error}")
    with cluster, pytest.MonkeyPatch.context() as patch:
        for name in ("SLURM_CONF", "PATH"):
            patch.setenv(name, cluster.environment[name])
        yield cluster


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("slurm"))


class Watch:
    """Which devices the processes of jobs see, looked up in /proc twice a second, and whether two jobs
    ever saw the same.
    """

    def __init__(self, slurm: Slurm) -> None:
        self.conf = f"SLURM_CONF={slurm.folder / 'slurm.conf'}".encode()
        self.at_once: list[dict[str, str]] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self.ended.wait(0.5):
            seen: dict[str, str] = {}
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    environment = (process / "environ").read_bytes().split(b"\0")
                    script = b"snakemake/scripts/" in (process / "cmdline").read_bytes()
                except OSError:
                    continue  # it has ended
                if script and self.conf in environment:
                    values = dict(entry.decode().partition("=")[::2] for entry in environment)
                    if "CUDA_VISIBLE_DEVICES" in values:
                        seen[values["SLURM_JOB_ID"]] = values["CUDA_VISIBLE_DEVICES"]
            self.at_once.append(seen)

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


def waited(for_what: Callable[[], object], process: subprocess.Popen[str], seconds: float = 300) -> None:
    """Wait until something holds, while Snakemake runs."""
    deadline = time.monotonic() + seconds
    while not for_what():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)


def jobs(slurm: Slurm, state: str) -> dict[str, str]:
    """Jobs in a state: what they are by id."""
    lines = slurm.tell("squeue", "--noheader", f"--states={state}", "--format=%i %k").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def running(slurm: Slurm) -> list[str]:
    """Ids of running jobs that have a model."""
    return [job for job, what in jobs(slurm, "RUNNING").items() if MODEL_JOB.match(what)]


def same(one: Run, other: Run, *patterns: str) -> None:
    """That two runs have the same tables and weights under these patterns of results."""
    tops = [(pattern, top) for pattern in patterns for top in (other.folder / "results").glob(pattern)]
    files = [path for _, top in tops for path in ([top] if top.is_file() else top.rglob("*"))]
    files = [
        path.relative_to(other.folder)
        for path in files
        if path.suffix in (".parquet", ".safetensors", ".csv")
    ]
    assert {pattern for pattern, _ in tops} == set(patterns) and files
    for name in files:
        if name.suffix != ".parquet":
            assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name
            continue
        tables = [pq.read_table(run.folder / name) for run in (one, other)]
        first, second = (
            table.drop(["seconds"]) if "seconds" in table.column_names else table for table in tables
        )
        assert first.equals(second), name


def test_jobs_keep_to_their_devices_and_a_cancelled_one_is_told_and_done_by_the_next_run(
    finished: Run, slurm: Slurm, run: Run
) -> None:
    with Watch(slurm) as watch:
        process = run.start(*OPTIONS, "--retries", "0", "sweep")
        waited(lambda: len(running(slurm)) == slurm.gpus, process)
        cancelled = running(slurm)[-1]
        slurm.tell("scancel", cancelled)
        said = process.communicate(timeout=600)[0]
    assert process.returncode != 0
    error = said[said.index("Error in rule answer_questions:") :]
    assert f"SLURM-job '{cancelled}' failed, SLURM status is: 'CANCELLED'" in error, said
    assert re.search(r"results/logs/answer_questions/asked\S+\.log", error), "which log to look into"
    assert len(list(run.folder.glob("results/predictions/asked*/*/random/0.parquet"))) == 7, (
        "the others went on"
    )
    at_once = [list(seen.values()) for seen in watch.at_once]
    assert all(len(set(devices)) == len(devices) for devices in at_once), "two jobs on a device"
    assert {"0", "1", "2", "3"} in map(set, at_once)
    for where in (run, finished):
        status, said = where.snakemake(*(OPTIONS if where is run else ("--cores", "2")), "sweep")
        assert status == 0, said
    same(finished, run, "predictions/asked.v*", "metrics/sweep.parquet", "tables/sweep.csv")


def test_a_run_survives_what_befalls_a_cluster_and_gives_the_same(
    finished: Run, slurm: Slurm, run: Run
) -> None:
    node = ("scontrol", "update", f"nodename={os.uname().nodename.split('.')[0]}")
    process = run.start(*OPTIONS)
    waited(lambda: running(slurm), process)
    slurm.tell("scancel", running(slurm)[0])
    waited(lambda: running(slurm), process)
    going_on = running(slurm)
    slurm.tell(*node, "state=drain", "reason=test")  # running jobs go on, no other starts
    waited(lambda: jobs(slurm, "PENDING"), process)
    time.sleep(5)
    assert set(going_on) <= {*running(slurm), *jobs(slurm, "COMPLETED")} and jobs(slurm, "PENDING")
    slurm.tell(*node, "state=resume")
    waited(lambda: running(slurm), process)
    slurm.stop("slurmctld")
    time.sleep(10)
    slurm.start("slurmctld")
    waited(lambda: running(slurm), process)
    lost = running(slurm)
    slurm.lose_node()
    waited(lambda: slurm.tell("sinfo", "--noheader", "--format=%T").startswith("down"), process)
    slurm.start("slurmd")
    waited(lambda: set(lost) <= {*running(slurm), *jobs(slurm, "COMPLETED")}, process)  # under its own id
    said = process.communicate(timeout=900)[0]
    assert process.returncode == 0, said
    assert said.count("Trying to restart job") == 1, "once for scancel; the rest is Slurm's to do again"
    same(
        finished,
        run,
        "data",
        "questions",
        "splits",
        "predictions",
        "adapters",
        "metrics/scores.parquet",
        "tables/main.csv",
    )
    assert run.planned("--profile", "profiles/slurm") == run.planned() == {}
