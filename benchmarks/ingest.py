"""Unpacking, reading and ingesting an archive in the layout of iNat21, against tar and plain files, all in
one run.

Run by hand: `python benchmarks/ingest.py [GB] [FOLDER]`: 2 GB and a temporary folder where not given, and
four times the room. Prints a table and writes results/benchmarks/ingest.json.
"""

import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from tabulate import tabulate

from vltaxon.config.datasets import Dataset, Split
from vltaxon.data.archives import located
from vltaxon.data.images import ImageStore, decode

ROUNDS = 3
READS = 4000
RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")


def pictures(count: int) -> list[bytes]:
    """JPEGs of 500 x 375 pixels and about 80 kB, as those of iNat21."""
    made, rng = [], np.random.default_rng(0)
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (94, 125, 3), dtype=np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        noise = rng.normal(0, 12, (375, 500, 3))
        buffer = io.BytesIO()
        Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).save(
            buffer, "JPEG", quality=86
        )
        made.append(buffer.getvalue())
    return made


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def generate(folder: Path, size: int) -> Dataset:
    """Write val.tar.gz of about `size` bytes and val.json.tar.gz: 10 images of each species, each image
    another file.
    """
    some, images, categories, labels, written = pictures(200), [], [], [], 0
    with tarfile.open(folder / "val.tar.gz", "w:gz", compresslevel=6, format=tarfile.USTAR_FORMAT) as tar:
        while written < size:
            number, place = len(images), len(images) // 10
            names = dict(
                zip(
                    RANKS,
                    ("Plantae", "P", "C", "O", "F", f"G{place // 5}", f"G{place // 5} s{place}"),
                    strict=True,
                )
            )
            if number % 10 == 0:
                categories.append({**names, "id": place, "name": names["species"]})
            plain = some[number % len(some)]
            content = (
                plain[:2] + b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big") + plain[2:]
            )  # a JPEG comment
            name = f"val/{place:05d}_{'_'.join(names.values()).replace(' ', '_')}/{number:08d}.jpg"
            add(tar, name, content)
            images.append({"id": number, "file_name": name})
            labels.append({"id": number, "image_id": number, "category_id": place})
            written += len(content) + 512
    document = json.dumps({"images": images, "categories": categories, "annotations": labels}).encode()
    with tarfile.open(folder / "val.json.tar.gz", "w:gz") as tar:
        add(tar, "val.json", document)
    split = Split(archive=folder / "val.tar.gz", annotations=folder / "val.json.tar.gz")
    words = {"word": "plant", "questions": "inat21", "licence": "-", "ranks": RANKS, "scored_levels": (2, 7)}
    return Dataset(source="inat21", test=split, **words)


def timed(command: list[str]) -> tuple[float, int]:
    """Seconds of wall time and peak resident bytes of a command; pending writes of the one before are out
    of its way.
    """
    os.sync()
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"failed: {' '.join(command)}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def seconds(read: Callable[[str], bytes], names: Iterable[str]) -> float:
    start = time.perf_counter()
    for name in names:
        read(name)
    return time.perf_counter() - start


def chill(paths: Iterable[Path]) -> None:
    """Drop files from the page cache."""
    os.sync()
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main(size: float, folder: Path) -> None:
    dataset = generate(folder, int(size * 1e9))
    raw, out, files = folder / "val.tar.gz", folder / "store", folder / "files"
    unpack = f"from vltaxon.data.archives import unpack; from pathlib import Path as P; unpack(P({str(raw)!r}), *map(P, %r))"
    ingest = (
        "from vltaxon.config.datasets import Dataset; from vltaxon.data.ingest import ingest; "
        "from vltaxon.tasks.data import IngestTask; from pathlib import Path as P; "
        f"d = Dataset.model_validate_json({dataset.model_dump_json()!r}); o = P({str(out)!r}); "
        "written = {n: o / f'{n}.parquet' for n in ('taxa', 'images', 'rejected')}; "
        "ingest(IngestTask(dataset=d.raw, seed=0, archives=o, tars=(), indexes=(), tables=(), **written))"
    )
    ours, theirs = [], []
    for _ in range(ROUNDS):  # in turn, so that a busy minute hits both
        for place in (out, files):
            subprocess.run(["rm", "-rf", place], check=True)
            place.mkdir()
        theirs.append(timed(["tar", "xzf", str(raw), "-C", str(files)])[0])
        ours.append(timed(python(unpack % [str(out / "val.tar"), str(out / "val.parquet")])))
    made = sorted(path.name for path in out.iterdir())
    unpacking, peak = statistics.median(took for took, _ in ours), max(used for _, used in ours)
    ingesting, ingest_peak = timed(python(ingest))
    store = ImageStore(out / "images.parquet")
    members = located(dataset, out)["test"].members["member"].to_list()
    names = random.Random(0).sample(members, min(READS, len(members)))
    ids = {name: f"inat21/val/{Path(name).stem}" for name in names}
    for name in names:
        assert store.read(ids[name]) == (files / name).read_bytes()
    reads: dict[str, list[tuple[float, float]]] = {"warm": [], "cold": []}
    for kind, found in reads.items():
        for _ in range(ROUNDS):
            if kind == "cold":
                chill([out / "val.tar", *(files / name for name in names)])
            plain = seconds(lambda name: (files / name).read_bytes(), names)
            found.append((seconds(lambda name: store.read(ids[name]), names), plain))
    start = time.perf_counter()
    for name in names:
        decode(store.read(ids[name]))
    bare = (time.perf_counter() - start) / len(names) * len(members)

    def row(what: str, one: float, other: float, unit: str = "s") -> dict[str, object]:
        return {"measure": what, "vltaxon": one, "reference": other, "ratio": one / other, "unit": unit}

    table = [
        row("unpack and index / tar xzf", unpacking, statistics.median(theirs)),
        row("peak memory of unpack / 1 GiB", peak / 2**30, 1.0, "GiB"),
        row(
            "new data files beside the index / 1",
            len([name for name in made if not name.endswith(".parquet")]),
            1,
            "files",
        ),
        *(
            row(
                f"{len(names)} random reads, {kind} / of extracted files",
                *(statistics.median(x) for x in zip(*found, strict=True)),
            )
            for kind, found in reads.items()
        ),
        row("ingest, one thread / bare decoding of as many images", ingesting, bare),
        row("peak memory of ingest / 1 GiB", ingest_peak / 2**30, 1.0, "GiB"),
    ]
    print(tabulate(table, headers="keys", floatfmt=".3f"))
    target = Path("results/benchmarks/ingest.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "archive_bytes": raw.stat().st_size,
        "images": len(members),
        "cores": os.cpu_count(),
        "rows": table,
    }
    target.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(
            float(sys.argv[1]) if len(sys.argv) > 1 else 2.0,
            Path(sys.argv[2] if len(sys.argv) > 2 else temporary),
        )
