"""Draws the random distractors."""

from vltaxon.logs import job
from vltaxon.tasks.questions import DrawTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.questions import draw
        from vltaxon.scored import demand_scored

        task = DrawTask.of(snakemake)
        draw(task)
        demand_scored(task.questions)
