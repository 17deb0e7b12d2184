"""Tells what the experiment will cost, on the terminal and in the log."""

from pathlib import Path

if __name__ == "__main__":
    from vltaxon.logs import tell
    from vltaxon.plan.cost import estimate
    from vltaxon.plan.cost_text import describe

    tell(snakemake, describe(estimate(snakemake.params.experiment, Path())))
