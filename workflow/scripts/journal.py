"""Tells what the journal holds, on the terminal and in a log."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    from vltaxon.inference.journal import statistics

    said = statistics(Path("results/.state/journal"), Path("results/predictions"))
    Path(snakemake.log[0]).write_text(said + "\n", encoding="utf-8")
    print(said)
