"""Ingest: from a data set's archives to three tables (taxa, images, and what was rejected, with the reason)."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from vltaxon import config, schemas
from vltaxon.data.archives import Archive
from vltaxon.data.images import BrokenImage, ImageStore, decode
from vltaxon.data.labels import Labelled
from vltaxon.data.sources import cub200, inat21
from vltaxon.data.taxa import taxa_table
from vltaxon.errors import UserError
from vltaxon.lots import lots
from vltaxon.provenance import write_parquet

_SOURCES = {"inat21": inat21.read, "cub200": cub200.read}


def ingest(
    dataset: config.Dataset,
    archives: Mapping[str, Archive],
    seed: int,
    taxa: Path,
    images: Path,
    rejected: Path,
    threads: int = 1,
) -> None:
    """Read a data set's labels, choose its images, look at each chosen image once, and write the three tables.

    Args:
        dataset: names the source, the ranks, and how many images a leaf gives.
        archives: unpacked archives, by split (`located`); both splits may share one.
        seed: of the choice of images.
        taxa: written, schema `TAXA`; a missing rank is a row without taxon.
        images: written, schema `IMAGES`, ordered by image_id; width and height are those of the upright image.
        rejected: written, schema `REJECTED`: members that are absent, broken, or training images equal to a test image.
        threads: images decoded at once.

    Raises:
        UserError: the labels are wrong (see the sources), an id occurs twice, or no test image is left.
    """
    lineages, labelled = _SOURCES[dataset.source](dataset, archives)
    chosen = _chosen(dataset, labelled, seed)
    rows, lost = _placed(chosen, archives)
    measured, broken = _measured(rows, threads)
    kept, leaked = _unleaked(measured)
    for split in archives:
        if not pc.any(pc.equal(kept["split"], split)).as_py():
            raise UserError(
                f"no image of the {split} split could be read from {archives[split].tar}; see the labels and archives"
            )
    facts = {"rule": "ingest", "source": dataset.source, "seed": seed}
    write_parquet(taxa_table(lineages, dataset.ranks), taxa, schemas.TAXA, **facts)
    write_parquet(kept.sort_by("image_id"), images, schemas.IMAGES, **facts)
    out = pa.Table.from_pylist([*lost, *broken, *leaked], schema=schemas.REJECTED)
    write_parquet(out.sort_by([("archive", "ascending"), ("member", "ascending")]), rejected, schemas.REJECTED, **facts)


def _chosen(dataset: config.Dataset, labelled: list[Labelled], seed: int) -> list[Labelled]:
    """At most `images_per_leaf` images of each leaf and split: those with the lowest lots."""
    ids = [image.image_id for image in labelled]
    if len(set(ids)) < len(ids):
        twice = sorted(name for name, number in pc.value_counts(pa.array(ids)).to_pylist() if number > 1)
        raise UserError(f"{len(twice)} images have the id of another, as {twice[0]}")
    limits = {"test": dataset.test.images_per_leaf, "train": dataset.train.images_per_leaf if dataset.train else None}
    groups: dict[tuple[str, str], list[tuple[int, Labelled]]] = defaultdict(list)
    for lot, image in zip(lots("images", seed, ids).tolist(), labelled, strict=True):
        groups[image.split, image.leaf].append((lot, image))
    ordered = ((split, sorted(group, key=lambda pair: pair[0])) for (split, _), group in groups.items())
    return [image for split, group in ordered for _, image in group[: limits[split]]]


def _placed(chosen: list[Labelled], archives: Mapping[str, Archive]) -> tuple[pa.Table, list[dict[str, str]]]:
    """Join the chosen images with the indexes, in the order in which they lie on the disk."""
    tables, lost = [], []
    for split, archive in archives.items():
        mine = [image for image in chosen if image.split == split]
        members = pa.array([image.member for image in mine], pa.string())
        found = pc.index_in(members, value_set=archive.members["member"].combine_chunks())
        table = pa.table(
            {
                "image_id": pa.array([image.image_id for image in mine], pa.string()),
                "split": pa.array([split] * len(mine), pa.string()),
                "leaf": pa.array([image.leaf for image in mine], pa.string()),
                "archive": pa.array([archive.tar.as_posix()] * len(mine), pa.string()),
                "member": members,
                "offset": archive.members["offset"].take(found),
                "size": archive.members["size"].take(found),
            }
        )
        absent = pc.is_null(table["offset"])
        names = table.filter(absent)["member"].to_pylist()
        lost += [{"archive": archive.tar.as_posix(), "member": name, "reason": "not in the archive"} for name in names]
        tables.append(table.filter(pc.invert(absent)))
    return pa.concat_tables(tables).sort_by([("archive", "ascending"), ("offset", "ascending")]), lost


def _measured(table: pa.Table, threads: int) -> tuple[pa.Table, list[dict[str, str]]]:
    """Decode every image once; add width, height and digest, and leave out what is broken."""
    store = ImageStore(table)

    def look(image_id: str) -> tuple[int, int, str] | str:
        data = store.read(image_id)
        try:
            return *decode(data).size, hashlib.sha256(data).hexdigest()
        except BrokenImage as error:
            return str(error)

    ids = table["image_id"].to_pylist()
    with ThreadPoolExecutor(max(1, threads)) as pool:
        found = list(tqdm(pool.map(look, ids), total=len(ids), desc="ingest", unit=" images", mininterval=5))
    whole = pa.array([not isinstance(item, str) for item in found], pa.bool_())
    places = table.select(["archive", "member"]).filter(pc.invert(whole)).to_pylist()
    reasons = [item for item in found if isinstance(item, str)]
    kept, sizes = table.filter(whole), [item for item in found if not isinstance(item, str)]
    for place, (name, kind) in enumerate((("width", pa.int32()), ("height", pa.int32()), ("sha256", pa.string()))):
        kept = kept.append_column(name, pa.array([size[place] for size in sizes], kind))
    return kept, [row | {"reason": reason} for row, reason in zip(places, reasons, strict=True)]


def _unleaked(table: pa.Table) -> tuple[pa.Table, list[dict[str, str]]]:
    """Leave out training images whose bytes are a test image's: nothing that is scored is learned from."""
    test = table.filter(pc.equal(table["split"], "test"))["sha256"].combine_chunks()
    leaked = pc.and_(pc.equal(table["split"], "train"), pc.is_in(table["sha256"], value_set=test))
    rows = table.filter(leaked).select(["archive", "member"]).to_pylist()
    return table.filter(pc.invert(leaked)), [row | {"reason": "same bytes as a test image"} for row in rows]
