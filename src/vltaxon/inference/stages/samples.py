"""Which of several samples of a prompt counts: the answer that most give, or the one nearest to the truth."""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from vltaxon import schemas
from vltaxon.inference.stages.images import leaves_of
from vltaxon.inference.stages.table import Row
from vltaxon.taxonomy import Taxonomy, normalise

Worth = Callable[[Row], tuple[int, int, int]]  # how good one of several samples is

_KEPT = [field.name for field in schemas.PREDICTIONS.field("samples").type.value_type]  # of every sample


def chosen(rows: Sequence[Row], worth: Worth | None = None) -> Row:
    """Return the row that counts, of those of several samples of a prompt; it holds what all of them say.

    Args:
        rows: by sample.
        worth: how good a row is; where absent, the answer that most give wins (Wang et al., arXiv
            2203.11171); of equals the first.
    """
    if len(rows) == 1:
        return rows[0]
    if worth is None:
        answers = [
            (row["answer_index"], normalise(row["answer"])) if row["outcome"] == "answered" else None
            for row in rows
        ]
        votes = Counter(answer for answer in answers if answer is not None)
        best = rows[answers.index(votes.most_common(1)[0][0])] if votes else rows[0]
    else:
        best = max(rows, key=worth)
    return best | {"samples": [{name: row[name] for name in _KEPT} for row in rows]}


def nearness(images: Path, taxa: Path, ids: Sequence[str]) -> Worth:
    """Return how good a row of stage 1 is.

    It is the level of the true taxon that is its answer (0 where it is none), then how many levels of its
    lineage are right, then whether it is an answer at all, or at least no error.

    Args:
        images: table of the data set.
        taxa: table of the data set.
        ids: images that rows may be about.
    """
    tree, leaves, key = Taxonomy.read(taxa), leaves_of(images, ids), functools.cache(normalise)

    def keys(taxa_of: Sequence[str | None]) -> list[str | None]:
        return [None if taxon is None else key(taxon) for taxon in taxa_of]

    def worth(row: Row) -> tuple[int, int, int]:
        if row["outcome"] != "answered":
            return 0, 0, -1 if row["outcome"] == "error" else 0
        true, lineage = keys(tree.lineages[leaves[row["image_id"]]]), keys(row["lineage"])
        answer = key(row["answer"])
        level = max((level for level, taxon in enumerate(true, 1) if taxon == answer), default=0)
        return level, sum(a is not None and a == b for a, b in zip(true, lineage, strict=True)), 1

    return worth
