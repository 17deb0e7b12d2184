"""Names the leaves of a shard of images: stage 1."""

from vltaxon.logs import job
from vltaxon.tasks.prediction import PredictLeafTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.inference.run import predict_leaf

        predict_leaf(PredictLeafTask.of(snakemake))
