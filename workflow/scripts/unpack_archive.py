"""Unpacks an archive and indexes its members."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.threads):
        from vltaxon.data.archives import unpack
        from vltaxon.data.download import demand_unchanged

        demand_unchanged(Path(snakemake.input[0]))
        unpack(Path(snakemake.input[0]), Path(snakemake.output.tar), Path(snakemake.output.index))
