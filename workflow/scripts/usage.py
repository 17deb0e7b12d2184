"""Tells what the jobs took, on the terminal and in a log."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    from vltaxon.report.usage import told, usage

    said = told(usage(Path("results/benchmarks")))
    Path(snakemake.log[0]).write_text(said, encoding="utf-8")
    print(said)
