"""Downloads a raw file, or links to a local copy of it, and verifies it."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.threads):
        from vltaxon.config import RawFile
        from vltaxon.data.download import download

        given, target = snakemake.resources, Path(snakemake.output[0])
        source = {"url" if given.source.startswith(("http://", "https://")) else "path": given.source}
        file = RawFile(source=source, **snakemake.params.checksums, bytes=given.size or None, file=target.name)
        unpacked = Path("results/data/archives") if given.unpacked else None
        download(file, target, Path("results/.state/downloads"), given.licence, unpacked)
