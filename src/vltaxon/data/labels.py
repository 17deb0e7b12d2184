"""What every source hands to `ingest`: leaves with their lineages, and labelled members of the archives."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vltaxon import taxonomy
from vltaxon.errors import UserError

Lineage = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A member of a split's archive and its leaf."""

    image_id: str
    split: str
    leaf: str
    member: str


def lineage(row: Mapping[str, object], ranks: Iterable[str], where: str, partial: bool = False) -> Lineage:
    """Return the taxa of a row, root first; an empty cell is a missing rank.

    Args:
        row: taxa by rank.
        ranks: root first.
        where: origin of the row, for messages.
        partial: whether the last rank may be missing, as where a specimen is known to the genus only.

    Raises:
        UserError: the row has no such column, or the leaf is missing.
    """
    taxa: list[str | None] = []
    for rank in ranks:
        if rank not in row:
            raise UserError(f'{where}: has no rank "{rank}"; it has {", ".join(map(str, row))}')
        taxa.append(str(row[rank] or "").strip() or None)
    if taxa[-1] is None and not partial:
        raise UserError(f"{where}: the leaf has no name")
    if not any(taxa):
        raise UserError(f"{where}: names no taxon; leave the row out, or give it one rank at least")
    return tuple(taxa)


def tree(lineages: Iterable[tuple[str, Lineage]], ranks: tuple[str, ...]) -> dict[str, Lineage]:
    """Check that (origin, lineage) pairs form a tree, and return leaf -> lineage.

    A leaf is called by its most specific taxon. Where two lineages end in one name (homonyms of two kingdoms;
    a genus called like its species), these leaves are called by their whole lineages, joined by ` > `.

    Args:
        lineages: where each was read, for messages, and its taxa, root first.
        ranks: names of the levels.

    Raises:
        UserError: a text can name no taxon, or a taxon has two parents or two spellings. The codes of
            nomenclature let names recur in another kingdom only, so there they are two taxa.
    """
    seen: dict[tuple[int, str], dict[Lineage, str]] = {}
    paths: dict[Lineage, str] = {}
    for origin, path in lineages:
        if path in paths:
            continue
        for level, taxon in enumerate(path, start=1):
            if taxon is None:
                continue
            if (flaw := taxonomy.find_flaw(taxon)) is not None:
                raise UserError(
                    f"{origin}: {ranks[level - 1]} {taxon[:60]!r} {flaw}; write it otherwise in the labels"
                )
            known = seen.setdefault((level, taxonomy.normalise(taxon)), {})
            if path[:level] in known:
                continue
            for other, first in known.items():
                if not _in_two_kingdoms(other, path, ranks):
                    one, two = (_written(names) for names in (other, path[:level]))
                    raise UserError(
                        f'{ranks[level - 1]} "{taxon}" has two lineages: {one} ({first}), and {two} '
                        f"({origin})"
                    )
            known[path[:level]] = origin
        paths[path] = origin
    names = {path: next(taxon for taxon in reversed(path) if taxon is not None) for path in paths}
    count = Counter(names.values())
    return {name if count[name] == 1 else _written(path): path for path, name in names.items()}


def _in_two_kingdoms(one: Lineage, other: Lineage, ranks: tuple[str, ...]) -> bool:
    place = ranks.index("kingdom") if "kingdom" in ranks else len(ranks)
    return place < len(one) and None not in (one[place], other[place]) and one[place] != other[place]


def _written(path: Lineage) -> str:
    """Write the lineage down to its last taxon."""
    depth = max(level for level, name in enumerate(path, start=1) if name is not None)
    return " > ".join(name or "?" for name in path[:depth])
