"""Trains the tiny dual encoder."""

from vltaxon.logs import job
from vltaxon.tasks.data import DemoSiglipTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.demo.tiny_siglip import train

        train(DemoSiglipTask.of(snakemake).config.parent)
