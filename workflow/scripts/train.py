"""Trains one step of a recipe."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0], snakemake.threads, snakemake.resources.gpu):
        from vltaxon.config import Prompt, Step, Vlm
        from vltaxon.train.run import train_step

        values, output = snakemake.params.training, Path(snakemake.output.adapter).parent
        train_step(
            Step.model_validate(values["step"] | {"device_batch_size": snakemake.resources.device_batch_size}),
            Vlm.model_validate(snakemake.params.model | {"gpus": max(1, snakemake.resources.gpu)}),
            next((Path(path).parent for path in snakemake.input.previous), None),
            **{name: Path(snakemake.input[name]) for name in ("images", "taxa", "questions", "parts")},
            prompts={name: Prompt.model_validate(prompt) for name, prompt in values["prompts"].items()},
            wording=values["wording"],
            word=values["word"],
            output=output,
            state=Path("results/.state/train") / output.relative_to("results/adapters"),
            seed=snakemake.params.seed,
            own=next(map(Path, snakemake.input.own), None),
        )
