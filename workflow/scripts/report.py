"""Writes the report page."""

from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.logs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    with job(snakemake):
        from vltaxon.config import System
        from vltaxon.report.page import write_report

        write_report(
            **{name: Path(snakemake.input[name]) for name in ("scores", "database", "images")},
            figures={name: Path(snakemake.input[name]) for name in ("level_accuracy", "hca_leaf", "training")},
            records={name: Path(path) for name, path in snakemake.params.records.items()},
            systems={name: System.model_validate(system) for name, system in snakemake.params.systems.items()},
            **snakemake.params["values"],
            benchmarks=Path("results/benchmarks"),
            output=Path(snakemake.output[0]),
        )
