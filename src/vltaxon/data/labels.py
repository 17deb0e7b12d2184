"""What every source hands to `ingest`: leaves with their lineages, and labelled members of the archives."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vltaxon import taxonomy
from vltaxon.errors import UserError

Lineage = tuple[str | None, ...]


@dataclass(frozen=True)
class Labelled:
    """A member of a split's archive and its leaf."""

    image_id: str
    split: str
    leaf: str
    member: str


def lineage(row: Mapping[str, object], ranks: Iterable[str], where: str) -> Lineage:
    """The taxa of a row, root first; an empty cell is a missing rank.

    Raises:
        UserError: the row has no such column, or the leaf is missing.
    """
    taxa: list[str | None] = []
    for rank in ranks:
        if rank not in row:
            raise UserError(f'{where}: has no rank "{rank}"; it has {", ".join(map(str, row))}')
        taxa.append(str(row[rank] or "").strip() or None)
    if taxa[-1] is None:
        raise UserError(f"{where}: the leaf has no name")
    return tuple(taxa)


def tree(lineages: Iterable[tuple[str, Lineage]], ranks: tuple[str, ...]) -> dict[str, Lineage]:
    """Check that (origin, lineage) pairs form a tree, and return leaf -> lineage.

    Raises:
        UserError: a taxon has two parents or two spellings.
    """
    seen: dict[tuple[int, str], tuple[Lineage, str]] = {}
    leaves: dict[str, Lineage] = {}
    for origin, path in lineages:
        for level, taxon in enumerate(path, start=1):
            if taxon is None:
                continue
            known, first = seen.setdefault((level, taxonomy.normalise(taxon)), (path[:level], origin))
            if known != path[:level]:
                one, other = (" > ".join(name or "?" for name in names) for names in (known, path[:level]))
                raise UserError(f'{ranks[level - 1]} "{taxon}" has two lineages: {one} ({first}), and {other} ({origin})')
        leaves[str(path[-1])] = path
    return leaves
