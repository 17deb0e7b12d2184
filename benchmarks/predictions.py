"""What a prediction job costs beside its model: memory against the number of images, the journal, and zero-shot answers.

Run by hand: `python benchmarks/predictions.py`. The engine here is a double that writes at once, so that nothing but our own part
is measured; each measurement is a process of its own. Prints a table and writes results/benchmarks/predictions.json.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tabulate import tabulate

from vltaxon import schemas
from vltaxon.config.models import GenerativeSpec
from vltaxon.config.protocols import Prompt, Stage
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.journal.engine import Journaled
from vltaxon.inference.journal.folder import JournalFolder
from vltaxon.inference.stages.answers import ask_questions
from vltaxon.inference.stages.leaf import name_leaves
from vltaxon.inference.stages.similarity import answer_by_similarity
from vltaxon.provenance import write_parquet
from vltaxon.tasks.asking import Answering, Asking
from vltaxon.tasks.prediction import AnswerTask, PredictLeafTask

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
WIDTHS = (1, 5, 20, 60, 250, 1200, 2500)  # taxa of each rank
NAMING = "Name the {word} ({ranks})."
WORDING = "Given the {word} in the image, what is its taxonomic classification at the {rank} level?"
IDENTITY = {"engine": "double", "version": 0, "weights": "none"}
DIMENSIONS = 768


def label(level: int, number: int) -> str:
    return f"{RANKS[level - 1].capitalize()}us {'name' * (level // 3)}{number}"


def build(folder: Path, images: int) -> None:
    """Taxa of seven ranks, and questions of four options about levels 2 to 7 and, for stage 2, level 1 with one."""
    rng = np.random.default_rng(0)
    taxa = {name: [] for name in schemas.TAXA.names}
    for leaf in range(WIDTHS[-1]):
        for level, width in enumerate(WIDTHS, start=1):
            name = label(level, leaf * width // WIDTHS[-1])
            for key, value in zip(taxa, (label(7, leaf), level, RANKS[level - 1], name, name.casefold()), strict=True):
                taxa[key].append(value)
    write_parquet(pa.table(taxa, schemas.TAXA), folder / "taxa.parquet", schemas.TAXA)
    ids = [f"test/{i:08d}" for i in range(images)]
    questions = {name: [] for name in schemas.QUESTIONS.names}
    for image_id in ids:
        for level in range(1, 8):
            shown = [label(level, int(i)) for i in dict.fromkeys(rng.integers(0, WIDTHS[level - 1], 4).tolist())]
            values = (f"{image_id}:{level}", image_id, "test", level, RANKS[level - 1], shown, 0, True, "mined", "e", "t", None)
            for key, value in zip(questions, values, strict=True):
                questions[key].append(value)
    write_parquet(pa.table(questions, schemas.QUESTIONS), folder / "questions.parquet", schemas.QUESTIONS)
    (folder / "ids.json").write_text(json.dumps(ids))


def embed(folder: Path, images: int) -> None:
    """Random vectors of the images and of all taxa."""
    rng = np.random.default_rng(1)
    names = sorted({label(level, i) for level, width in enumerate(WIDTHS, start=1) for i in range(width)})
    for kind, keys in (("images", [f"test/{i:08d}" for i in range(images)]), ("labels", names)):
        vectors = rng.standard_normal((len(keys), DIMENSIONS), dtype=np.float32).astype(np.float16)
        table = pa.table({"id": keys, "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSIONS)})
        write_parquet(table, folder / f"{kind}_vectors.parquet", schemas.embeddings(DIMENSIONS), weights="none")


class Double:
    """Writes 400 bytes about anything."""

    digest, facts = "none", {}

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        for at in sorted(range(len(requests)), key=lambda i: -len(requests[i].text)):
            said = f"<think>{'Kingdom: Plantae; Order: Fagales; ' * 10}{at}</think><answer>A</answer>"
            yield at, Response(said, "stop", 400, 324, 90, 0.1)


def answer(folder: Path, state: Path | None) -> None:
    """Stage 1 and stage 2 of all images."""
    ids = json.loads((folder / "ids.json").read_text())
    engine: Any = Double()
    if state is not None:
        engine = Journaled(engine, JournalFolder(state, IDENTITY, "double"), {image_id: f"sha of {image_id}" for image_id in ids})
    model = GenerativeSpec(engine="double", pixels=3136, licence="none")
    words = {"model": model, "wording": WORDING, "word": "plant", "ranks": RANKS, "seed": 0}
    naming, asking = Prompt(source="-", text=NAMING), Prompt(source="-", text='It is "{leaf}". {question}\n{options}')
    stages = Stage(name="leaf", prompt="p"), Stage(name="answer", prompt="p", condition="leaf")
    job = {"images": folder / "images.parquet", "shard": 0, "shards": 1}  # ids are given, so no image is looked up
    leaf, output = Asking(stage=stages[0], prompt=naming, **words), folder / "leaf.parquet"
    name_leaves(PredictLeafTask(asking=leaf, predictions=output, **job), engine, ids)
    asked = {"questions": folder / "questions.parquet", "leaves": (output,), "predictions": folder / "answer.parquet"}
    ask_questions(AnswerTask(asking=Asking(stage=stages[1], prompt=asking, **words), **asked, **job), engine, ids)


def zero_shot(folder: Path, state: Path | None) -> None:
    ids = json.loads((folder / "ids.json").read_text())
    names = {"image_vectors": "images_vectors", "taxon_vectors": "labels_vectors", "predictions": "zero_shot"}
    files = {name: folder / f"{names.get(name, name)}.parquet" for name in ("images", "taxa", "questions", *names)}
    stage = Answering(stage=Stage(name="answer", by="similarity"), seed=0)
    answer_by_similarity(AnswerTask(asking=stage, shard=0, shards=1, **files), ids)


def measured(work: Any, folder: Path, state: Path | None = None) -> tuple[float, float]:
    """Seconds and peak resident MiB of a process that does it."""
    context = get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_run, (work, folder, state))


def _run(work: Any, folder: Path, state: Path | None) -> tuple[float, float]:
    out = os.open(os.devnull, os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(out, 2)
    start = time.perf_counter()
    work(folder, state)
    took = time.perf_counter() - start
    # Not `ru_maxrss`, which counts what the parent had when it started this process.
    peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return took, int(peak) / 1024


def main(counts: Sequence[int], zero_shots: int) -> None:
    lines: list[dict[str, Any]] = []
    for images in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            build(folder, images)
            for what, state in (("no journal", None), ("journal", folder / "state"), ("all in the journal", folder / "state")):
                seconds, peak = measured(answer, folder, state)
                lines.append({"measure": f"both stages, {what}", "images": images, "seconds": seconds, "peak MiB": peak})
            shutil.rmtree(folder / "state")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for images in (100, zero_shots):
            build(folder, images)
            embed(folder, images)
            seconds, peak = measured(zero_shot, folder)
            lines.append({"measure": "zero_shot, 7 questions", "images": images, "seconds": seconds, "peak MiB": peak})
    print(tabulate(lines, headers="keys", floatfmt=".1f", tablefmt="github"))
    target = Path("results/benchmarks/predictions.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main([int(n) for n in sys.argv[1:]] or [100, 1000, 10_000, 30_000], 100_000)
