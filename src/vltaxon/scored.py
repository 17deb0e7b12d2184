"""Questions that count: a data set without any is refused as soon as its questions are made.

A module of its own, which no job's version counts: questions that there are need not be made anew for it.
"""

from pathlib import Path

import polars as pl

from vltaxon import schemas
from vltaxon.errors import UserError, listed
from vltaxon.provenance import read_frame


def demand_scored(questions: Path) -> None:
    """Check that a data set has questions that count: with two options or more, at a scored level.

    Args:
        questions: that were just made of it, schema `QUESTIONS`.

    Raises:
        UserError: it has none.
    """
    if read_frame(questions, schemas.QUESTIONS, ["scored"])["scored"].any():
        return
    found = read_frame(questions, schemas.QUESTIONS, ["level", "rank", "options", "answer_index"])
    right = pl.col("options").list.get(pl.col("answer_index")).alias("label")
    labels = found.sort("level").select("level", "rank", right).unique(maintain_order=True)
    alone = labels.filter(pl.len().over("level") == 1).select(pl.format("{} {}", "rank", "label")).to_series()
    name = questions.parent.name
    raise UserError(
        f"{name}: no question of it counts: at each of its scored levels it has one label or none, and there "
        f"is nothing to choose from (one label alone: {listed(alone.to_list())}). Add images of other taxa, "
        f"name other levels in `scored_levels` of config/datasets/{name}.yaml, or take it out of `datasets`."
    )
