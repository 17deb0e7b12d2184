"""How the time of each rule grows with images, levels and labels, on synthetic data, and how far metrics
reach.

Run by hand: `python benchmarks/scaling.py`: some minutes on two cores (`--help`). Each rule is a process of
its own, measured in CPU seconds, which a busy machine changes little, at three sizes of each kind while the
others stay. The exponent is the slope of log time over log size, after the time of a tiny case, which is
start-up, has been taken off; it is told where the largest size takes a second or more beyond start-up.
`--metrics IMAGES` scores one system at that size and nothing else. Prints tables and writes
results/benchmarks/scaling.json or metrics.json.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from tabulate import tabulate

from vltaxon import schemas
from vltaxon.provenance import parquet_writer, write_parquet

WIDTH = 256  # numbers of an embedding
BOOTSTRAP = 1000
RULES = ("unpack_archive", "ingest", "draw", "mine", "answer_questions", "score", "report")


class Size(NamedTuple):
    """Test images, levels, and taxa of the last level."""

    images: int
    levels: int
    labels: int

    @property
    def taxa(self) -> list[list[str]]:
        """Names by level: as many at each as a tree of equal branching has, one at the root."""
        counts = [round(self.labels ** (level / max(1, self.levels - 1))) for level in range(self.levels)]
        return [
            [f"{'Kpcofgstuvw'[level]}us nameus {i:06d}" for i in range(count)]
            for level, count in enumerate(counts)
        ]

    def lineages(self) -> Iterator[list[str]]:
        """The path of every leaf."""
        taxa = self.taxa
        for place in range(self.labels):
            path = [taxa[-1][place]]
            for above, below in zip(taxa[-2::-1], taxa[:0:-1], strict=True):
                place = place * len(above) // len(below)
                path.insert(0, above[place])
            yield path

    @property
    def ranks(self) -> list[str]:
        return [f"rank{level}" for level in range(1, self.levels + 1)]


def archives(size: Size, folder: Path) -> None:
    """Small JPEGs in the layout of iNat21; only seven ranks."""
    import io
    import tarfile

    from PIL import Image

    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(16):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)).save(buffer, "JPEG", quality=70)
        pictures.append(buffer.getvalue())

    def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))

    ranks = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
    categories = []
    for i, path in enumerate(size.lineages()):
        lineage = dict(zip(ranks, ["Plantae", *([path[1]] * (7 - len(path))), *path[1:]], strict=True))
        categories.append({**lineage, "id": i, "name": path[-1]})
    images = []
    with tarfile.open(folder / "val.tar.gz", "w:gz", compresslevel=1) as tar:
        for number in range(size.images):
            plain = pictures[number % 16]
            images.append({"id": number, "file_name": f"val/{number % size.labels:05d}_x/{number:08d}.jpg"})
            add(
                tar,
                str(images[-1]["file_name"]),
                plain[:2] + b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big") + plain[2:],
            )
    labels = [
        {"id": number, "image_id": number, "category_id": number % size.labels}
        for number in range(size.images)
    ]
    with tarfile.open(folder / "val.json.tar.gz", "w:gz") as tar:
        add(
            tar,
            "val.json",
            json.dumps({"images": images, "categories": categories, "annotations": labels}).encode(),
        )


def tables(size: Size, folder: Path, vectors: bool = True) -> None:
    """Images, taxa, parts and embeddings, as rules before write them; images belong to the leaves in turn."""
    rows = [
        (path[-1], level, rank, taxon, taxon.casefold())
        for path in size.lineages()
        for level, (rank, taxon) in enumerate(zip(size.ranks, path, strict=True), start=1)
    ]
    columns = dict(zip(schemas.TAXA.names, map(list, zip(*rows, strict=True)), strict=True))
    write_parquet(pa.table(columns, schemas.TAXA), folder / "taxa.parquet", schemas.TAXA)
    leaves = pa.array(size.taxa[-1])
    with parquet_writer(folder / "images.parquet", schemas.IMAGES) as write:
        for start in range(0, size.images, 1_000_000):
            numbers = np.arange(start, min(size.images, start + 1_000_000))
            known = {
                "image_id": pa.array([f"test/{number:08d}" for number in numbers.tolist()]),
                "split": pa.repeat("test", len(numbers)),
                "leaf": leaves.take(pa.array(numbers % size.labels)),
            }
            rest = {
                field.name: pa.nulls(len(numbers), field.type)
                for field in schemas.IMAGES
                if field.name not in known
            }
            write(pa.table(known | rest))
    half = size.taxa[-1][::2]
    parts = {"leaf": half, "part": ["sft"] * len(half), "seed": [0] * len(half)}
    write_parquet(pa.table(parts, schemas.PARTS), folder / "parts.parquet", schemas.PARTS)
    rng = np.random.default_rng(1)
    names = sorted(name for some in size.taxa for name in some)
    ids = [f"test/{number:08d}" for number in range(size.images)]
    for kind, keys in (("image", ids), ("taxon", names)) if vectors else ():
        found = rng.standard_normal((len(keys), WIDTH), dtype=np.float32)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        column = pa.FixedSizeListArray.from_arrays(pa.array(found.astype(np.float16).ravel()), WIDTH)
        write_parquet(
            pa.table({"id": keys, "vector": column}),
            folder / f"{kind}s.vectors",
            schemas.embeddings(WIDTH),
            weights="-",
        )


def questions(size: Size, folder: Path) -> None:
    """Questions and the answers of one system, three in four right, piece by piece: for sizes at which
    mining is not meant.
    """
    rng = np.random.default_rng(2)
    levels = range(1, size.levels + 1)
    with (
        parquet_writer(folder / "mine.parquet", schemas.QUESTIONS) as ask,
        parquet_writer(folder / "answer_questions.parquet", schemas.PREDICTIONS) as answer,
    ):
        for start in range(0, size.images, 100_000):
            ids = [f"test/{number:08d}" for number in range(start, min(size.images, start + 100_000))]
            count = len(ids) * size.levels
            shared = {
                "question_id": pa.array([f"{image}:{level}" for image in ids for level in levels]),
                "image_id": pa.array([image for image in ids for _ in levels]),
                "level": pa.array(list(levels) * len(ids), pa.int8()),
            }
            truth, said = rng.integers(0, 4, count), rng.integers(0, 4, count)
            said = np.where(rng.random(count) < 2 / 3, truth, said)
            asked = shared | {
                "split": pa.repeat("test", count),
                "options": pa.ListArray.from_arrays(
                    np.arange(count + 1, dtype=np.int32) * 4, pa.array(["a", "b", "c", "d"] * count)
                ),
                "answer_index": pa.array(truth, pa.int8()),
                "scored": pa.array(np.asarray(shared["level"]) > 1),
            }
            given = shared | {
                "outcome": pa.repeat("answered", count),
                "answer_index": pa.array(said, pa.int8()),
                "published_index": pa.array(said, pa.int8()),
                "finish_reason": pa.repeat("stop", count),
                "completion_tokens": pa.array(np.full(count, 90), pa.int32()),
            }
            for write, known, schema in (
                (ask, asked, schemas.QUESTIONS),
                (answer, given, schemas.PREDICTIONS),
            ):
                rest = {
                    field.name: pa.nulls(count, field.type) for field in schema if field.name not in known
                }
                write(pa.table(known | rest))


def run(rule: str, size: Size) -> None:
    """A rule in the working folder."""
    here = Path()
    if rule == "unpack_archive":
        from vltaxon.data.archives import unpack

        unpack(here / "val.tar.gz", here / "val.tar", here / "val.parquet")
    elif rule == "ingest":
        from vltaxon.config.datasets import Dataset, Split
        from vltaxon.data.ingest import ingest
        from vltaxon.tasks.data import IngestTask

        ranks = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
        split = Split(archive=here / "val.tar.gz", annotations=here / "val.json.tar.gz")
        words = {
            "word": "plant",
            "questions": "inat21",
            "licence": "-",
            "ranks": ranks,
            "scored_levels": (2, 7),
        }
        dataset = Dataset(source="inat21", test=split, **words)
        written = {name: here / f"ingest.{name}" for name in ("taxa", "images", "rejected")}
        ingest(
            IngestTask(dataset=dataset.raw, seed=0, archives=here, tars=(), indexes=(), tables=(), **written)
        )
    elif rule == "draw":
        from vltaxon.questions import draw
        from vltaxon.tasks.questions import DrawTask

        tables = {"taxa": here / "taxa.parquet", "images": here / "images.parquet"}
        draw(
            DrawTask(
                **tables, scored_levels=range(2, size.levels + 1), seed=0, questions=here / "draw.parquet"
            )
        )
    elif rule == "mine":
        from vltaxon.distractors.mining import mine
        from vltaxon.tasks.questions import MineTask

        names = {"taxa": "taxa.parquet", "images": "images.parquet", "image_vectors": "images.vectors"}
        names |= {"taxon_vectors": "taxons.vectors", "questions": "mine.parquet"}
        files = {key: here / name for key, name in names.items()}
        mine(MineTask(**files, encoder="e", template="{}", scored_levels=range(2, size.levels + 1), seed=0))
    elif rule == "answer_questions":
        from vltaxon.config.protocols import Stage
        from vltaxon.inference.run import answer_questions
        from vltaxon.tasks.asking import Answering
        from vltaxon.tasks.prediction import AnswerTask

        files = {"images": "images.parquet", "taxa": "taxa.parquet", "questions": "mine.parquet"}
        files |= {
            "image_vectors": "images.vectors",
            "taxon_vectors": "taxons.vectors",
            "predictions": "answer_questions.parquet",
        }
        stage = Answering(stage=Stage(name="answer", by="similarity"), seed=0)
        answer_questions(
            AnswerTask(asking=stage, shard=0, shards=1, **{name: here / file for name, file in files.items()})
        )
    elif rule == "score":
        from vltaxon.metrics import heads
        from vltaxon.metrics.score import score
        from vltaxon.tasks.scoring import ScoreTask, Sources

        sources = Sources(
            questions={("d", "similar"): here / "mine.parquet"},
            images={"d": here / "images.parquet"},
            taxa={"d": here / "taxa.parquet"},
            answers={("s", "d", "similar"): (here / "answer_questions.parquet",)},
            leaves={},
            leaf_systems={},
            partition=here / "parts.parquet",
            training="d",
        )
        score(
            ScoreTask(
                scope="main",
                sources=sources,
                bootstrap=BOOTSTRAP,
                seed=0,
                metrics=tuple(heads.files()),
                views=tuple((heads.FOLDER / "views").glob("*.sql")),
                scores=here / "scores.parquet",
                database=here / "benchmark.duckdb",
            )
        )
    elif rule == "report":
        from vltaxon.metrics.compare import difference

        # the part of the page that grows: a difference of systems over all images; the rest is of fixed size
        difference(here / "benchmark.duckdb", "d", "similar", "hca", ("s", "s"), BOOTSTRAP, 0)


def _timed(rule: str, size: Size, folder: Path) -> tuple[float, float]:
    os.chdir(folder)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    run(rule, size)
    worked = sum(os.times()[:4])
    peak = next(
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return worked, int(peak) / 1024


def measured(rule: str, size: Size, folder: Path) -> tuple[float, float]:
    """CPU seconds and peak resident MiB of a rule in a process of its own; imports count."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_timed, rule, size, folder).result()


def all_rules(size: Size) -> dict[str, tuple[float, float]]:
    """CPU seconds and MiB of every rule, one after the other in one folder."""
    with tempfile.TemporaryDirectory() as name:
        archives(size, Path(name))
        tables(size, Path(name))
        return {rule: measured(rule, size, Path(name)) for rule in RULES}


def exponent(sizes: list[int], seconds: list[float], idle: float) -> str:
    """Slope of log time over log size, start-up taken off; a dash where that leaves too little to tell."""
    net = np.array(seconds) - idle
    if net.min() <= 0.05 or net.max() < 1:
        return "-"
    return f"{np.polyfit(np.log(sizes), np.log(net), 1)[0]:.2f}"


def growth(given: argparse.Namespace) -> list[dict[str, Any]]:
    """A line for each rule and each kind of size."""
    axes = {"images": given.images, "levels": given.levels, "labels": given.labels}
    middle = Size(*(some[len(some) // 2] for some in axes.values()))
    found = {
        size: all_rules(size)
        for size in {middle._replace(**{axis: n}) for axis, some in axes.items() for n in some}
    }
    idle = all_rules(Size(20, 2, 10))
    lines: list[dict[str, Any]] = []
    for rule in RULES:
        for axis, some in axes.items():
            if rule in ("unpack_archive", "ingest") and axis == "levels":
                continue  # the layout has seven
            seconds, peaks = zip(*(found[middle._replace(**{axis: n})][rule] for n in some), strict=True)
            line = {"rule": rule, "grows with": axis, "sizes": " / ".join(f"{n:,}" for n in some)}
            line |= {
                "CPU seconds": " / ".join(f"{s:.2f}" for s in seconds),
                "start-up": round(idle[rule][0], 2),
            }
            line |= {"exponent": exponent(some, list(seconds), idle[rule][0]), "MiB": round(max(peaks))}
            lines.append(line)
    print(tabulate(lines, headers="keys", tablefmt="github"))
    print(
        f"Each varies alone around {middle.images:,} images, {middle.levels} levels, {middle.labels:,} labels."
    )
    return lines


def reach(images: int) -> list[dict[str, Any]]:
    """Scoring one system on many images of seven levels."""
    size = Size(images, 7, 10_000)
    with tempfile.TemporaryDirectory() as name:
        tables(size, Path(name), vectors=False)
        questions(size, Path(name))
        seconds, peak = measured("score", size, Path(name))
    line = {
        "rule": "score",
        "images": images,
        "rows": 7 * images,
        "CPU seconds": round(seconds, 1),
        "MiB": round(peak),
    }
    print(tabulate([line], headers="keys", tablefmt="github"))
    return [line]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[3_000, 10_000, 30_000])
    parser.add_argument("--levels", type=int, nargs="+", default=[2, 4, 7])
    parser.add_argument("--labels", type=int, nargs="+", default=[500, 1_500, 5_000])
    parser.add_argument(
        "--metrics", type=int, metavar="IMAGES", help="score one system on so many images, and nothing else"
    )
    arguments = parser.parse_args()
    made = growth(arguments) if arguments.metrics is None else reach(arguments.metrics)
    target = Path("results/benchmarks") / ("scaling.json" if arguments.metrics is None else "metrics.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"cores": os.cpu_count(), "rows": made}, indent=1) + "\n", encoding="utf-8")
