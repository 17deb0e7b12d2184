"""Lists the shards of stage 1 for those of stage 2."""

from vltaxon.logs import job
from vltaxon.tasks.prediction import ListLeavesTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.inference.leaves import list_leaves

        list_leaves(ListLeavesTask.of(snakemake))
