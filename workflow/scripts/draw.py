"""Draws the random distractors."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.questions import draw

        taxa, images = Path(snakemake.input.taxa), Path(snakemake.input.images)
        draw(taxa, images, **snakemake.params["values"], questions=Path(snakemake.output[0]))
