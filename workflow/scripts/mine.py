"""Mines the similar distractors."""

from vltaxon.logs import job
from vltaxon.tasks.questions import MineTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.distractors.mining import mine

        mine(MineTask.of(snakemake))
