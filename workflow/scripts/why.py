"""Tells which jobs would run, and why."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    from vltaxon.why import planned, why

    text = why(planned(["--configfile", *snakemake.params.configs], snakemake.params.given))
    Path(snakemake.log[0]).write_text(text, encoding="utf-8")
    print(text)
