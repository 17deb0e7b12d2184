"""Writes questions in the benchmark's format."""

from vltaxon.logs import job
from vltaxon.tasks.questions import ExportTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.exchange.export import export_questions

        export_questions(ExportTask.of(snakemake))
