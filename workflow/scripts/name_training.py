"""Stage 1 of training images."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.inference.run import Around, name_training

        name_training(
            snakemake.params["values"],
            images=Path(snakemake.input.images),
            parts=Path(snakemake.input.parts),
            adapter=next((Path(path).parent for path in snakemake.input.previous), None),
            batch_size=snakemake.resources.batch_size,
            output=Path(snakemake.output[0]),
            gpus=snakemake.resources.gpu,
            around=Around(Path(snakemake.log[0])),
        )
