"""Writers that are killed, writers that are two, disks that are full, and bytes that have changed."""

import errno
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.disk import on_small_disk
from vltaxon import provenance, schemas
from vltaxon.errors import UserError

WRITE = """
import os, sys, time
from pathlib import Path
from vltaxon.provenance import atomic, whole_folder
with (whole_folder if sys.argv[2] == "folder" else atomic)(Path(sys.argv[1])) as part:
    (part / "a" if part.is_dir() else part).write_text(sys.argv[3])
    Path(f"{part}.wal").write_text("beside it")
    print("writing", flush=True)
    sys.stdin.readline()
"""


def start(target: Path, kind: str, text: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(target), kind, text],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_is_cleared_by_the_next(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "made"
    killed = start(target, kind, "killed")
    killed.kill()
    killed.wait()
    left = [path.name for path in tmp_path.iterdir()]
    assert left == [".made.part"], "it had no time to clear anything"
    start(target, kind, "whole").communicate("\n")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert (target / "a" if kind == "folder" else target).read_text() == "whole"


def test_of_two_writers_of_a_file_neither_spoils_the_other(tmp_path: Path) -> None:
    target = tmp_path / "made"
    first, second = start(target, "file", "first"), start(target, "file", "second")
    first.communicate("\n")
    assert target.read_text() == "first"
    second.communicate("\n")
    assert target.read_text() == "second" and [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_part_of_an_earlier_version_is_in_nobody_s_way(tmp_path: Path) -> None:
    (tmp_path / ".made.part").write_text("half")
    provenance.write_text(tmp_path / "made", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


FULL = """
import sys
from pathlib import Path
from vltaxon import provenance
from vltaxon.errors import UserError
Path("other").write_bytes(bytes(900_000))
try:
    if sys.argv[1] == "parquet":
        import numpy as np, pyarrow as pa
        table = pa.table({"a": np.random.default_rng(0).random(1 << 17)})
        provenance.write_parquet(table, "deep/made", table.schema)
    elif sys.argv[1] == "tensors":
        import torch
        with provenance.whole_folder(Path("deep/made")) as part:
            torch.save(torch.zeros(1 << 18), part / "a.pt")
    elif sys.argv[1] == "database":
        import duckdb
        with provenance.atomic("deep/made") as part, duckdb.connect(str(part)) as connection:
            connection.execute("CREATE TABLE a AS SELECT random() FROM range(1000000)")
    else:
        provenance.write_text(Path("deep/made"), "a" * 1_000_000)
except UserError as error:
    print("error:", error, [str(path) for path in Path("deep").iterdir()])
"""


@pytest.mark.parametrize("what", ["text", "parquet", "database", "tensors"])
def test_a_full_disk_is_said_with_the_file_and_what_is_free(tmp_path: Path, what: str) -> None:
    status, said = on_small_disk(tmp_path / "small", FULL, what)
    assert status == 0, said
    assert "error: deep/made: could not be written" in said and "MB are free in" in said
    assert "Make room, then run the workflow again []" in said, "nothing is left there"
    assert what == "tensors" or "No space left on device" in said


def test_a_limit_of_file_sizes_is_said_like_a_full_disk(tmp_path: Path) -> None:
    """For all who may make no small disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(UserError, match=r"made: could not be written, after 0\.1 MB: File too large"):
            provenance.write_text(tmp_path / "made", "a" * 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_words_of_a_full_disk_count_and_those_of_a_server_do_not(tmp_path: Path) -> None:
    """A server says "File too large", too; libraries pass on the other words without their number."""
    assert provenance.exhausted(RuntimeError("HTTP 413: File too large"), tmp_path / "x") is None
    for code in (errno.ENOSPC, errno.EDQUOT):
        said = provenance.exhausted(RuntimeError(f"write: {os.strerror(code)}"), tmp_path / "x")
        assert (said or "").startswith(os.strerror(code))
    said = provenance.exhausted(OSError(errno.EFBIG, "no matter"), tmp_path / "x")
    assert (said or "").startswith("File too large")


LOGGED = """
import sys
from vltaxon.logs import logged
with logged(sys.argv[1], 1):
    print("much")
    sys.stdout.flush()
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no device that is always full")
def test_a_log_without_room_is_said_on_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    log.symlink_to("/dev/full")
    done = subprocess.run([sys.executable, "-c", LOGGED, log], capture_output=True, text=True, check=False)
    assert done.returncode and "Traceback" not in done.stderr
    assert f"perhaps its log {log}, could not be written: No space left on device" in done.stderr


def test_no_flipped_bit_of_a_table_becomes_a_value(tmp_path: Path) -> None:
    """Without checksums most of them did."""
    path = tmp_path / "made.parquet"
    rng = random.Random(0)
    names = [f"{rng.random()} is a leaf" for _ in range(20_000)]
    table = pa.table({"leaf": names, "part": ["sft"] * 20_000, "seed": range(20_000)}, schema=schemas.PARTS)
    provenance.write_parquet(table, path, schemas.PARTS, rule="partition")
    data = path.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    refused = 0
    for _ in range(40):
        damaged, at = bytearray(data), rng.randrange(len(data) - footer)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert provenance.read_parquet(path, schemas.PARTS).equals(table)
        except UserError as error:
            assert f"{path}: is damaged (" in str(error) and "delete it and run the workflow again" in str(
                error
            )
            refused += 1
            with pytest.raises(UserError, match="is damaged"):
                provenance.verify([path])
    assert refused >= 38
    for cut in (0, 3, len(data) // 2, len(data) - 5):
        path.write_bytes(data[:cut])
        for read in (
            provenance.read_parquet,
            provenance.facts,
            lambda p: list(provenance.parquet_batches(p)),
        ):
            with pytest.raises(UserError, match=r"is damaged .*; delete it and run the workflow again"):
                read(path)


def test_tables_of_earlier_versions_without_checksums_are_read(tmp_path: Path) -> None:
    table = pa.table({"leaf": ["a"], "part": ["sft"], "seed": [0]}, schema=schemas.PARTS)
    pq.write_table(table, tmp_path / "old.parquet", write_page_checksum=False)
    assert provenance.read_parquet(tmp_path / "old.parquet", schemas.PARTS).equals(table)


SCORE = """
import signal, sys
from pathlib import Path
from tests.data.builder import realistic, score_task
from vltaxon.metrics import score
bench = realistic(Path("."), images_per_leaf=1)
task = score_task(bench.sources(), 20, 0, Path("results/metrics/scores.parquet"), Path("results/benchmark.duckdb"))
if sys.argv[1] == "killed":
    import os
    score._images = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # in the middle of it
score.score(task)
"""


def test_a_score_job_that_was_killed_is_in_nobody_s_way(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}:{root / 'src'}"}

    def run(how: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", SCORE, how], cwd=tmp_path, env=environment, check=False
        ).returncode

    assert run("killed") == -signal.SIGKILL
    assert (tmp_path / "results/.benchmark.duckdb.part").exists()
    assert run("whole") == 0
    assert not (tmp_path / "results/.benchmark.duckdb.part").exists()
