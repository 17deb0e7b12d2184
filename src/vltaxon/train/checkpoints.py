"""Training that survives: checkpoints every some minutes and when the job is told to stop, read back only if they are whole.

A checkpoint is what transformers writes: adapter, optimiser, scheduler, log, and the random states of every process. It is
taken between two optimiser steps, where GRPO has no rollouts left over, so that a training that goes on from it ends the same.

transformers writes in place, so a folder counts only once it is sealed: a file that is written last names its files with their
digests. Reading it back runs no code from it: weights are safetensors, everything else is read by torch with `weights_only`.
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
KEPT = 2  # the newest, and the one before for the day when it is damaged
SIGNALS = (signal.SIGTERM, signal.SIGINT)  # of a scheduler that wants its device back, and of Ctrl-C


class Stopped(UserError):
    """The job was told to stop, and what it goes on from is written."""


def folders(state: Path) -> list[Path]:
    """Checkpoints of a step, whole or not, oldest first."""
    return sorted(state.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))


def seal(folder: Path) -> None:
    """Declare a checkpoint whole."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    with provenance.atomic(folder / SEAL) as part:
        part.write_text(json.dumps({str(p.relative_to(folder)): provenance.digest_file(p) for p in files}, indent=1))


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None where nothing is."""
    try:
        files = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "it was being written when the training was killed"
    except (OSError, ValueError) as error:
        return f"its {SEAL} is not readable ({error})"
    for name, digest in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if provenance.digest_file(folder / name) != digest:
            return f"{name} is not what was written"
    return None


def newest(state: Path) -> Path | None:
    """The newest whole checkpoint of a step; damaged ones after it are deleted, and said."""
    for folder in reversed(folders(state)):
        if (wrong := damage(folder)) is None:
            return folder
        print(f"warning: {folder} is not used and deleted: {wrong}; the one before is looked for", flush=True)
        shutil.rmtree(folder)
    return None


def begin(state: Path, identity: Mapping[str, Any]) -> None:
    """Keep the checkpoints in `state` if they are of this very step, else start empty, and say why."""
    key, text = state / "step.json", json.dumps(identity, indent=1, sort_keys=True)
    old = key.read_text(encoding="utf-8") if key.exists() else ""
    if old != text:
        if old:
            was, now = json.loads(old), json.loads(text)
            changed = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
            print(f"{state}: its checkpoints are of another step ({', '.join(changed)} changed); starting anew", flush=True)
        shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True, exist_ok=True)
    with provenance.atomic(key) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def alone(state: Path) -> Iterator[None]:
    """Be the one training of a step: wait for one that was told to stop and still writes its checkpoint.

    The kernel frees the lock when its process ends, in any way.
    """
    state.parent.mkdir(parents=True, exist_ok=True)
    with state.with_name(f"{state.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{state}: another process still trains this step; waiting for it to end", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect the names of the signals that ask a training to stop, in place of dying of them."""
    told: list[str] = []

    def heed(number: int, _: FrameType | None) -> None:
        told.append(signal.Signals(number).name)

    before = {number: signal.signal(number, heed) for number in SIGNALS}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def keep(trainer: Any, state: Path, minutes: float, told: list[str]) -> None:
    """Have a trainer write its checkpoints to `state`: after every `minutes`, and before it stops because it was told to.

    Processes that train together decide together, after every optimiser step, so that all of them stop at the same one.
    """
    import torch
    from transformers.trainer_callback import TrainerCallback

    class Keeper(TrainerCallback):  # type: ignore[misc]  # a class of a library without types
        written = 0.0

        def on_train_begin(self, args: Any, at: Any, control: Any, **_: Any) -> None:
            self.written = time.monotonic()

        def on_step_end(self, args: Any, at: Any, control: Any, **_: Any) -> None:
            wishes = [bool(told), time.monotonic() - self.written >= 60 * minutes]
            agreed = trainer.accelerator.reduce(torch.tensor(wishes, dtype=torch.float32, device=args.device), reduction="sum")
            stop, due = (agreed > 0).tolist()
            if at.global_step < at.max_steps:  # else the adapter itself is about to be written
                control.should_save, control.should_training_stop = stop or due, stop

        def on_save(self, args: Any, at: Any, control: Any, **_: Any) -> None:
            trainer.accelerator.wait_for_everyone()  # each process has written its random state
            if at.is_world_process_zero:
                seal(state / f"checkpoint-{at.global_step}")
                for old in folders(state)[:-KEPT]:
                    shutil.rmtree(old)
            trainer.accelerator.wait_for_everyone()
            self.written = time.monotonic()

    trainer.add_callback(Keeper())
