"""A reward of ours: how much of the lineage the reasoning names rightly, and whether it ends where it is to.

The paper's rewards look at tags and answers alone. So the taxa of species that SFT has not shown are learnt
only where a sample happens to hit the answer, and reasoning that goes on below the asked rank is as good as
any; the letter then follows the rank that was named last, and levels are lost while the mean reward rises.
"""

from collections.abc import Sequence

from vltaxon.parsing import Form, read_lineage, reasoning_of, well_formed
from vltaxon.taxonomy import normalise
from vltaxon.train.rewards import Completion


def reward(
    completions: Sequence[Completion],
    form: Sequence[Form],
    ranks: Sequence[Sequence[str]],
    lineage: Sequence[Sequence[str | None]],
    **_: object,
) -> list[float | None]:
    """Return the share of ranks that the reasoning names with their true taxon; 0 where it names others.

    Args:
        completions: what the model wrote; without the form that was asked for it gets 0.
        form: how each was to be answered.
        ranks: names of the levels, root first.
        lineage: taxa that the reasoning is to name, root first, None for a missing rank; where there are
            none, or no tags were asked for, None is returned.
    """
    rows = zip(completions, form, ranks, lineage, strict=True)
    return [
        _share(completion[0]["content"], known, taxa) if how == "tagged" and any(taxa) else None
        for completion, how, known, taxa in rows
    ]


def _share(text: str, ranks: Sequence[str], taxa: Sequence[str | None]) -> float:
    if not well_formed(text):
        return 0.0
    deeper = [None] * (len(ranks) - len(taxa))  # are not to be named
    wanted = [_key(taxon) for taxon in (*taxa, *deeper)]
    known = frozenset(taxon for taxon in wanted if taxon is not None)
    named = [_key(taxon) for taxon in read_lineage(reasoning_of(text), ranks, known)]
    if [taxon is None for taxon in named] != [taxon is None for taxon in wanted]:
        return 0.0
    right = sum(a == b is not None for a, b in zip(named, wanted, strict=True))
    return right / (len(wanted) - wanted.count(None))


def _key(taxon: str | None) -> str | None:
    return None if taxon is None else normalise(taxon)
