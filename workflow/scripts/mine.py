"""Mines the similar distractors."""

from vltaxon.logs import job
from vltaxon.tasks.questions import MineTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.distractors.mining import mine
        from vltaxon.scored import demand_scored

        task = MineTask.of(snakemake)
        mine(task)
        demand_scored(task.questions)
