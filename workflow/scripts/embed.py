"""Embeds a data set's images and taxa."""

from vltaxon.logs import job
from vltaxon.tasks.questions import EmbedTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.encoders.embedding import embed

        embed(EmbedTask.of(snakemake))
