"""From a data set's archives to three tables: taxa, images, and what was rejected, with the reason."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from vltaxon import schemas
from vltaxon.config.datasets import RawDataset
from vltaxon.data.archives import Archive, Folder, located
from vltaxon.data.images import BrokenImage, ImageStore, decode
from vltaxon.data.labels import Labelled
from vltaxon.data.taxa import taxa_table
from vltaxon.data.verified import demand_unchanged
from vltaxon.errors import UserError
from vltaxon.provenance import write_frame, write_parquet
from vltaxon.seeded import draw_numbers
from vltaxon.tasks.data import IngestTask

_BATCH = 4096  # images whose futures are in memory at once
_LOOKS = {"width": pl.Int32, "height": pl.Int32, "sha256": pl.String, "reason": pl.String}


def ingest(task: IngestTask) -> None:
    """Read a data set's labels, choose its images, look at each of these once, and write the three tables.

    `taxa` (schema `TAXA`) has a row without taxon for a missing rank; `images` (schema `IMAGES`) is ordered
    by image_id, with width and height of the upright image; `rejected` (schema `REJECTED`) has members that
    are absent, broken, or training images equal to a test image.

    Raises:
        UserError: the labels are wrong (see the sources), an id occurs twice, more than `max_rejected` of the
            chosen images are absent or broken, or a split has no image left.
    """
    for table in task.tables:
        demand_unchanged(table)
    dataset, archives = task.dataset, located(task.dataset, task.archives)
    lineages, labelled = dataset.reader.read(dataset, archives)
    for note in lineages.notes:
        print(note)
    chosen = _chosen(dataset, labelled, task.seed)
    placed, lost = _placed(chosen, archives)
    measured, broken = _measured(placed, task.threads)
    _demand_whole(pl.concat([lost, broken]), len(chosen), dataset.max_rejected)
    kept, leaked = _unleaked(measured)
    for split in archives:
        if not (kept["split"] == split).any():
            raise UserError(
                f"no image of the {split} split could be read from {archives[split]}; see the labels and "
                "archives"
            )
    facts = {"rule": "ingest", "source": dataset.source, "seed": task.seed}
    notes = {"names": [note.partition("\n")[0] for note in lineages.notes]} if lineages.notes else {}
    write_parquet(taxa_table(lineages, dataset.ranks), task.taxa, schemas.TAXA, **facts, **notes)
    write_frame(kept.sort("image_id"), task.images, schemas.IMAGES, **facts)
    rejected = pl.concat([lost, broken, leaked]).sort("archive", "member", maintain_order=True)
    write_frame(rejected, task.rejected, schemas.REJECTED, **facts)


def _chosen(dataset: RawDataset, labelled: list[Labelled], seed: int) -> pl.DataFrame:
    """Choose at most `images_per_leaf` images of each leaf and split: those with the lowest numbers drawn.

    Returns:
        image_id, split, leaf, member; leaves in the order in which they come first, and of each the lowest
        numbers first.
    """
    ids = [image.image_id for image in labelled]
    if len(set(ids)) < len(ids):
        twice = sorted(name for name, number in pc.value_counts(pa.array(ids)).to_pylist() if number > 1)
        raise UserError(f"{len(twice)} images have the id of another, as {twice[0]}")
    columns = {name: [getattr(image, name) for image in labelled] for name in ("split", "leaf", "member")}
    limits = {split: part.images_per_leaf or len(ids) for split, part in dataset.splits.items()}
    return (
        pl.DataFrame({"image_id": ids, **columns, "drawn": draw_numbers("images", seed, ids)})
        .with_row_index("first")
        .with_columns(pl.col("first").min().over("split", "leaf"))
        .sort("first", "drawn", maintain_order=True)
        .filter(pl.int_range(pl.len()).over("first") < pl.col("split").replace_strict(limits))
        .select("image_id", "split", "leaf", "member")
    )


def _placed(
    chosen: pl.DataFrame, archives: Mapping[str, Archive | Folder]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Find the chosen images, in the order in which they lie on the disk; those that are not there beside."""
    parts = []
    for split, archive in archives.items():
        mine = chosen.filter(pl.col("split") == split)
        places = archive.find(mine["member"])
        parts.append(mine.with_columns(*places.get_columns(), reason=pl.lit(archive.absent)))
    placed = pl.concat(parts)
    absent = pl.col("offset").is_null()
    lost = placed.filter(absent).select("archive", "member", "reason")
    return placed.filter(~absent).drop("reason").sort("archive", "offset", maintain_order=True), lost


def _measured(placed: pl.DataFrame, threads: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decode every image once; add width, height and digest, and leave out what is broken."""
    store = ImageStore(placed)

    def look(image_id: str) -> tuple[int | None, int | None, str | None, str | None]:
        data = store.read(image_id)
        try:
            return *decode(data).size, hashlib.sha256(data).hexdigest(), None
        except BrokenImage as error:
            return None, None, None, str(error)

    ids, looks = placed["image_id"].to_list(), []
    bar = tqdm(total=len(ids), desc="ingest", unit=" images", mininterval=5)
    with ThreadPoolExecutor(max(1, threads)) as pool, bar:
        for start in range(0, len(ids), _BATCH):
            for seen in pool.map(look, ids[start : start + _BATCH]):
                looks.append(seen)
                bar.update()
    measured = placed.with_columns(*pl.DataFrame(looks, schema=_LOOKS, orient="row").get_columns())
    broken = measured.filter(pl.col("reason").is_not_null()).select("archive", "member", "reason")
    return measured.filter(pl.col("reason").is_null()).drop("reason"), broken


def _demand_whole(rejected: pl.DataFrame, chosen: int, limit: float) -> None:
    """Stop where too many images are absent or broken: a damaged download would go unseen into every number.

    Training images left out since they equal a test image do not count; they are no damage.
    """
    if len(rejected) <= limit * chosen:
        return
    in_archive = pl.format("{} of {}", "member", "archive")
    common = (
        rejected.select(
            # Pillow gives the bytes that are missing in brackets
            kind=pl.col("reason").str.split(" (").list.first(),
            name=pl.when(pl.col("archive").str.ends_with(pl.col("member")))
            .then("archive")
            .otherwise(in_archive),
        )
        .group_by("kind")
        .agg(pl.len(), pl.col("name").head(2))
        .sort("len", "kind", descending=[True, False])
    )
    reasons = "\n".join(
        f"  {count} x {kind}: {', '.join(names)}" for kind, count, names in common.head(5).rows()
    )
    raise UserError(
        f"{len(rejected)} of {chosen} chosen images ({len(rejected) / chosen:.2%}) are absent or broken, "
        f"more than max_rejected ({limit:.2%}) allows:\n{reasons}\nGet whole files, or raise max_rejected in "
        "the data set's file to go on without these."
    )


def _unleaked(measured: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Leave out training images whose bytes are a test image's: nothing that is scored is learned from."""
    tested = measured.filter(pl.col("split") == "test")["sha256"].unique()
    leaked = (pl.col("split") == "train") & pl.col("sha256").is_in(tested.implode())
    rows = measured.filter(leaked).select("archive", "member", reason=pl.lit("same bytes as a test image"))
    return measured.filter(~leaked), rows
