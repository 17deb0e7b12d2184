"""Real processes that are killed or told to stop, started again, and must end as if nothing had been."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.data.disk import on_small_disk
from tests.unit.conftest import LETTERS, RIGHT_LETTERS, World, step, train
from vltaxon import provenance, schemas
from vltaxon.config.steps import Step
from vltaxon.engines.transformers import Vlm
from vltaxon.tasks.training import TrainTask
from vltaxon.train import trainer_state

ROOT = Path(__file__).parents[3]
SFT = step(samples=(LETTERS,), epochs=2, checkpoint_minutes=0)
ONE_LEVEL = RIGHT_LETTERS.model_copy(update={"levels": "one"})
GRPO = step("grpo", samples=(ONE_LEVEL,), epochs=2, batch_size=8, device_batch_size=4, checkpoint_minutes=0)
STEPS = {"sft": SFT, "grpo": GRPO}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A test's own training has one thread, as all jobs here: by how many a sum is shared out changes how
    it rounds.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Job:
    """A training as a process of its own, that is killed and started again."""

    folder: Path
    task: TrainTask

    @property
    def output(self) -> Path:
        return self.task.adapter.parent

    @property
    def log(self) -> Path:
        return self.folder / f"{self.output.name}.log"

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints that are sealed."""
        sealed = (path.parent.name for path in self.task.state.glob(f"checkpoint-*/{trainer_state.SEAL}"))
        return sorted(int(name.rpartition("-")[2]) for name in sealed)

    def start(self) -> "subprocess.Popen[bytes]":
        file = self.folder / f"{self.output.name}.json"
        file.write_text(self.task.model_dump_json())
        self.log.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.unit.train.door", str(file), str(self.log)]
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)

    def trains(self, process: "subprocess.Popen[bytes]", after: int, deadline: float = 240) -> bool:
        """Wait until a checkpoint beyond a step is there; False if the training is at its end first."""
        end = time.monotonic() + deadline
        while not any(number > after for number in self.steps):
            if process.poll() == 0:
                return False
            assert process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)
        return True

    def finish(self) -> Path:
        process = self.start()
        assert process.wait(400) == 0, self.log.read_text()
        return self.output


def job(world: World, vlm: Vlm, what: Step, previous: Path | None, name: str, processes: int = 1) -> Job:
    return Job(world.folder, world.task(what, vlm, name, previous, processes=processes))


def result(folder: Path) -> tuple[object, object, bytes]:
    """Steps, digest and curve of an adapter."""
    record = json.loads((folder / "record.json").read_text())
    return record["steps"], record["adapter_after"], (folder / "curve.parquet").read_bytes()


@pytest.mark.numeric
def test_a_killed_training_ends_the_same(world: World, vlm: Vlm, lettered: Path) -> None:
    expected = result(train(world, vlm, "whole", GRPO, lettered))
    hurt = job(world, vlm, GRPO, lettered, "hurt")
    process = hurt.start()
    assert hurt.trains(process, after=1)
    process.kill()
    process.wait()
    kept = hurt.steps[-1]
    assert not hurt.output.exists() and kept < int(str(expected[0]))
    newest = hurt.task.state / f"checkpoint-{kept}"  # and then the disk loses half of a file
    (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:100])
    assert result(hurt.finish()) == expected
    assert (
        f"checkpoint-{kept} is not used and deleted: optimizer.pt is not what was written"
        in hurt.log.read_text()
    )
    assert not hurt.task.state.exists()


DOOR = """
import runpy, sys
sys.argv = ["door", *sys.argv[1:]]
runpy.run_module("tests.unit.train.door", run_name="__main__")
"""


def test_a_training_that_finds_no_room_says_so_and_goes_on_when_there_is_some(
    world: World, vlm: Vlm, lettered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither torch nor what writes tensors says it in a way of the system's."""
    hurt = job(world, vlm, GRPO, lettered, "hurt")
    file = world.folder / "hurt.json"
    file.write_text(hurt.task.model_dump_json())
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
    hurt.task.state.parent.mkdir()
    status, said = on_small_disk(hurt.task.state, DOOR, str(file), str(hurt.log), size="256k")
    assert status == 1, said + hurt.log.read_text()
    words = hurt.log.read_text()
    assert f"error: {hurt.task.state}: could not be written: " in words, words
    assert f"(0.0 MB are free in {hurt.task.state}). Make room, then run the workflow again" in words
    assert not hurt.output.exists() and hurt.finish().exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
@pytest.mark.parametrize("kind", STEPS)
def test_ten_times_at_random(
    world: World, vlm: Vlm, lettered: Path, kind: str, number: signal.Signals
) -> None:
    """Ten signals at random moments of training, some while a checkpoint is written."""
    what, start = STEPS[kind].model_copy(update={"epochs": 4}), None if kind == "sft" else lettered
    expected = result(train(world, vlm, "whole", what, start))
    rng, sent, rounds, points = random.Random(f"{kind} {number}"), 0, 0, []
    while sent < 10:
        hurt = job(world, vlm, what, start, f"hurt{rounds}")
        process = hurt.start()
        while sent < 10:
            if not hurt.trains(process, after=max(hurt.steps, default=0)):
                break
            time.sleep(rng.uniform(0, 1))
            process.send_signal(number)
            if process.wait(120) == 0:  # it was past its last step
                break
            sent += 1
            points.append(max(hurt.steps, default=int(str(expected[0]))))  # none: it was past its last step
            process = hurt.start()
        assert process.wait(400) == 0, hurt.log.read_text()
        assert result(hurt.output) == expected
        rounds += 1
    print(
        f"{kind} {number.name}: stopped after steps {points} of {expected[0]} in {rounds} trainings, all "
        "ended the same"
    )


def curve(folder: Path, metric: str) -> list[float]:
    rows = provenance.read_parquet(folder / "curve.parquet", schemas.CURVE).to_pylist()
    return [row["value"] for row in rows if row["metric"] == metric]


def test_two_processes_learn_what_one_learns(world: World, vlm: Vlm) -> None:
    """Over 20 steps of SFT on answers of different lengths; the last batch of an epoch is not full."""
    mixed = (LETTERS, LETTERS.model_copy(update={"target": "reasoning", "form": "tagged"}))
    what = step(samples=mixed, epochs=2.25, batch_size=10, device_batch_size=10)
    alone = train(world, vlm, "alone", what)
    halves = what.model_copy(update={"device_batch_size": what.device_batch_size // 2})
    together = job(world, vlm, halves, None, "together", processes=2).finish()
    one, two = (json.loads((folder / "record.json").read_text()) for folder in (alone, together))
    assert (one["devices"], two["devices"]) == (1, 2) and one["samples"] % what.batch_size, (
        "the last batch is not full"
    )
    losses, others = curve(alone, "loss"), curve(together, "loss")
    assert len(losses) >= 20 and losses[-1] < losses[0] / 2
    print(max(abs(a - b) for a, b in zip(losses, others, strict=True)), losses[0], losses[-1])
    assert others == pytest.approx(losses, abs=1e-4)
    assert curve(together, "grad_norm") == pytest.approx(curve(alone, "grad_norm"), rel=1e-3)


def workers(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """The launcher and the processes that train."""
    return psutil.Process(process.pid).children(recursive=True)


def gone(family: list[psutil.Process], seconds: float) -> bool:
    return not psutil.wait_procs(family, timeout=seconds)[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", STEPS)
def test_two_processes_die_together_stop_together_and_end_the_same(
    world: World, vlm: Vlm, lettered: Path, kind: str
) -> None:
    what, start = (
        STEPS[kind].model_copy(update={"epochs": 6, "device_batch_size": 4}),
        None if kind == "sft" else lettered,
    )
    expected = result(job(world, vlm, what, start, "whole", processes=2).finish())
    hurt = job(world, vlm, what, start, "hurt", processes=2)

    process = hurt.start()
    assert hurt.trains(process, after=0)
    family = workers(process)
    assert len(family) == 3
    process.kill()  # the job itself: its device is another's now, so nothing of it may go on
    process.wait()
    assert gone(family, 10)

    process = hurt.start()
    assert hurt.trains(process, after=hurt.steps[-1])
    family = workers(process)
    family[-1].kill()  # one of the two that train
    assert process.wait(60) == 1 and gone(family, 10)
    assert "a training process died" in hurt.log.read_text().splitlines()[-1], hurt.log.read_text()

    process = hurt.start()
    assert hurt.trains(process, after=hurt.steps[-1])
    process.terminate()
    assert process.wait(120) == 1
    kept = hurt.steps[-1]
    assert (
        f"error: SIGTERM has stopped this training after step {kept} of {expected[0]}."
        in hurt.log.read_text()
    )
    files = {path.name for path in (hurt.task.state / f"checkpoint-{kept}").iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= files

    assert result(hurt.finish()) == expected
    assert json.loads((hurt.output / "record.json").read_text())["devices"] == 2
    if kind == "grpo":
        rewards, lengths = curve(hurt.output, "reward"), curve(hurt.output, "completion_length")
        assert all(0 <= reward <= 2 for reward in rewards) and len(set(rewards)) > 1
        assert all(1 <= length <= what.max_new_tokens for length in lengths)
        shares = curve(hurt.output, "frac_zero_variance")  # of two groups, both whole
        assert set(shares) <= {0, 0.5, 1} and min(shares) < 1


SNAKEFILE = """
rule train:
    output: "hurt/record.json"
    log: "train.log"
    script: "door.py"
"""
SCRIPT = """
from pathlib import Path
from typing import Any
from vltaxon.logs import logged
from vltaxon.tasks.training import TrainTask
from vltaxon.train.launch import train

if __name__ == "__main__":
    with logged(snakemake.log[0], 1):
        train(TrainTask.model_validate_json(Path("hurt.json").read_text()))
"""


def told_by_all(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """What a terminal does on Ctrl-C, and Slurm or systemd when they end a job: every process is told."""
    os.killpg(process.pid, number)


def told_alone(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    process.send_signal(number)


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("tell", "number", "stops"),
    [
        (told_by_all, signal.SIGTERM, True),
        pytest.param(told_by_all, signal.SIGINT, True, marks=pytest.mark.slow),
        pytest.param(told_alone, signal.SIGTERM, False, marks=pytest.mark.slow),
    ],
)
def test_under_snakemake(world: World, vlm: Vlm, tell: Any, number: signal.Signals, stops: bool) -> None:
    """The script of a rule stops between two steps; Snakemake, told alone, waits for the jobs that run."""
    expected = result(train(world, vlm, "whole", SFT))
    hurt = job(world, vlm, SFT, None, "hurt")
    for name, text in (
        ("Snakefile", SNAKEFILE),
        ("door.py", SCRIPT),
        ("hurt.json", hurt.task.model_dump_json()),
    ):
        (world.folder / name).write_text(text)

    def snakemake() -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        return subprocess.Popen(
            command, cwd=world.folder, env=environment, start_new_session=True, preexec_fn=heeds_ctrl_c
        )

    process = snakemake()
    assert hurt.trains(process, after=1)
    tell(process, number)
    status, said = process.wait(240), (world.folder / "train.log").read_text()
    last = said.splitlines()[-1]
    at = re.fullmatch(
        rf"error: {number.name} has stopped this training after step (\d+) of {expected[0]}\. .*step \1\.",
        last,
    )
    assert (at is not None) == stops, said
    if at is not None:
        assert status != 0 and not hurt.output.exists()
        assert hurt.steps[-1] == int(at[1]) and len(hurt.steps) <= trainer_state.MOST
        assert snakemake().wait(240) == 0, said
    assert result(hurt.output) == expected


def heeds_ctrl_c() -> None:
    """A shell lets its background jobs ignore Ctrl-C, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
