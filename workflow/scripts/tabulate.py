"""Writes the main table."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.report.tables import tabulate

        tabulate(Path(snakemake.input.scores), snakemake.params.labels, *map(Path, snakemake.output))
