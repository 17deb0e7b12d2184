"""Unpacks an archive and indexes its members."""

from vltaxon.logs import job
from vltaxon.tasks.data import UnpackTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.data.archives import unpack_archive

        unpack_archive(UnpackTask.of(snakemake))
