"""Starting a training: in this process, or as several processes that share the work, by `accelerate launch`.

The processes are children of `accelerate launch`, which ends all of them when one dies; they die with it, and it with the job,
so that none keeps a device that was given back. What asks the job to stop is passed on to them, and they agree on the step.

As a module it is one of these processes: `accelerate launch -m vltaxon.train.launch TASK`.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from vltaxon import gpu, provenance
from vltaxon.config import Closed, Prompt, Step, Vlm
from vltaxon.errors import UserError
from vltaxon.logs import THREADS
from vltaxon.processes import signal_when_parent_dies
from vltaxon.train import checkpoints

_JOB = "VLTAXON_TRAINING_JOB"  # process id, for the processes it has started


class Task(Closed):
    """What `run.train_step` takes, to hand to another process."""

    step: Step
    model: Vlm
    previous: Path | None
    images: Path
    taxa: Path
    questions: Path
    parts: Path
    prompts: dict[str, Prompt]
    wording: str
    word: str
    output: Path
    state: Path
    seed: int
    own: Path | None


def train(task: Task, processes: int = 1, settings: Path = Path("config/accelerate/ddp.yaml")) -> None:
    """Train a step, in this process where one is enough.

    Args:
        task: the step, its inputs and its output.
        processes: how many share the work; each has a device of the job's, or where there is none shares the CPU.
        settings: what `accelerate launch` is told of them.

    Raises:
        UserError: a guard found something, a process ended, or the job was told to stop.
    """
    with checkpoints.alone(task.state):
        if processes == 1:
            from vltaxon.train.run import train_step

            train_step(**dict(task))
        else:
            _launch(task, processes, settings)


def _launch(task: Task, processes: int, settings: Path) -> None:
    file = task.state.with_name(f"{task.state.name}.task.json")
    for old in _last_words(file):
        old.unlink()
    with provenance.atomic(file) as part:
        part.write_text(task.model_dump_json(), encoding="utf-8")
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)) // processes)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(settings)]
    command += ["--num_processes", str(processes), "--num_machines", "1", "--main_process_port", "0"]
    command += ["--num_cpu_threads_per_process", str(threads), "-m", "vltaxon.train.launch", str(file)]
    environment = os.environ | dict.fromkeys(THREADS, str(threads)) | {"PET_SIGNALS_TO_HANDLE": "SIGQUIT"}
    environment[_JOB] = str(os.getpid())
    environment["PET_SHUTDOWN_TIMEOUT"] = "10"  # seconds that the others have, when one has died
    with checkpoints.listening() as told, gpu.handed_on() as devices:
        launcher = subprocess.Popen(command, env=environment, preexec_fn=_only_we_stop_it, pass_fds=devices)
        while True:
            try:
                status = launcher.wait(1)
                break
            except subprocess.TimeoutExpired:
                if told:  # again each second: one that is only starting would miss it
                    _stop(launcher.pid)
    said = [path.read_text(encoding="utf-8") for path in _last_words(file)]
    for path in (file, *_last_words(file)):
        path.unlink()
    if said or status:
        raise UserError(said[0] if said else f"a training process died; what it said stands above. {_again(task)}")


def _last_words(file: Path) -> list[Path]:
    """What the processes of a task left as their error, each in a file."""
    return sorted(file.parent.glob(f"{file.stem}.*.said"))


def _again(task: Task) -> str:
    kept = [folder for folder in checkpoints.folders(task.state) if (folder / checkpoints.SEAL).exists()]
    return f"A rerun goes on from step {kept[-1].name.rpartition('-')[2]}." if kept else "A rerun starts anew."


def _only_we_stop_it() -> None:
    """In the launcher, before it starts: a stop sent to all must not end it, or it would end the others within seconds."""
    _die_with_parent()
    for number in checkpoints.SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _die_with_parent() -> None:
    if (heed := signal_when_parent_dies(signal.SIGKILL)) is not None:
        heed()


def _stop(launcher: int) -> None:
    import psutil

    for process in psutil.Process(launcher).children():
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)


def main(file: Path) -> None:
    """Be one of the processes that train a task together."""
    import psutil

    _die_with_parent()
    if psutil.Process(os.getppid()).ppid() != int(os.environ[_JOB]):
        sys.exit("the job of this process has ended before it began")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the job, which passes it on
    task: Any = Task.model_validate_json(file.read_text(encoding="utf-8"))
    from vltaxon.train.run import train_step

    try:
        train_step(**dict(task))
    except UserError as error:
        with provenance.atomic(file.with_name(f"{file.stem}.{os.environ['RANK']}.said")) as part:
            part.write_text(str(error), encoding="utf-8")
        sys.exit(0 if isinstance(error, checkpoints.Stopped) else 1)  # all have stopped alike, and none failed


if __name__ == "__main__":
    main(Path(sys.argv[1]))
