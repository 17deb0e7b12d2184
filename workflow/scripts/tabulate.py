"""Writes the table of a scope."""

from vltaxon.logs import job
from vltaxon.tasks.scoring import TabulateTask

if __name__ == "__main__":
    with job(snakemake):
        TabulateTask.of(snakemake).run()
