"""Trains one step of a recipe."""

from vltaxon.logs import job
from vltaxon.tasks.training import TrainTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.train.launch import train

        train(TrainTask.of(snakemake))
