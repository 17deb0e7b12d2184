"""Deletes the answers of models and adapters that are no more, and tells which."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

if __name__ == "__main__":
    from vltaxon.inference.run import prune_journal

    said = prune_journal(snakemake.params.models, Path("results/adapters"), Path("results/.state/journal"))
    Path(snakemake.log[0]).write_text(said + "\n", encoding="utf-8")
    print(said)
