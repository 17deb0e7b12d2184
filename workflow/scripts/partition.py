"""Parts the species for training."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.config import Partition
        from vltaxon.partition import partition

        parts = Partition.model_validate(snakemake.params.partition)
        taxa, images = Path(snakemake.input.taxa), Path(snakemake.input.images)
        partition(taxa, images, parts, snakemake.params.seed, Path(snakemake.output[0]))
