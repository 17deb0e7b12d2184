"""Match the benchmark's records with the images, the taxa and the labels of a data set."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from vltaxon import schemas
from vltaxon.errors import UserError
from vltaxon.exchange.annotations import Record
from vltaxon.provenance import read_frame
from vltaxon.tasks.questions import ImportTask
from vltaxon.taxonomy import Taxonomy, normalise


@dataclass(frozen=True)
class Match:
    """A record and the test image that it is about.

    Attributes:
        record: of the annotations.
        image_id: of the data set's image; None where it has none.
        leaf: of that image.
        reason: why the data set has no such image, where it has none.
    """

    record: Record
    image_id: str | None
    leaf: str | None
    reason: str | None


def match(records: Sequence[Record], task: ImportTask) -> Iterator[Match]:
    """Yield each record with its image, which is identified by the last parts of its path.

    Args:
        records: of the benchmark's annotations.
        task: names the images, and how many last parts of a path count.

    Raises:
        UserError: two records or two images are one by their paths, or the image is in the train split.
    """
    where, parts = task.annotations, task.parts
    tails = pl.DataFrame({"image": [record.image for record in records]}).select(_tail("image", parts))[
        "tail"
    ]
    images = read_frame(task.images, schemas.IMAGES, ["image_id", "split", "leaf", "member"])
    images = images.with_columns(_tail("member", parts)).filter(pl.col("tail").is_in(tails.implode()))
    found = images.rows_by_key("tail", named=True)
    reasons = _reasons(task)
    unknown = "not in the archive" if task.index is not None else "not among the images"
    first: dict[str, int] = {}
    for record, tail in zip(records, tails, strict=True):
        if (line := first.setdefault(tail, record.line)) != record.line:
            raise UserError(
                f"{where}, lines {line} and {record.line}: both are about {tail}; raise `parts` if these are "
                "two images"
            )
        rows = found.get(tail, [])
        if len(rows) > 1:
            raise UserError(
                f"{where}, line {record.line}: {tail} is {rows[0]['member']} as well as {rows[1]['member']}; "
                "raise "
                "`parts`, the number of last parts of a path that tell an image"
            )
        if not rows:
            yield Match(record, None, None, reasons.get(tail, unknown))
            continue
        image = rows[0]
        if image["split"] != "test":
            raise UserError(
                f"{where}, line {record.line}: {tail} is in the {image['split']} split, and cannot be scored "
                "on"
            )
        yield Match(record, image["image_id"], image["leaf"], None)


def _tail(column: str, parts: int) -> pl.Expr:
    """Return the last parts of a path, as `tail`."""
    return (
        pl.col(column)
        .str.split("/")
        .list.filter(pl.element() != "")
        .list.tail(parts)
        .list.join("/")
        .alias("tail")
    )


def _reasons(task: ImportTask) -> dict[str, str]:
    """Return why a member of the archive may be none of the data set's images, by the tail of its path."""
    left = "not drawn (images_per_leaf)" if task.drawn else "not of this data set"
    refused = read_frame(task.rejected, schemas.REJECTED)
    why = [refused.select(_tail("member", task.parts), reason=pl.format("rejected: {}", "reason"))]
    if task.index is not None:
        members = read_frame(task.index, schemas.ARCHIVE, ["member"])
        why.insert(0, members.select(_tail("member", task.parts), reason=pl.lit(left)))
    return dict(pl.concat(why).iter_rows())


def demand_lineage(record: Record, leaf: str, tree: Taxonomy, where: str, taxa: Path) -> None:
    """Refuse a record whose taxa are not those of its image's leaf: it would be scored against another truth.

    Args:
        record: of the benchmark's annotations.
        leaf: of its image.
        tree: the data set's taxonomy.
        where: place of the record, for errors.
        taxa: file of the taxonomy, for errors.

    Raises:
        UserError: a level is none of the data set's, or its taxon is not that of the leaf.
    """
    for level in record.asked:
        if level > len(tree.ranks):
            raise UserError(
                f"{where}: has level{level}, but the data set has {len(tree.ranks)} ranks: "
                f"{', '.join(tree.ranks)}"
            )
        taxon = tree.taxon(leaf, level)
        if taxon is None or normalise(taxon) != normalise(record.taxon(level)):
            known = "none" if taxon is None else f'"{taxon}"'
            raise UserError(
                f'{where}: level{level} is "{record.taxon(level)}", but {taxa} says of {leaf}: '
                f"{tree.ranks[level - 1]} {known}"
            )


def demand_known(records: Sequence[Record], tree: Taxonomy, where: Path) -> None:
    """Refuse a record that is no path of the benchmark's taxonomy, or has other options than its labels.

    Args:
        records: of the benchmark's annotations.
        tree: the benchmark's taxonomy.
        where: file of the records, for errors.

    Raises:
        UserError: the taxa of a record are no path, or an option is no label of its level.
    """
    labels = [{normalise(label) for label in tree.labels(level)} for level in range(1, len(tree.ranks) + 1)]
    paths: dict[tuple[int, str], set[tuple[str | None, ...]]] = defaultdict(set)
    for lineage in tree.lineages.values():
        keys = tuple(None if taxon is None else normalise(taxon) for taxon in lineage)
        for level, key in enumerate(keys, start=1):
            if key is not None:
                paths[level, key].add(keys[:level])
    for record in records:
        names = {level: normalise(record.taxon(level)) for level in record.asked}
        deepest = max(names, default=0)
        if names and not any(
            all(path[level - 1] == name for level, name in names.items())
            for path in paths[deepest, names[deepest]]
        ):
            raise UserError(
                f"{where}, line {record.line}: {' > '.join(names.values())} is no path of the taxonomy"
            )
        for level, (options, _) in record.asked.items():
            if odd := [option for option in options if normalise(option) not in labels[level - 1]]:
                raise UserError(
                    f'{where}, line {record.line}: choice "{odd[0]}" is no {tree.ranks[level - 1]} of the '
                    "taxonomy"
                )
