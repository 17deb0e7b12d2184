"""Draws a figure of a paper."""

from vltaxon.logs import job
from vltaxon.tasks.scoring import PlotPaperTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.report.figures.of_papers import plot_paper

        plot_paper(PlotPaperTask.of(snakemake))
