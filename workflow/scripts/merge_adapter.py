"""Merges an adapter into its base model."""

from vltaxon.logs import job
from vltaxon.tasks.training import MergeTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.checkpoint import merge

        task = MergeTask.of(snakemake)
        merge(task.model, task.adapter.parent, task.merged)
