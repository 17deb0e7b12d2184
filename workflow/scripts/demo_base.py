"""Pre-trains the tiny vision-language model."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.demo.tiny_vlm import pretrain

        pretrain(Path(snakemake.output[0]).parent)
