"""Stage 1 of training images."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.inference.run import name_training
        from vltaxon.tasks.asking import NameTrainingTask

        name_training(
            NameTrainingTask(
                **snakemake.params["values"],
                images=Path(snakemake.input.images),
                parts=Path(snakemake.input.parts),
                adapter=next((Path(path) for path in snakemake.input.previous), None),
                batch_size=snakemake.resources.batch_size,
                gpu=snakemake.resources.gpu,
                log=Path(snakemake.log[0]),
                predictions=Path(snakemake.output[0]),
            )
        )
