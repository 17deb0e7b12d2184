"""Reads a data set's taxa and images."""

from vltaxon.logs import job
from vltaxon.tasks.data import IngestTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.data.ingest import ingest

        ingest(IngestTask.of(snakemake))
