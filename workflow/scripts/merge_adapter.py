"""Merges an adapter into its base model."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.checkpoint import merge
        from vltaxon.config import Vlm

        merge(Vlm.model_validate(snakemake.params.model), Path(snakemake.input.adapter).parent, Path(snakemake.output[0]))
