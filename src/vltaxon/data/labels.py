"""What every source hands to `ingest`: leaves with their lineages, and labelled members of the archives."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vltaxon import taxonomy
from vltaxon.data.names import WAYS, Change, clashes, find_higher, lone, places, settle
from vltaxon.errors import UserError, listed

if TYPE_CHECKING:
    from vltaxon.config.datasets import RawDataset

Lineage = tuple[str | None, ...]
_SHOWN = 5  # of what is refused for one reason


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


class Tree(dict[str, Lineage]):
    """Leaf -> lineage.

    Attributes:
        called: leaf of each lineage, as the source gave it.
        notes: what was changed or told apart in the labels: a head line each, then the names in question.
    """

    def __init__(self, lineages: Mapping[str, Lineage], called: Mapping[Lineage, str], notes: Sequence[str]):
        super().__init__(lineages)
        self.called, self.notes = called, notes


def tree(lineages: Iterable[tuple[str, Lineage]], dataset: "RawDataset") -> Tree:
    """Read the names of (origin, lineage) pairs, and check that these form a tree.

    Names are read as `names.settle` says, and spellings of one taxon (`taxonomy.normalise`) become the first
    of them. A leaf is called by its most specific taxon. Where two lineages end in one name (homonyms; a
    genus called like its species), these leaves are called by their whole lineages, joined by ` > `.

    Args:
        lineages: where each was read, for messages, and its taxa, root first.
        dataset: its ranks, and how its names are read.

    Raises:
        UserError: a text can name no taxon, a row names none, species are epithets and nothing says so, two
            labels of a level do not exclude each other, or a taxon has two parents. The codes of
            nomenclature let names recur in another kingdom, so there they are two taxa; within one they are
            where `homonyms: allow` says so.
    """
    rows = list(lineages)
    origins: dict[Lineage, str] = {}
    for origin, path in rows:
        origins.setdefault(path, origin)
    _demand_names(origins, dataset)
    settled, changes = settle_labels(origins, dataset)
    _demand_taxa(settled, origins)
    _demand_species(settled, dataset)
    first: dict[tuple[int, str], str] = {}
    paths: dict[Lineage, str] = {}
    given: dict[Lineage, Lineage] = {}
    for raw, path in settled.items():
        shown = tuple(
            None if taxon is None else first.setdefault((level, taxonomy.normalise(taxon)), taxon)
            for level, taxon in enumerate(path)
        )
        for level, (before, after) in enumerate(zip(path, shown, strict=True), start=1):
            if before is not None and before != after:
                changes[raw].append(Change(level, "spelt", before, after))
        given[raw] = shown
        paths.setdefault(shown, origins[raw])
    _demand_exclusive(paths, dataset)
    homonyms = _demand_parents(paths, dataset)
    names = {path: next(taxon for taxon in reversed(path) if taxon is not None) for path in paths}
    count = Counter(names.values())
    leaves = {path: name if count[name] == 1 else _written(path) for path, name in names.items()}
    cells = Counter(path for _, path in rows)
    return Tree(
        {leaf: path for path, leaf in leaves.items()},
        {raw: leaves[path] for raw, path in given.items()},
        [*_told(changes, cells, dataset.ranks), *homonyms],
    )


def _demand_names(origins: Mapping[Lineage, str], dataset: "RawDataset") -> None:
    """Refuse what can name no taxon; a cell in which nothing is seen is an empty one."""
    for path, origin in origins.items():
        for rank, taxon in zip(dataset.ranks, path, strict=True):
            flaw = taxonomy.find_flaw(taxon) if taxon and taxonomy.normalise(taxon) else None
            if taxon is not None and flaw is not None:
                shown = taxonomy.spell_out(taxon[:60])
                raise UserError(f"{origin}: {rank} {shown} {flaw}; write it otherwise in the labels")


def settle_labels(
    origins: Mapping[Lineage, str], dataset: "RawDataset"
) -> tuple[dict[Lineage, Lineage], dict[Lineage, list[Change]]]:
    """Return the taxa that each lineage names, perhaps none, and what was changed for it.

    Args:
        origins: where each lineage was read, for messages.
        dataset: its ranks, and how its names are read.

    Raises:
        UserError: an epithet has no genus to be composed with.
    """
    settled, changes = dict[Lineage, Lineage](), dict[Lineage, list[Change]]()
    for path, origin in origins.items():
        try:
            settled[path], changes[path] = settle(path, dataset)
        except UserError as error:
            raise UserError(f"{origin}: {error}") from error
    genus, species = places(dataset.ranks)
    if dataset.names == "parsed" and (genus is None or genus < species):
        # "Quercus" in the column of its species is of no species, where others of them have names
        full = set[str | None]()
        if genus is not None:
            full = {p[genus] for p in settled.values() if str(p[species]).startswith(f"{p[genus]} ")}
        higher = find_higher([name for path in settled.values() if (name := path[species]) is not None])
        for raw, path in settled.items():
            name = path[species]
            own = None if genus is None else path[genus]
            if name is not None and ((name == own and name in full) or name in higher):
                settled[raw] = (*path[:species], None, *path[species + 1 :])
                changes[raw].append(Change(species + 1, "missing", name, None))
    return settled, changes


def _demand_taxa(settled: Mapping[Lineage, Lineage], origins: Mapping[Lineage, str]) -> None:
    """Refuse labels that name no taxon."""
    if lost := [raw for raw, path in settled.items() if not any(path)]:
        rows = [
            f"{origins[raw]} ({', '.join(taxonomy.spell_out(name) for name in raw if name is not None)})"
            for raw in lost
        ]
        raise UserError(
            f"{len(lost)} labels name no taxon: {listed(rows)}; leave these rows out, give them one rank at "
            "least, or see `missing` and `names` of the data set's file"
        )


def _demand_species(settled: Mapping[Lineage, Lineage], dataset: "RawDataset") -> None:
    """Ask what the last rank is, if it may be epithets: "alba" of Rosa and of Tyto would be one label."""
    genus, species = places(dataset.ranks)
    if dataset.species is not None or genus is None or genus >= species:
        return
    named = [(path[genus], name) for path in settled.values() if (name := path[species]) is not None]
    if named and all(lone(name) for _, name in named) and any((g or "")[:1].isupper() for g, _ in named):
        some = listed(sorted({name for _, name in named}))
        raise UserError(
            f"{dataset.ranks[species]}: all are single words in lower case ({some}). If they are epithets, "
            "write `species: binomial` in the data set's file, and each is put behind its genus; if they are "
            "whole names, `species: as_written`"
        )


def _demand_exclusive(paths: Mapping[Lineage, str], dataset: "RawDataset") -> None:
    """Refuse labels of a level of which one is the other, or a part of it: both would be options."""
    if dataset.names == "as_written":
        return
    problems = []
    for level, rank in enumerate(dataset.ranks):
        origins: dict[str, str] = {}
        for path, origin in paths.items():
            if (taxon := path[level]) is not None:
                origins.setdefault(taxon, origin)
        for one, two, why in clashes(list(origins)):
            first, second = (f"{taxonomy.spell_out(name)} ({origins[name]})" for name in (one, two))
            problems.append(f"{rank} {first} and {second} {why}")
    if problems:
        more = f"\nand {len(problems) - _SHOWN} more pairs" if len(problems) > _SHOWN else ""
        raise UserError(
            "\n".join(problems[:_SHOWN]) + f"{more}; they would be options of one question. Write each taxon "
            "in one way in the labels, or `names: as_written` in the data set's file if they are two taxa"
        )


def _demand_parents(paths: Mapping[Lineage, str], dataset: "RawDataset") -> list[str]:
    """Refuse a taxon with two parents, unless it is two taxa; return notes of the homonyms of a kingdom."""
    ranks = dataset.ranks
    seen: dict[tuple[int, str], dict[Lineage, str]] = {}
    homonyms: dict[tuple[int, str], list[Lineage]] = {}
    for path, origin in paths.items():
        for level, taxon in enumerate(path, start=1):
            if taxon is None:
                continue
            known = seen.setdefault((level, taxonomy.normalise(taxon)), {})
            if path[:level] in known:
                continue
            for other, first in known.items():
                if _in_two_kingdoms(other, path, ranks):
                    continue
                apart = any(a != b and None not in (a, b) for a, b in zip(other, path[:level], strict=True))
                if dataset.homonyms == "refuse" or not apart:
                    one, two = (_written(names) for names in (other, path[:level]))
                    hint = "; give both the same ranks above" if not apart else ""
                    if apart and lone(taxon):
                        hint = "; if these are epithets, write `species: binomial` in the data set's file"
                    elif apart:
                        hint = "; if these are two taxa of one name, `homonyms: allow` tells them apart"
                    raise UserError(
                        f"{ranks[level - 1]} {taxonomy.spell_out(taxon)} has two lineages: {one} ({first}), "
                        f"and {two} ({origin}){hint}"
                    )
                homonyms[level, taxon] = [*known, path[:level]]
            known[path[:level]] = origin
    return [
        f"{ranks[level - 1]}: {taxonomy.spell_out(name)} is the name of {len(found)} taxa, told apart by "
        "their lineages" + "".join(f"\n  {_written(path)}" for path in found)
        for (level, name), found in homonyms.items()
    ]


def _told(
    changes: Mapping[Lineage, list[Change]], cells: Mapping[Lineage, int], ranks: Sequence[str]
) -> list[str]:
    """Say what was changed, by rank and way: how many cells, and of which spellings."""
    counts: dict[tuple[int, str], Counter[tuple[str, str | None]]] = {}
    for path, some in changes.items():
        for change in some:
            of = counts.setdefault((change.level, change.way), Counter())
            of[change.written, change.taxon] += cells[path]
    notes = []
    for level, rank in enumerate(ranks, start=1):
        for way, words in WAYS.items():
            if found := counts.get((level, way)):
                lines = [
                    f"\n  {number} x {taxonomy.spell_out(written)}"
                    + ("" if taxon is None else f": {taxonomy.spell_out(taxon)}")
                    for (written, taxon), number in sorted(
                        found.items(), key=lambda item: (-item[1], item[0][0])
                    )
                ]
                total = found.total()
                notes.append(f"{rank}: {words} ({total} cell{'s' * (total > 1)})" + "".join(lines))
    return notes


def _in_two_kingdoms(one: Lineage, other: Lineage, ranks: tuple[str, ...]) -> bool:
    place = ranks.index("kingdom") if "kingdom" in ranks else len(ranks)
    return place < len(one) and None not in (one[place], other[place]) and one[place] != other[place]


def _written(path: Lineage) -> str:
    """Write the lineage down to its last taxon."""
    depth = max(level for level, name in enumerate(path, start=1) if name is not None)
    return " > ".join(name or "?" for name in path[:depth])
