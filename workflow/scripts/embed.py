"""Embeds a data set's images and taxa."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.config import Clip
        from vltaxon.distractors.embedding import embed

        spec = Clip.model_validate(snakemake.params.encoder | {"batch_size": snakemake.resources.batch_size})
        images, taxa = Path(snakemake.input.images), Path(snakemake.input.taxa)
        embed(spec, images, taxa, Path(snakemake.output.images), Path(snakemake.output.taxa), snakemake.threads)
