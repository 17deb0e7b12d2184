"""The rule `download` in Snakemake: over a bad line, then from a local copy, then with another checksum."""

import hashlib
import os
import random
from pathlib import Path
from typing import Any

import yaml

from tests.data.server import bent, serving
from tests.workflow.conftest import Run

CONTENT = random.Random(0).randbytes(200_000)
TARGET = "results/raw/birds.tgz"
SIGNATURE = "X-Amz-Signature=abc0123456789&X-Amz-Expires=60"
LICENCE = """non-commercial; "third-party" photos, see the authors' page"""


def name(run: Run, source: dict[str, str], **more: Any) -> None:
    """Give the archive of demo_birds a source."""
    path = run.folder / "config" / "datasets" / "demo_birds.yaml"
    archive = {"source": source, "md5": hashlib.md5(CONTENT).hexdigest(), "file": "birds.tgz"} | more
    dataset = yaml.safe_load(path.read_text()) | {
        "licence": LICENCE,
        "test": {"archive": archive, "images_per_leaf": 1},
    }
    path.write_text(yaml.safe_dump(dataset))


def test_a_source_in_the_config_becomes_a_verified_file_and_a_move_repeats_nothing(tmp_path: Path) -> None:
    run, copy = Run(tmp_path), tmp_path / "mine.tgz"
    with serving(CONTENT, [bent(stop=100_000)]) as served:
        name(run, {"url": f"{served.url()}?{SIGNATURE}"})
        status, said = run.snakemake("--cores", "1", "--verbose", TARGET)
    assert status == 0 and f"from {served.url()}?*** (licence: {LICENCE})" in said, said
    written = [path for path in run.folder.rglob("*") if path.is_file() and path.parts[-2] != "datasets"]
    assert (
        "0123456789" not in said and (run.folder / "results/benchmarks/download/birds.tgz.jsonl") in written
    )
    assert [path for path in written if SIGNATURE.encode() in path.read_bytes()] == []
    assert (run.folder / TARGET).read_bytes() == CONTENT
    assert [one.get("Range") for one in served.asked] == [None, "bytes=100000-"]
    log = (run.folder / "results/logs/download/birds.tgz.log").read_text()
    assert f"licence: {LICENCE}" in log and "the unpacked tar, about 220kB" in log

    name(run, {"path": str(copy)})
    status, said = run.snakemake("--cores", "1", TARGET)
    assert status == 0 and "Nothing to be done" in said, said

    (run.folder / TARGET).unlink()
    copy.write_bytes(CONTENT)
    status, said = run.snakemake("--cores", "1", TARGET)
    assert status == 0 and os.readlink(run.folder / TARGET) == str(copy), said

    name(run, {"path": str(copy)}, md5="0" * 32)
    status, said = run.snakemake("--cores", "1", TARGET)
    assert status != 0 and f"error: {copy}: not the file that the data set names: its md5 is" in said, said
    assert not (run.folder / TARGET).is_symlink() and copy.read_bytes() == CONTENT
