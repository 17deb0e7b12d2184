"""Draws the figures."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.report.figures import plot

        curves = {name: Path(path) for name, path in snakemake.params.curves.items()}
        folder = Path(snakemake.output.png[0]).parent
        plot(Path(snakemake.input.scores), curves, snakemake.params.labels, snakemake.params.ranks, folder)
