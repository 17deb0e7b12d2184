"""Downloads a raw file, or links to a local copy of it, and verifies it."""

from vltaxon.logs import job
from vltaxon.tasks.data import DownloadTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.data.download import download

        download(DownloadTask.of(snakemake))
