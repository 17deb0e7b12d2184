"""Starting a training: in this process, or as several processes that share the work, by `accelerate launch`.

The processes are children of `accelerate launch`, which ends all of them when one dies; they die with it, and
it with the job, so that none keeps a device that was given back. What asks the job to stop is passed on to
them, and they agree on the step.

As a module it is one of these processes: `accelerate launch -m vltaxon.train.launch TASK`.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from vltaxon import provenance
from vltaxon.devices import inheritable_leases
from vltaxon.errors import UserError
from vltaxon.logs import THREADS
from vltaxon.processes import signal_when_parent_dies
from vltaxon.tasks.training import TrainTask
from vltaxon.train import trainer_state

_JOB = "VLTAXON_TRAINING_JOB"  # process id, for the processes it has started


def train(task: TrainTask) -> None:
    """Train a step, in this process where one is enough.

    Raises:
        UserError: a guard found something, a process ended, or the job was told to stop.
    """
    with trainer_state.lock(task.state):
        if task.processes == 1:
            from vltaxon.train.step import train_step

            train_step(task)
        else:
            _launch(task)


def _launch(task: TrainTask) -> None:
    """Train a step in several processes, and hand on what asks the job to stop."""
    file = task.state.with_name(f"{task.state.name}.task.json")
    for old in _errors(file):
        old.unlink()
    provenance.write_text(file, task.model_dump_json(exclude_unset=True))  # a recipe may mean what it names
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)) // task.processes)
    command, environment = _command(task, file, threads), _environment(threads)
    with trainer_state.catch_signals() as signals, inheritable_leases() as leases:
        launcher = subprocess.Popen(command, env=environment, preexec_fn=_only_we_stop_it, pass_fds=leases)
        while True:
            try:
                status = launcher.wait(1)
                break
            except subprocess.TimeoutExpired:
                if signals:  # again each second: one that is only starting would miss it
                    _stop(launcher.pid)
    errors = [path.read_text(encoding="utf-8") for path in _errors(file)]
    for path in (file, *_errors(file)):
        path.unlink()
    if errors or status:
        died = f"a training process died; what it said stands above. {_what_next(task)}"
        raise UserError(errors[0] if errors else died)


def _command(task: TrainTask, file: Path, threads: int) -> list[str]:
    """Return the command that starts the processes of a task."""
    options = {
        "config_file": task.accelerate,
        "num_processes": task.processes,
        "num_machines": 1,
        "main_process_port": 0,
        "num_cpu_threads_per_process": threads,
    }
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *given,
        "-m",
        "vltaxon.train.launch",
        str(file),
    ]


def _environment(threads: int) -> dict[str, str]:
    """Return the environment of the processes."""
    return (
        os.environ
        | dict.fromkeys(THREADS, str(threads))
        | {
            "PET_SIGNALS_TO_HANDLE": "SIGQUIT",
            "PET_SHUTDOWN_TIMEOUT": "10",  # seconds that the others have, when one has died
            _JOB: str(os.getpid()),
        }
    )


def _errors(file: Path) -> list[Path]:
    """Return the files in which the processes of a task left their errors."""
    return sorted(file.parent.glob(f"{file.stem}.*.error"))


def _what_next(task: TrainTask) -> str:
    states = [
        state for state in trainer_state.list_states(task.state) if (state / trainer_state.SEAL).exists()
    ]
    return (
        f"A rerun goes on from step {states[-1].name.rpartition('-')[2]}."
        if states
        else "A rerun starts anew."
    )


def _only_we_stop_it() -> None:
    """In the launcher, before it starts, ignore what asks to stop.

    Sent to all processes it would end the launcher, and that the others within seconds.
    """
    _die_with_parent()
    for number in trainer_state.SIGNALS:
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
    task = TrainTask.model_validate_json(file.read_text(encoding="utf-8"))
    from vltaxon.train.step import train_step

    try:
        train_step(task)
    except UserError as error:
        provenance.write_text(file.with_name(f"{file.stem}.{os.environ['RANK']}.error"), str(error))
        stopped = isinstance(error, trainer_state.Stopped)  # then all have, and none failed
        sys.exit(0 if stopped else 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
