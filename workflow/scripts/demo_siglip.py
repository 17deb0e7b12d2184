"""Trains the tiny dual encoder."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.threads):
        from vltaxon.demo.tiny_siglip import train

        train(Path(snakemake.output.config).parent)
