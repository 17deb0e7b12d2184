"""What every job does first and last: log to its file, keep to its threads, report a user's mistake.

A mistake is reported in one line, without a traceback.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vltaxon.devices import lease
from vltaxon.errors import UserError
from vltaxon.provenance import exhausted

# Libraries read these when they are imported: OpenMP (torch, pyarrow), BLAS (numpy), numexpr, tokenizers and
# polars. DuckDB is told its threads where it is opened.
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
)


@contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Run a script's work with the log, the threads and the devices (`resources: gpu=...`) of its rule."""
    with logged(snakemake.log[0], snakemake.threads, snakemake.resources.get("gpu", 0)):
        yield


def tell(snakemake: Any, text: str) -> None:
    """Print what a rule without results was asked for, and keep it in its log.

    Args:
        snakemake: the object of a script.
        text: what to print.
    """
    Path(snakemake.log[0]).write_text(text, encoding="utf-8")
    print(text)


@contextmanager
def logged(log: Path | str, threads: int, gpus: int = 0) -> Iterator[None]:
    """Run a block on its own devices, with both output streams in a log and no input.

    Output of C code and of children is in the log, too: Snakemake leaves the log of a `script:` empty (a
    `print` goes to the terminal), so the file descriptors are moved. Thread counts are set before torch is
    imported, or four jobs on two cores would start sixteen threads. A `UserError` ends the process with exit
    status 1 and one line in the log, and so does a full disk.

    Args:
        log: file to write.
        threads: CPU cores that the block may use.
        gpus: devices that it needs.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    terminal = os.dup(2)
    os.dup2(file, 1)
    os.dup2(file, 2)
    with open(os.devnull, "rb") as nothing:  # nobody is there to answer what a library may ask
        os.dup2(nothing.fileno(), 0)
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        with lease(gpus):
            yield
        sys.stdout.flush()
    except UserError as error:
        _say(f"error: {error}", terminal)
        sys.exit(1)
    except Exception as error:
        if (words := exhausted(error, Path(log))) is None:
            raise
        _say(f"error: a file of this job, perhaps its log {log}, could not be written: {words}", terminal)
        sys.exit(1)


def _say(text: str, terminal: int) -> None:
    """Write a line into the log, or on the terminal where the log has no room for it."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        os.write(terminal, f"{text}\n".encode())
