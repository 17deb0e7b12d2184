"""Imports the benchmark's questions."""

from vltaxon.logs import job
from vltaxon.tasks.questions import ImportTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.exchange.import_published import import_published
        from vltaxon.scored import demand_scored

        task = ImportTask.of(snakemake)
        import_published(task)
        demand_scored(task.questions)
