"""Pre-trains the tiny vision-language model."""

from vltaxon.logs import job
from vltaxon.tasks.data import DemoBaseTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.demo.tiny_vlm import pretrain

        pretrain(DemoBaseTask.of(snakemake).weights.parent)
