"""The table of taxa: built from the lineages of a source, or read from the benchmark's own taxonomy files."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

import pyarrow as pa

from vltaxon import schemas
from vltaxon.data.labels import Lineage
from vltaxon.errors import UserError
from vltaxon.provenance import write_parquet
from vltaxon.roundtrip import demand_readable
from vltaxon.taxonomy import find_flaw, normalise


def taxa_table(lineages: Mapping[str, Lineage], ranks: tuple[str, ...]) -> pa.Table:
    """Return a row per leaf and level, ordered by both; a missing rank is a row without taxon.

    The key is a taxon's own: a name that two ranks share has its rank before it, and one that two parents of
    a level share is written with its whole lineage.

    Args:
        lineages: of every leaf.
        ranks: names of the levels, root first.

    Returns:
        Table of schema `TAXA`.

    Raises:
        UserError: a lineage that is written as a model is to write it is not read back.
    """
    demand_readable(lineages, ranks)
    levels: dict[str, set[int]] = defaultdict(set)
    parents: dict[tuple[int, str], set[Lineage]] = defaultdict(set)
    for path in lineages.values():
        for level, taxon in enumerate(path, start=1):
            if taxon is not None:
                levels[normalise(taxon)].add(level)
                parents[level, normalise(taxon)].add(path[: level - 1])
    rows = []
    for leaf, path in sorted(lineages.items()):
        for level, (rank, taxon) in enumerate(zip(ranks, path, strict=True), start=1):
            key = normalise(taxon) if taxon is not None else None
            if key is not None and len(parents[level, key]) > 1:
                key = " > ".join(normalise(name) for name in path[:level] if name is not None)
            elif key is not None and len(levels[key]) > 1:
                key = f"{rank}:{key}"
            rows.append({"leaf": leaf, "level": level, "rank": rank, "taxon": taxon, "key": key})
    return pa.Table.from_pylist(rows, schema=schemas.TAXA)


def is_name(value: object) -> TypeGuard[str]:
    """Whether a value read from JSON is text that can name a taxon: see `taxonomy.find_flaw`."""
    return isinstance(value, str) and find_flaw(value) is None


def read_hierarchy(path: Path) -> dict[str, Lineage]:
    """Read one of the benchmark's taxonomy files: leaf -> path from the root.

    They are in data/taxonomies of Tan et al. (arXiv 2505.24840). Paths are ragged, 3 to 12 taxa long. A leaf
    is displayed as its own entry spells it; two of the files' paths end in other letter case. A name may hang
    below two parents (WordNet's `sports equipment` does): these are two taxa.

    Returns:
        leaf -> lineage, all as long as the longest; what a path lacks is missing at its end.

    Raises:
        UserError: no such file, no JSON object of lists of names, a leaf that stands twice or does not end
            its path, or a leaf that has others below it.
    """
    try:
        found = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=list)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; is the path right?") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON in UTF-8: {error}") from error
    pairs = found if isinstance(found, list) and all(isinstance(pair, tuple) for pair in found) else []
    if not pairs:
        raise UserError(
            f"{path}: is no taxonomy; it must be a JSON object: leaf -> list of taxa from the root to the "
            "leaf"
        )
    known: dict[str, tuple[str, ...]] = {}
    for leaf, taxa in pairs:
        if not isinstance(taxa, list) or not taxa or not all(isinstance(taxon, str) for taxon in taxa):
            raise UserError(f'{path}: leaf "{leaf}": its path is no list of names')
        for taxon in (leaf, *taxa):
            if (flaw := find_flaw(taxon)) is not None:
                raise UserError(
                    f'{path}: leaf "{ascii(leaf)[1:-1][:60]}": its path is no list of names: '
                    f"{taxon[:60]!r} {flaw}"
                )
        if normalise(leaf) != normalise(taxa[-1]):
            raise UserError(f'{path}: leaf "{leaf}": its path ends in "{taxa[-1]}"')
        if normalise(leaf) in known:
            raise UserError(f'{path}: leaf "{leaf}" stands twice')
        known[normalise(leaf)] = (*taxa[:-1], leaf)
    inner = {path[:level] for path in known.values() for level in range(1, len(path))}
    if above := [taxa[-1] for taxa in known.values() if taxa in inner]:
        raise UserError(f'{path}: leaf "{above[0]}" has other leaves below it')
    depth = max(map(len, known.values()))
    return {taxa[-1]: (*taxa, *[None] * (depth - len(taxa))) for taxa in known.values()}


def load_taxonomy(hierarchy: Path, ranks: tuple[str, ...], taxa: Path) -> None:
    """Write one of the benchmark's taxonomy files as a table of taxa.

    Args:
        hierarchy: the JSON file.
        ranks: names of the levels, root first; at least as many as the longest path has taxa.
        taxa: written, schema `TAXA`.

    Raises:
        UserError: the file is no taxonomy (see `read_hierarchy`), or deeper than there are ranks.
    """
    lineages = read_hierarchy(hierarchy)
    depth = len(next(iter(lineages.values())))
    if depth > len(ranks):
        raise UserError(
            f"{hierarchy}: has {depth} levels, but the data set has {len(ranks)} ranks: {', '.join(ranks)}"
        )
    padded = {leaf: path + (None,) * (len(ranks) - depth) for leaf, path in lineages.items()}
    write_parquet(
        taxa_table(padded, ranks), taxa, schemas.TAXA, rule="load_taxonomy", hierarchy=hierarchy.name
    )
