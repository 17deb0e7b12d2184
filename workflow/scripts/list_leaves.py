"""Lists the shards of stage 1 for those of stage 2."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.inference.leaves import list_leaves

        list_leaves(map(Path, snakemake.input), Path(snakemake.output[0]))
