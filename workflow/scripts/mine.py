"""Mines the similar distractors."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.distractors.mining import mine

        names = ("taxa", "images", "image_vectors", "taxon_vectors")
        files = {name: Path(snakemake.input[name]) for name in names}
        mine(**files, **snakemake.params["values"], questions=Path(snakemake.output[0]))
