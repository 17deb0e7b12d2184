"""Trains one step of a recipe."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.train.launch import Task, train

        values, given = snakemake.params.training, snakemake.resources
        output = Path(snakemake.output.adapter).parent
        task = Task(
            step=values["step"] | {key: given[key] for key in ("device_batch_size", "checkpoint_minutes")},
            model=snakemake.params.model | {"gpus": max(1, given.gpu // given.processes)},
            previous=next((Path(path).parent for path in snakemake.input.previous), None),
            **{name: snakemake.input[name] for name in ("images", "taxa", "questions", "parts")},
            **{name: values[name] for name in ("prompts", "wording", "word")},
            output=output,
            state=Path("results/.state/train") / output.relative_to("results/adapters"),
            seed=snakemake.params.seed,
            own=next(iter(snakemake.input.own), None),
        )
        train(task, given.processes, Path("config/accelerate") / f"{given.distributed}.yaml")
