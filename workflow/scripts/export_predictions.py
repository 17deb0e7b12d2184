"""Writes answers in the benchmark's format."""

from vltaxon.logs import job
from vltaxon.tasks.questions import ExportAnswersTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.exchange.export import export_predictions

        export_predictions(ExportAnswersTask.of(snakemake))
