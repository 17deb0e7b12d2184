"""Writes answers in the benchmark's format."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.distractors.published import export_predictions

        files = [Path(snakemake.input[name]) for name in ("questions", "images", "taxa")]
        records = next(map(Path, snakemake.input.get("records", [])), None)
        answers = [Path(path) for path in snakemake.input["answers"]]
        export_predictions(*files, records, answers, Path(snakemake.output[0]))
