"""Reads a data set's taxa and images."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.threads):
        from vltaxon.config import Dataset
        from vltaxon.data.archives import located
        from vltaxon.data.download import demand_unchanged
        from vltaxon.data.ingest import ingest

        dataset = Dataset.model_validate(snakemake.params.dataset)
        archives = located(dataset, Path("results/data/archives"))
        for table in snakemake.input.tables:
            demand_unchanged(Path(table))
        taxa, images, rejected = map(Path, snakemake.output)
        ingest(dataset, archives, snakemake.params.seed, taxa, images, rejected, snakemake.threads)
