"""Draws the random distractors."""

from vltaxon.logs import job
from vltaxon.tasks.questions import DrawTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.questions import draw

        draw(DrawTask.of(snakemake))
