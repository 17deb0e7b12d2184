"""Draws the figures."""

from vltaxon.logs import job
from vltaxon.tasks.scoring import PlotTask

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.report.figures import plot

        plot(PlotTask.of(snakemake))
