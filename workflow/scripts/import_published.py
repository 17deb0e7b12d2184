"""Imports the benchmark's questions."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.distractors.published import import_published

        names = ("annotations", "taxa", "images", "rejected")
        files = {name: Path(snakemake.input[name]) for name in names}
        files |= {name: next(map(Path, snakemake.input.get(name, [])), None) for name in ("index", "taxonomy")}
        written = {name: Path(snakemake.output[name]) for name in ("questions", "records")}
        import_published(**files, **snakemake.params["values"], **written)
