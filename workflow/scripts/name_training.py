"""Names the training images of a part, for the samples of the next step."""

from vltaxon.logs import job
from vltaxon.tasks.training import NameTrainingTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.inference.run import name_training

        name_training(NameTrainingTask.of(snakemake))
