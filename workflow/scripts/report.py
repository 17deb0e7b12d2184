"""Writes the report page."""

from vltaxon.logs import job
from vltaxon.tasks.scoring import ReportTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.report.page import write_report

        write_report(ReportTask.of(snakemake))
