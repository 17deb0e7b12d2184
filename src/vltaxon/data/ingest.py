"""Ingest: from a data set's archives to three tables (taxa, images, and what was rejected, with the reason)."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from vltaxon import config, schemas
from vltaxon.data.archives import Archive, Folder, located
from vltaxon.data.download import demand_unchanged
from vltaxon.data.images import BrokenImage, ImageStore, decode
from vltaxon.data.labels import Labelled
from vltaxon.data.taxa import taxa_table
from vltaxon.errors import UserError
from vltaxon.provenance import write_parquet
from vltaxon.seeded import draw_numbers
from vltaxon.tasks.data import IngestTask

_BATCH = 4096  # images whose futures are in memory at once


def ingest(task: IngestTask) -> None:
    """Read a data set's labels, choose its images, look at each chosen image once, and write the three tables.

    `taxa` (schema `TAXA`) has a row without taxon for a missing rank; `images` (schema `IMAGES`) is ordered by image_id, with
    width and height of the upright image; `rejected` (schema `REJECTED`) has members that are absent, broken, or training images
    equal to a test image.

    Raises:
        UserError: the labels are wrong (see the sources), an id occurs twice, more than `max_rejected` of the chosen images are
            absent or broken, or a split has no image left.
    """
    for table in task.tables:
        demand_unchanged(table)
    dataset, archives = task.dataset, located(task.dataset, task.archives)
    lineages, labelled = dataset.reader.read(dataset, archives)
    chosen = _chosen(dataset, labelled, task.seed)
    rows, lost = _placed(chosen, archives)
    measured, broken = _measured(rows, task.threads)
    _demand_whole([*lost, *broken], len(chosen), dataset.max_rejected)
    kept, leaked = _unleaked(measured)
    for split in archives:
        if not pc.any(pc.equal(kept["split"], split)).as_py():
            raise UserError(f"no image of the {split} split could be read from {archives[split]}; see the labels and archives")
    facts = {"rule": "ingest", "source": dataset.source, "seed": task.seed}
    write_parquet(taxa_table(lineages, dataset.ranks), task.taxa, schemas.TAXA, **facts)
    write_parquet(kept.sort_by("image_id"), task.images, schemas.IMAGES, **facts)
    out = pa.Table.from_pylist([*lost, *broken, *leaked], schema=schemas.REJECTED)
    write_parquet(out.sort_by([("archive", "ascending"), ("member", "ascending")]), task.rejected, schemas.REJECTED, **facts)


def _chosen(dataset: config.RawDataset, labelled: list[Labelled], seed: int) -> list[Labelled]:
    """At most `images_per_leaf` images of each leaf and split: those with the lowest numbers."""
    ids = [image.image_id for image in labelled]
    if len(set(ids)) < len(ids):
        twice = sorted(name for name, number in pc.value_counts(pa.array(ids)).to_pylist() if number > 1)
        raise UserError(f"{len(twice)} images have the id of another, as {twice[0]}")
    limits = {"test": dataset.test.images_per_leaf, "train": dataset.train.images_per_leaf if dataset.train else None}
    groups: dict[tuple[str, str], list[tuple[int, Labelled]]] = defaultdict(list)
    for number, image in zip(draw_numbers("images", seed, ids).tolist(), labelled, strict=True):
        groups[image.split, image.leaf].append((number, image))
    ordered = ((split, sorted(group, key=lambda pair: pair[0])) for (split, _), group in groups.items())
    return [image for split, group in ordered for _, image in group[: limits[split]]]


def _placed(chosen: list[Labelled], archives: Mapping[str, Archive | Folder]) -> tuple[pa.Table, list[dict[str, str]]]:
    """Find the chosen images, in the order in which they lie on the disk, and list those that are not there."""
    tables, lost = [], []
    for split, archive in archives.items():
        mine = [image for image in chosen if image.split == split]
        table = archive.find([image.member for image in mine])
        for place, name in enumerate(("image_id", "split", "leaf")):
            table = table.add_column(place, name, pa.array([getattr(image, name) for image in mine], pa.string()))
        table = table.add_column(4, "member", pa.array([image.member for image in mine], pa.string()))
        absent = pc.is_null(table["offset"])
        lost += [row | {"reason": archive.absent} for row in table.filter(absent).select(["archive", "member"]).to_pylist()]
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

    ids, found = table["image_id"].to_pylist(), []
    with ThreadPoolExecutor(max(1, threads)) as pool, tqdm(total=len(ids), desc="ingest", unit=" images", mininterval=5) as bar:
        for start in range(0, len(ids), _BATCH):
            for item in pool.map(look, ids[start : start + _BATCH]):
                found.append(item)
                bar.update()
    whole = pa.array([not isinstance(item, str) for item in found], pa.bool_())
    places = table.select(["archive", "member"]).filter(pc.invert(whole)).to_pylist()
    reasons = [item for item in found if isinstance(item, str)]
    kept, sizes = table.filter(whole), [item for item in found if not isinstance(item, str)]
    for place, (name, kind) in enumerate((("width", pa.int32()), ("height", pa.int32()), ("sha256", pa.string()))):
        kept = kept.append_column(name, pa.array([size[place] for size in sizes], kind))
    return kept, [row | {"reason": reason} for row, reason in zip(places, reasons, strict=True)]


def _demand_whole(rejected: list[dict[str, str]], chosen: int, limit: float) -> None:
    """Stop where too many images are absent or broken: a damaged download would go unseen into every number.

    Training images left out since they equal a test image do not count; they are no damage.
    """
    if len(rejected) <= limit * chosen:
        return
    examples: dict[str, list[str]] = defaultdict(list)
    for row in rejected:
        kind = row["reason"].split(" (")[0]  # Pillow gives the bytes that are missing in brackets
        examples[kind].append(
            row["archive"] if row["archive"].endswith(row["member"]) else f"{row['member']} of {row['archive']}"
        )
    common = sorted(examples.items(), key=lambda item: (-len(item[1]), item[0]))
    reasons = "\n".join(f"  {len(names)} x {kind}: {', '.join(names[:2])}" for kind, names in common[:5])
    raise UserError(
        f"{len(rejected)} of {chosen} chosen images ({len(rejected) / chosen:.2%}) are absent or broken, more than max_rejected "
        f"({limit:.2%}) allows:\n{reasons}\nGet whole files, or raise max_rejected in the data set's file to go on without these."
    )


def _unleaked(table: pa.Table) -> tuple[pa.Table, list[dict[str, str]]]:
    """Leave out training images whose bytes are a test image's: nothing that is scored is learned from."""
    test = table.filter(pc.equal(table["split"], "test"))["sha256"].combine_chunks()
    leaked = pc.and_(pc.equal(table["split"], "train"), pc.is_in(table["sha256"], value_set=test))
    rows = table.filter(leaked).select(["archive", "member"]).to_pylist()
    return table.filter(pc.invert(leaked)), [row | {"reason": "same bytes as a test image"} for row in rows]
