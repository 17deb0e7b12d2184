"""Scores the predictions of a scope."""

from vltaxon.logs import job
from vltaxon.tasks.scoring import ScoreTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.metrics.score import score

        score(ScoreTask.of(snakemake))
