"""What counts as a checkpoint, and of which step."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from vltaxon.errors import UserError
from vltaxon.train import trainer_state


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Two sealed trainer_state."""
    for step in (9, 10):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "ref").mkdir(parents=True)
        (folder / "optimizer.pt").write_bytes(b"o" * 100)
        (folder / "ref" / "adapter_model.safetensors").write_bytes(b"r" * 100)
        trainer_state.seal(folder)
    return tmp_path


def test_the_newest_by_number(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trainer_state.newest_state(state) == state / "checkpoint-10"
    assert capsys.readouterr().out == ""


def truncate(folder: Path) -> None:
    (folder / "optimizer.pt").write_bytes(b"o" * 50)


def flip(folder: Path) -> None:
    (folder / "ref" / "adapter_model.safetensors").write_bytes(b"r" * 99 + b"s")


def lose(folder: Path) -> None:
    (folder / "ref" / "adapter_model.safetensors").unlink()


def unseal(folder: Path) -> None:
    (folder / trainer_state.SEAL).unlink()


def blot(folder: Path) -> None:
    (folder / trainer_state.SEAL).write_text("{")


def empty(folder: Path) -> None:
    (folder / trainer_state.SEAL).write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (truncate, "optimizer.pt is not what was written"),
        (flip, "adapter_model.safetensors is not what was written"),
        (lose, "adapter_model.safetensors is missing"),
        (unseal, "was being written"),
        (blot, "is not readable"),
        (empty, "is not readable"),
    ],
)
def test_a_damaged_one_is_skipped_aloud(
    state: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], words: str
) -> None:
    spoil(state / "checkpoint-10")
    assert trainer_state.newest_state(state) == state / "checkpoint-9"
    said = capsys.readouterr().out
    assert "checkpoint-10 is not used and deleted" in said and words in said
    assert not (state / "checkpoint-10").exists(), "nothing of it gets into the next one of that number"


def test_no_whole_one_at_all(state: Path) -> None:
    unseal(state / "checkpoint-9")
    unseal(state / "checkpoint-10")
    assert trainer_state.newest_state(state) is None


def test_those_of_another_step_are_not_continued(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (state / "step.json").write_text(json.dumps({"seed": 0, "version": 1}, indent=1, sort_keys=True))
    trainer_state.open_states(state, {"seed": 0, "version": 1})
    assert trainer_state.newest_state(state) is not None
    trainer_state.open_states(state, {"seed": 1, "version": 1})
    assert trainer_state.newest_state(state) is None
    assert "of another step (seed changed); starting anew" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b'{\n "seed": 0,', b"\xff\0", b"null", None])
def test_a_damaged_note_of_which_step_it_was_deletes_no_checkpoint(
    state: Path, content: bytes | None
) -> None:
    identity = {"seed": 0, "version": 1}
    if content is not None:
        (state / "step.json").write_bytes(content)
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"step\.json: is missing or damaged.* 2 checkpoints.*`mv"
        ) as caught:
            trainer_state.open_states(state, identity)
        assert len(trainer_state.list_states(state)) == 2
    command = str(caught.value).split("`")[1]
    subprocess.run(command, shell=True, check=True)  # as the message says
    trainer_state.open_states(state, identity)
    assert trainer_state.newest_state(state) == state / "checkpoint-10"


def test_a_damaged_note_without_checkpoints_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "step.json").write_text("")
    trainer_state.open_states(tmp_path, {"seed": 0})
    assert json.loads((tmp_path / "step.json").read_text()) == {"seed": 0}


def test_one_at_a_time(tmp_path: Path) -> None:
    """The second waits until the first has ended, in whatever way."""
    hold = "import sys, time; from pathlib import Path; from vltaxon.train import trainer_state\n"
    hold += "with trainer_state.lock(Path(sys.argv[1])): print('mine', flush=True); time.sleep(float(sys.argv[2]))"

    def start(seconds: str) -> tuple[subprocess.Popen[str], IO[str]]:
        command = [sys.executable, "-c", hold, str(tmp_path / "s"), seconds]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, process.stdout

    first, said = start("100")
    assert said.readline() == "mine\n"
    second, heard = start("0")
    assert "another process still trains this step" in heard.readline()
    assert second.poll() is None
    first.kill()
    assert heard.readline() == "mine\n" and second.wait(10) == 0
    first.communicate()
