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

OPTIONS = ("--profile", "profiles/slurm", "--latency-wait", "10", "--slurm-init-seconds-before-status-checks", "2")
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


class Watch:
    """Which devices the processes of jobs see, looked up in /proc twice a second, and whether two jobs ever saw the same."""

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


def same(one: Path, other: Path) -> None:
    """That two results folders hold the same predictions, adapters, scores and tables."""
    tops = ("data", "questions", "splits", "predictions", "metrics", "adapters", "tables/main.csv")
    found = [path for top in tops for path in ((one / top).rglob("*") if (one / top).is_dir() else [one / top])]
    files = [path.relative_to(one) for path in found if path.suffix in (".parquet", ".safetensors", ".csv")]
    assert len(files) > 30
    for name in files:
        if name.suffix != ".parquet":
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
            continue
        tables = [pq.read_table(top / name) for top in (one, other)]
        first, second = (table.drop(["seconds"]) if "seconds" in table.column_names else table for table in tables)
        assert first.equals(second), name


def test_the_run_through_slurm_survives_what_befalls_it_and_gives_the_same(finished: Run, slurm: Slurm, tmp_path: Path) -> None:
    run, node = Run(tmp_path), os.uname().nodename.split(".")[0]
    # a job is cancelled, and there are no retries: the run ends, says which job, and the rest has gone on
    process = run.start(*OPTIONS, "--retries", "0")
    waited(lambda: running(slurm), process)
    slurm.tell("scancel", running(slurm)[0])
    said = process.communicate(timeout=600)[0]
    assert process.returncode != 0
    assert re.search(r"Error in (group|rule) \w+", said) and "SLURM status is: 'CANCELLED'" in said, said
    # started again, with retries: what a running cluster does to jobs
    with Watch(slurm) as watch:
        process = run.start(*OPTIONS)
        waited(lambda: running(slurm), process)
        slurm.tell("scancel", running(slurm)[0])
        waited(lambda: len(running(slurm)) >= 2, process)
        slurm.tell("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
        waited(lambda: "drain" in slurm.tell("sinfo", "--noheader", "--format=%T"), process)
        time.sleep(5)
        slurm.tell("scontrol", "update", f"nodename={node}", "state=resume")
        waited(lambda: len(running(slurm)) >= 2, process)
        slurm.stop("slurmctld")
        time.sleep(10)
        slurm.start("slurmctld")
        waited(lambda: len(running(slurm)) >= 2, process)
        lost = running(slurm)
        slurm.stop("slurmd")
        waited(lambda: slurm.tell("sinfo", "--noheader", "--format=%T").startswith("down"), process)
        slurm.start("slurmd")
        waited(lambda: set(lost) & set(running(slurm)), process)
        said = process.communicate(timeout=900)[0]
    assert process.returncode == 0, said
    assert "Trying to restart job" in said
    assert all(len(set(seen.values())) == len(seen) for seen in watch.at_once), "two jobs on a device"
    assert max(len(seen) for seen in watch.at_once) >= 3
    same(finished.folder / "results", run.folder / "results")
    assert run.planned(*OPTIONS) == run.planned() == {}
