"""Stage 1 of a shard of images."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.inference.run import Around, predict_leaf

        predict_leaf(
            snakemake.params["values"],
            images=Path(snakemake.input.images),
            adapter=next((Path(path).parent for path in snakemake.input.adapter), None),
            shard=int(snakemake.wildcards.shard),
            batch_size=snakemake.resources.batch_size,
            output=Path(snakemake.output[0]),
            taxa=Path(snakemake.input.taxa) if "taxa" in snakemake.input.keys() else None,  # noqa: SIM118
            gpus=snakemake.resources.gpu,
            around=Around(
                Path(snakemake.log[0]),
                Path(snakemake.resources.settings),
                next(map(Path, snakemake.input.get("merged", [])), None),
            ),
        )
