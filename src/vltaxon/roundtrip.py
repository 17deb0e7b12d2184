"""Whether the names of a data set are read back from the text in which a model is to write them.

It refuses and makes nothing, so its code, with the reader's, is none of what a table is made by
(`code_versions`): or an edit of the reader would read all images again, and train everything after them.
"""

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING

from vltaxon.errors import UserError
from vltaxon.parsing import odd_names, read_lineage
from vltaxon.prompts import stated
from vltaxon.taxonomy import normalise

if TYPE_CHECKING:
    from vltaxon.data.labels import Lineage


def demand_readable(lineages: Mapping[str, "Lineage"], ranks: tuple[str, ...]) -> None:
    """Check that every lineage is read back as a model is to write it.

    Args:
        lineages: of every leaf.
        ranks: names of the levels, root first.

    Raises:
        UserError: one is not.
    """
    odd = odd_names(ranks, chain.from_iterable(lineages.values()))
    for path in lineages.values():
        written = stated(ranks, path)
        for rank, taxon, read in zip(ranks, path, read_lineage(written, ranks, odd), strict=True):
            if taxon is not None and (read is None or normalise(read) != normalise(taxon)):
                raise UserError(
                    f'a model is to write "{written}", in which {rank} "{taxon}" would be read as "{read}". '
                    "Write these names otherwise in the labels: without a rank and a colon in one"
                )
