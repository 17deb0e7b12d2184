"""Stage 2 of a shard of images."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.inference.leaves import listed
        from vltaxon.inference.run import Around, answer_questions

        answer_questions(
            snakemake.params["values"],
            images=Path(snakemake.input.images),
            questions=Path(snakemake.input.questions),
            output=Path(snakemake.output[0]),
            shard=int(snakemake.wildcards.shard),
            batch_size=snakemake.resources.batch_size,
            adapter=next((Path(path).parent for path in snakemake.input.get("adapter", [])), None),
            leaves=listed(snakemake.input.get("leaves", [])),
            taxa=Path(snakemake.input.taxa) if "taxa" in snakemake.input.keys() else None,  # noqa: SIM118
            vectors=[Path(path) for path in snakemake.input.get("vectors", [])],
            gpus=snakemake.resources.gpu,
            around=Around(
                Path(snakemake.log[0]),
                Path(snakemake.resources.settings),
                next(map(Path, snakemake.input.get("merged", [])), None),
            ),
        )
