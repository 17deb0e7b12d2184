"""Tells what the experiment will cost, on the terminal and in the log."""

import sys
from pathlib import Path

if __name__ == "__main__":
    from vltaxon.errors import UserError
    from vltaxon.logs import tell
    from vltaxon.plan.cost import estimate
    from vltaxon.plan.cost_text import describe

    try:
        tell(snakemake, describe(estimate(snakemake.params.experiment, Path())))
    except UserError as error:
        sys.exit(f"error: {error}")
