"""Writes a table of the paper, published and ours."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.report.paper import Setting, tabulate_paper

        scores = Path(snakemake.input.scores[0]) if snakemake.input.scores else None
        tabulate_paper(snakemake.wildcards.table, scores, Setting(**snakemake.params.setting), *map(Path, snakemake.output))
