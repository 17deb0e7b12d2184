"""A predict job killed by SIGKILL at random moments, restarted each time with another batch size: nothing
lost, nothing changed.

Jobs are real processes, forked from a server that has the libraries loaded, so that a kill costs no seconds
of imports.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.unit.conftest import PROMPTS, World
from tests.unit.inference.tasks import answer_task, asking, leaf_task
from vltaxon.config.protocols import Stage
from vltaxon.engines.transformers import Vlm
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.journal import frames
from vltaxon.tasks.asking import Asking

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["torch", "transformers.models.qwen2_5_vl", "vltaxon.inference.run", __name__])
LIMIT = 12  # new tokens
BATCHES = (1, 2, 3, 5, 8, 13)


def how(vlm: Vlm, name: str) -> Asking:
    prompt = "stage1" if name == "leaf" else "direct"
    return asking(Stage(name=name, prompt=prompt, form="bare", max_new_tokens=LIMIT), PROMPTS[prompt], vlm)


def job(
    vlm: Vlm, world: World, output: Path, state: Path, batch_size: int, asked: Path, windows: int
) -> None:
    """Both stages, as the rules run them; each answer of the model leaves a line in `asked` before
    anything else sees it.
    """
    import torch

    from vltaxon.inference import run
    from vltaxon.inference.stages import requests as windowed
    from vltaxon.inference.transformers_engine import TransformersEngine

    torch.set_num_threads(1)
    windowed.WINDOW = windows
    plain = TransformersEngine.generate

    def noted(self: Any, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        file = os.open(asked, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for at, response in plain(self, requests, decoding):
            os.write(file, f"{requests[at].image_id} {hash(requests[at].text)}\n".encode())
            yield at, response

    TransformersEngine.generate = noted  # type: ignore[method-assign]
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    given: dict[str, Any] = {"batch_size": batch_size, "state": state}
    run.predict_leaf(leaf_task(world, output / "leaf.parquet", how(vlm, "leaf"), **given))
    run.answer_questions(answer_task(world, output / "answer.parquet", how(vlm, "answer"), **given))


def recorded(state: Path) -> Counter[bytes]:
    """How often each request was recorded as answered."""
    found: Counter[bytes] = Counter()
    for path in state.rglob("*.journal"):
        data = path.read_bytes()

        def note(_: bytes, place: int, length: int, data: bytes = data) -> None:
            found[data[place + 12 : place + 28]] += 1

        with path.open("rb") as file:
            frames.scan(file.fileno(), 0, note)
    return found


def survive(world: World, vlm: Vlm, folder: Path, kills: int, images: int) -> None:
    """Kill a job so many times, let it end, and compare."""
    world.rewrite("images", "split", ["test"] * images + ["train"] * (40 - images))
    rng, state, whole, cut = random.Random(0), folder / "state", folder / "whole", folder / "cut"

    def start(output: Path, state: Path, batch_size: int, log: str) -> Any:
        process = FORKS.Process(target=job, args=(vlm, world, output, state, batch_size, folder / log, 32))
        process.start()
        return process

    process = start(whole, folder / "whole_state", 4, "once")
    process.join()
    assert process.exitcode == 0
    lines = len((folder / "once").read_text().splitlines())
    assert lines == images * 5
    began = time.monotonic()
    start(folder / "timed", folder / "timed_state", 4, "timed").join()
    span = time.monotonic() - began
    killed, sizes, answered = 0, list[int](), list[int]()
    while killed < kills:
        batch_size = rng.choice([size for size in BATCHES if size not in sizes[-1:]])
        before = sum(recorded(state).values())
        process = start(cut, state, batch_size, "cut_asked")
        # One in five at any moment of a job, loading included, the others some answers later: so they do not
        # outlast the work.
        if rng.random() < 0.2 or before == lines:
            process.join(rng.uniform(0, span))
        else:
            enough = before + rng.uniform(0, 2 * lines / kills)
            while process.is_alive() and sum(recorded(state).values()) < enough:
                time.sleep(0.002)
            process.join(rng.uniform(0, 0.05))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        if process.exitcode == -signal.SIGKILL:
            killed += 1
            sizes.append(batch_size)
            answered.append(sum(recorded(state).values()))
        else:  # done: again, so that reading the journal and writing the tables are cut as well
            assert process.exitcode == 0
            for path in cut.glob("*.parquet"):
                path.unlink()
    process = start(cut, state, 7, "cut_asked")
    process.join()
    assert process.exitcode == 0 and len(set(sizes)) > 1
    for name in ("leaf", "answer"):
        one, other = (pq.read_table(output / f"{name}.parquet") for output in (whole, cut))
        assert (
            one.drop(["seconds"]).equals(other.drop(["seconds"]))
            and one.schema.metadata == other.schema.metadata
        )
    kept = recorded(state)
    assert len(kept) == lines and set(kept.values()) == {1}, "a request was answered twice"
    said = len((folder / "cut_asked").read_text().splitlines())
    print(f"\n{killed} kills, batch sizes {sizes}, when so many were answered: {answered}")
    print(f"{lines} requests, {said} answers of the model, {said - lines} of them twice")
    assert said - lines <= killed, "an answer is kept before the next one is taken from the model"


def test_a_killed_job_goes_on_where_it_was(world: World, vlm: Vlm, tmp_path: Path) -> None:
    survive(world, vlm, tmp_path, kills=4, images=10)


@pytest.mark.slow
def test_thirty_kills(world: World, vlm: Vlm, tmp_path: Path) -> None:
    survive(world, vlm, tmp_path, kills=30, images=40)
