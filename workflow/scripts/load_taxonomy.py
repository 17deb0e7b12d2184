"""Reads the benchmark's taxonomy file of a data set."""

from vltaxon.logs import job
from vltaxon.tasks.questions import LoadTaxonomyTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.data.taxa import load_taxonomy

        task = LoadTaxonomyTask.of(snakemake)
        load_taxonomy(task.hierarchy, task.ranks, task.taxa)
