"""Parts the species for training."""

from vltaxon.logs import job
from vltaxon.tasks.questions import PartitionTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.partition import partition

        partition(PartitionTask.of(snakemake))
