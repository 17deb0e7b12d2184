"""Mining at the size of iNat21-Animal, against bare matrix products and a loop over images, all in one run;
then its questions.

Run by hand: `python benchmarks/mining.py`; sizes are arguments, the full size is the default (`--help`). The
embeddings are
synthetic: unit vectors whose labels have a cosine of 0.8 among each other, as those of a dual encoder crowd
    together. Prints a table and writes results/benchmarks/mining.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from tabulate import tabulate

from vltaxon import schemas
from vltaxon.distractors.mining import _ROWS, nearest_wrong
from vltaxon.encoders.towers import Vectors
from vltaxon.provenance import write_frame, write_parquet
from vltaxon.questions import Chosen, Level, assemble, levels
from vltaxon.taxonomy import Taxonomy

ROUNDS = 3
RNG = np.random.default_rng(0)


def unit(count: int, width: int, centre: float = 0.0) -> Vectors:
    """Random vectors of unit length with a common part, rounded to float16 as those of `embed`."""
    raw = RNG.standard_normal((count, width), dtype=np.float32) * np.float32(np.sqrt((1 - centre) / width))
    raw[:, 0] += np.float32(np.sqrt(centre))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def tree(counts: list[int]) -> Taxonomy:
    """As many taxa at each level as asked for, after a root that all share."""
    ranks = tuple(f"rank{number}" for number in range(1, len(counts) + 2))
    leaves = range(counts[-1])
    paths = {
        f"l{leaf:06d}": ("root", *(f"t{count}-{leaf * count // counts[-1]:06d}" for count in counts))
        for leaf in leaves
    }
    return Taxonomy(ranks, paths)


def pictures(taxonomy: Taxonomy, count: int) -> pa.Table:
    """Table of images, the leaves in turn."""
    leaves = taxonomy.leaves
    columns = {
        "image_id": [f"inat21/val/{number:08d}-0000-0000-0000-000000000000" for number in range(count)],
        "split": ["test"] * count,
        "leaf": [leaves[number % len(leaves)] for number in range(count)],
    }
    rest = {field.name: pa.nulls(count, field.type) for field in schemas.IMAGES if field.name not in columns}
    return pa.table(columns | rest).select(schemas.IMAGES.names).cast(schemas.IMAGES)


def write(
    folder: Path, taxonomy: Taxonomy, images: pa.Table, vectors: Vectors, found: dict[str, np.ndarray]
) -> None:
    """The tables that the rule `mine` reads."""
    taxa = [
        {"leaf": leaf, "level": level, "rank": rank, "taxon": taxon, "key": taxon}
        for leaf, path in taxonomy.lineages.items()
        for level, (rank, taxon) in enumerate(zip(taxonomy.ranks, path, strict=True), start=1)
    ]
    write_parquet(pa.Table.from_pylist(taxa, schema=schemas.TAXA), folder / "taxa.parquet", schemas.TAXA)
    write_parquet(images, folder / "images.parquet", schemas.IMAGES)
    names = sorted(found)
    for name, ids, rows in (
        ("image_vectors", images["image_id"], vectors),
        ("taxon_vectors", names, np.stack([found[key] for key in names])),
    ):
        column = pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float16).ravel()), rows.shape[1])
        write_parquet(
            pa.table({"id": ids, "vector": column}),
            folder / f"{name}.parquet",
            schemas.embeddings(rows.shape[1]),
            weights="-",
        )


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def looped(images: Vectors, labels: Vectors, level: Level, lean: bool) -> list[list[str]]:
    """The definition, image by image: cosines without rounding, wrong labels sorted by cosine and name.

    Plain as it is written, or as lean as numpy makes it.
    """
    found, exact = [], labels.astype(np.float64)
    for image, own in zip(images.astype(np.float64), level.truth[: len(images)].tolist(), strict=True):
        cosine = exact @ image
        if lean:
            cosine[own] = -np.inf
            found.append([level.labels[place] for place in np.argsort(-cosine, kind="stable")[:3]])
        else:
            pairs = zip((-cosine).tolist(), level.labels, strict=True)
            wrong = sorted(pair for place, pair in enumerate(pairs) if place != own)
            found.append([name for _, name in wrong[:3]])
    return found


def main(given: argparse.Namespace, folder: Path) -> None:
    taxonomy = tree(given.labels)
    images = pictures(taxonomy, given.images)
    scored = [level for level in levels(taxonomy, images["leaf"].to_pylist()) if level.number > 1]
    vectors = unit(given.images, given.width)
    texts = {level.number: unit(len(level.labels), given.width, centre=0.8) for level in scored}
    taken = {
        name: row for level in scored for name, row in zip(level.labels, texts[level.number], strict=True)
    }
    write(folder, taxonomy, images, vectors, taken | {"root": texts[2][0]})

    def bare(kind: type) -> float:
        """Products of the same blocks, and nothing else."""
        took = 0.0
        for level in scored:
            labels = texts[level.number].astype(kind).T
            for start in range(0, given.images, _ROWS):
                block = vectors[start : start + _ROWS].astype(kind)
                took += seconds(lambda block=block, labels=labels: block @ labels)
        return took

    def ours() -> dict[int, Chosen]:
        return {level.number: nearest_wrong(vectors, texts[level.number], level.truth) for level in scored}

    bare32, mining, chosen = [], [], {}
    for _ in range(ROUNDS):  # in turn, so that a busy minute hits both
        bare32.append(bare(np.float32))
        mining.append(seconds(lambda: chosen.update(ours())))
    bare64 = bare(np.float64)

    some = slice(0, given.slice)
    fast = [
        [[x.labels[place] for place in row] for row in chosen[x.number].labels[some].tolist()] for x in scored
    ]
    loop = {}
    for lean in (False, True):
        start = time.perf_counter()
        slow = [looped(vectors[some], texts[x.number], x, lean) for x in scored]
        loop[lean] = time.perf_counter() - start
        if slow != fast:
            sys.exit("mining and the definition differ")

    code = (
        "from vltaxon.distractors.mining import mine; from vltaxon.tasks.questions import MineTask; "
        "from pathlib import Path as P; "
        f"f = P({str(folder)!r}); names = ('taxa', 'images', 'image_vectors', 'taxon_vectors'); "
        "files = {n: f / (n + '.parquet') for n in names}; "
        f"words = dict(encoder='e', template='{{}}', scored_levels={[level.number for level in scored]}, seed=0); "
        "mine(MineTask(**files, **words, questions=f / 'q.parquet'))"
    )
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    whole = time.perf_counter() - start
    if status != 0:
        sys.exit("mine failed")

    many = pictures(taxonomy, given.questions)

    def similar(level: Level) -> Chosen:
        wrong = min(3, len(level.labels) - 1)
        labels = (level.truth[:, None] + np.arange(1, 1 + wrong)) % len(level.labels)
        return Chosen(labels, RNG.random((len(labels), 1 + wrong), dtype=np.float32))

    asked = pl.DataFrame(many)
    made = [(level, similar(level)) for level in levels(taxonomy, asked["leaf"])]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    numbers = [level.number for level in scored]
    building = seconds(
        lambda: write_frame(
            assemble(asked, made, numbers, 0, "mined", "e", "{}"), folder / "q.parquet", schemas.QUESTIONS
        )
    )

    def row(what: str, one: float, other: float, bound: str, unit: str = "s") -> dict[str, object]:
        return {
            "measure": what,
            "vltaxon": one,
            "reference": other,
            "ratio": one / other,
            "wanted": bound,
            "unit": unit,
        }

    median, scale = statistics.median(mining), given.images / given.slice
    size = f"{given.images} images x {sum(given.labels)} labels"
    table = [
        row(f"mining, {size} / bare float32 products", median, statistics.median(bare32), "<= 1.5"),
        row("the same / bare float64 products, which need no second look", median, bare64, ""),
        row(f"the same / a loop over images (from {given.slice})", median, loop[False] * scale, "<= 0.05"),
        row("the same / a loop over images, sorted by numpy", median, loop[True] * scale, ""),
        row(
            "peak memory of the job, Parquet to Parquet / 2 GiB", usage.ru_maxrss / 2**20, 2.0, "<= 1", "GiB"
        ),
        row("the job, questions included / bare float32 products", whole, statistics.median(bare32), ""),
        row(
            f"{given.questions} images x {len(made)} levels, similarities to Parquet, one core / 20 s",
            building,
            20.0,
            "<= 1",
        ),
    ]
    print(tabulate(table, headers="keys", floatfmt=".3f"))
    target = Path("results/benchmarks/mining.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    facts = vars(given) | {
        "cores": os.cpu_count(),
        "omp_num_threads": threads,
        "all": {"bare": bare32, "mining": mining},
    }
    target.write_text(json.dumps(facts | {"rows": table}, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=53_880)
    parser.add_argument("--width", type=int, default=1152)
    parser.add_argument(
        "--labels", type=int, nargs="+", default=[6, 27, 152, 715, 2988, 5388], help="of the scored levels"
    )
    parser.add_argument("--questions", type=int, default=96_590, help="images that questions are built for")
    parser.add_argument("--slice", type=int, default=300, help="images that the loop sees")
    with tempfile.TemporaryDirectory() as temporary:
        main(parser.parse_args(), Path(temporary))
