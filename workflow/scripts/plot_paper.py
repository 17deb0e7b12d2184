"""Draws a figure of the paper."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.report.paper import Setting
        from vltaxon.report.paper_figures import plot_paper

        params = snakemake.params
        scores, folder, setting = Path(snakemake.input.scores), Path(snakemake.output.png).parent, Setting(**params.setting)
        plot_paper(snakemake.wildcards.figure, scores, setting, params.labels, params.ranks, folder)
