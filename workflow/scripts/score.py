"""Scores all predictions."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.metrics.run import Sources, score

        sources = Sources.of(snakemake.params.sources)
        score(sources, snakemake.params.bootstrap, snakemake.params.seed, *map(Path, snakemake.output))
