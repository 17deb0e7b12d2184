"""Writes the table of the repeats."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.report.repeats import tabulate_repeats

        tabulate_repeats(snakemake.params.repeats, *map(Path, snakemake.output))
