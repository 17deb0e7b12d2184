"""Tells what the experiment will cost, on the terminal and in the log."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    from vltaxon.config import Experiment
    from vltaxon.cost import estimate, written

    text = written(estimate(Experiment.model_validate_json(snakemake.params.experiment), Path()))
    Path(snakemake.log[0]).write_text(text, encoding="utf-8")
    print(text)
