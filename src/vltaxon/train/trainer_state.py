"""Training that survives: its state is written regularly, and before it stops because it was asked to.

A state is what transformers calls a checkpoint: adapter, optimiser, scheduler, log, and the random states of
every process. It is taken between two optimiser steps, where GRPO has no rollouts left over, so that a
training that goes on from it ends the same.

transformers writes in place, so a folder counts only once it is sealed: a file that is written last names its
files with their digests. Reading it back runs no code from it: weights are safetensors, everything else is
read by torch with `weights_only`.
"""

import fcntl
import json
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from vltaxon import provenance
from vltaxon.errors import UserError

SEAL = "sealed.json"
MOST = 2  # states that are kept: the newest, and the one before for the day when it is damaged
SIGNALS = (signal.SIGTERM, signal.SIGINT)  # of a scheduler that wants its device back, and of Ctrl-C


class Stopped(UserError):
    """The job was asked to stop, and what it goes on from is written."""


def list_states(folder: Path) -> list[Path]:
    """Return the states of a step, whole or not, oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda state: int(state.name.rpartition("-")[2]))


def seal(state: Path) -> None:
    """Declare a state whole."""
    files = sorted(path for path in state.rglob("*") if path.is_file() and path.name != SEAL)
    digests = {str(path.relative_to(state)): provenance.digest_file(path) for path in files}
    provenance.write_text(state / SEAL, json.dumps(digests, indent=1))


def find_damage(state: Path) -> str | None:
    """Return what is wrong with a state, in words; None where nothing is."""
    if not (state / SEAL).exists():
        return "it was being written when the training was killed"
    if not (files := _mapping(state / SEAL)):
        return f"its {SEAL} is not readable"
    for name, digest in files.items():
        if not (state / name).is_file():
            return f"{name} is missing"
        if provenance.digest_file(state / name) != digest:
            return f"{name} is not what was written"
    return None


def newest_state(folder: Path) -> Path | None:
    """Return the newest whole state of a step; damaged ones after it are deleted, with a warning."""
    for state in reversed(list_states(folder)):
        if (damage := find_damage(state)) is None:
            return state
        print(f"warning: {state} is not used and deleted: {damage}; the one before is looked for", flush=True)
        shutil.rmtree(state)
    return None


def open_states(folder: Path, identity: Mapping[str, Any]) -> None:
    """Keep the states in a folder if they are of this very step, else empty it, and print why.

    Args:
        folder: of the states.
        identity: all that makes the step what it is; it is written beside the states.

    Raises:
        UserError: there are states, and it cannot be read of which step.
    """
    file, text = folder / "step.json", json.dumps(identity, indent=1, sort_keys=True)
    was, now = _mapping(file), json.loads(text)
    if was is None and (states := list_states(folder)):
        expected = folder / "step.expected.json"
        provenance.write_text(expected, text)
        raise UserError(
            f"{file}: is missing or damaged, so it cannot be told whether the {len(states)} checkpoints "
            "beside it are of this step. If nothing that shapes it has changed since, "
            f"`mv {expected} {file}` and run the workflow again; else delete the folder, and the step starts "
            "anew"
        )
    if was is not None and was != now:
        changed = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
        print(
            f"{folder}: its checkpoints are of another step ({', '.join(changed)} changed); starting anew",
            flush=True,
        )
        for state in list_states(folder):
            shutil.rmtree(state)
    provenance.write_text(file, text)


def _mapping(file: Path) -> dict[str, Any] | None:
    """Return what a JSON file holds; None where it is missing, cut short or no mapping."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Be the one training of a step: wait for one that was asked to stop and still writes its state.

    The kernel frees the lock when its process ends, in any way.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: another process still trains this step; waiting for it to end", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def catch_signals() -> Iterator[list[str]]:
    """Collect the names of the signals that ask a training to stop, in place of dying of them."""
    caught: list[str] = []

    def catch(number: int, _: FrameType | None) -> None:
        caught.append(signal.Signals(number).name)

    before = {number: signal.signal(number, catch) for number in SIGNALS}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def save_states(trainer: Any, folder: Path, minutes: float, signals: list[str]) -> None:
    """Have a trainer write its state regularly, and before it stops because it was asked to.

    Processes that train together decide together, after every optimiser step, so that all of them stop at the
    same one.

    Args:
        trainer: that has not started.
        folder: of the states.
        minutes: between two of them; 0 for one after every optimiser step.
        signals: grows when the process is asked to stop.
    """
    import torch
    from transformers.trainer_callback import TrainerCallback

    class Saver(TrainerCallback):  # type: ignore[misc]  # a class of a library without types
        written = 0.0

        def on_train_begin(self, args: Any, at: Any, control: Any, **_: Any) -> None:
            self.written = time.monotonic()

        def on_step_end(self, args: Any, at: Any, control: Any, **_: Any) -> None:
            wishes = [bool(signals), time.monotonic() - self.written >= 60 * minutes]
            agreed = trainer.accelerator.reduce(
                torch.tensor(wishes, dtype=torch.float32, device=args.device), reduction="sum"
            )
            stop, due = (agreed > 0).tolist()
            if at.global_step < at.max_steps:  # else the adapter itself is about to be written
                control.should_save, control.should_training_stop = stop or due, stop

        def on_save(self, args: Any, at: Any, control: Any, **_: Any) -> None:
            trainer.accelerator.wait_for_everyone()  # each process has written its random state
            if at.is_world_process_zero:
                seal(folder / f"checkpoint-{at.global_step}")
                for old in list_states(folder)[:-MOST]:
                    shutil.rmtree(old)
            trainer.accelerator.wait_for_everyone()
            self.written = time.monotonic()

    trainer.add_callback(Saver())
