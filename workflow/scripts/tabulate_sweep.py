"""Writes the table of the sweeps."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.report.sweeps import tabulate_sweep

        tabulate_sweep(Path(snakemake.input.scores), snakemake.params.sweeps, *map(Path, snakemake.output))
