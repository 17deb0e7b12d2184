"""Draws the synthetic clades into raw archives."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.threads):
        from vltaxon.demo.archives import write_archives

        write_archives(Path(snakemake.output.cub).parent, **snakemake.params.sizes, seed=snakemake.params.seed)
