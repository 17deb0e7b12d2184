"""Reads the benchmark's taxonomy file of a data set."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.data.taxa import load_taxonomy

        load_taxonomy(Path(snakemake.input[0]), tuple(snakemake.params.ranks), Path(snakemake.output[0]))
