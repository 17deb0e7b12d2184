"""Tells which jobs would run, and why."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    from vltaxon.why import planned, why

    configs = snakemake.params.configs
    text = why(planned(["--configfile", *configs] if configs else [], snakemake.params.given))
    Path(snakemake.log[0]).write_text(text, encoding="utf-8")
    print(text)
