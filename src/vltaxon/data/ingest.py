"""From a data set's archives to three tables: taxa, images, and what was rejected, with the reason."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import polars as pl
from tqdm import tqdm

from vltaxon import schemas
from vltaxon.config.datasets import RawDataset
from vltaxon.data.archives import Archive, Folder, located
from vltaxon.data.images import BrokenImage, ImageStore, decode, examine
from vltaxon.data.labels import Labelled
from vltaxon.data.taxa import taxa_table
from vltaxon.data.verified import demand_unchanged
from vltaxon.errors import UserError, listed
from vltaxon.provenance import write_frame, write_parquet
from vltaxon.seeded import draw_numbers
from vltaxon.tasks.data import IngestTask

_EXPLAINED = 200  # absent images of which it is said what is there instead: that takes looking
_BATCH = 4096  # images whose futures are in memory at once
_LOOKS = {
    **{"width": pl.Int32, "height": pl.Int32, "sha256": pl.String, "reason": pl.String},
    **{"peak": pl.Int32, "unread": pl.Boolean},
}


def ingest(task: IngestTask) -> None:
    """Read a data set's labels, choose its images, look at each of these once, and write the three tables.

    `taxa` (schema `TAXA`) has a row without taxon for a missing rank; `images` (schema `IMAGES`) is ordered
    by image_id, with width and height of the upright image, and the digest of its bytes, followed by the
    marks of `examine`; `rejected` (schema `REJECTED`) has members that are absent, broken, training images
    equal to a test image, or test images equal to one another.

    Raises:
        UserError: the labels are wrong (see the sources), an id occurs twice, more than `max_rejected` of the
            chosen images are absent or broken, images of 16 bits use fewer and it is not said how many, or a
            split has no image left.
    """
    for table in task.tables:
        demand_unchanged(table)
    dataset, archives = task.dataset, located(task.dataset, task.archives)
    lineages, labelled = dataset.reader.read(dataset, archives)
    for note in lineages.notes:
        print(note)
    chosen = _chosen(dataset, labelled, task.seed)
    placed, lost = _placed(chosen, archives)
    measured, broken = _measured(placed, dataset.bits, task.threads)
    _demand_whole(pl.concat([lost, broken]), len(chosen), dataset.max_rejected)
    _demand_bits(measured)
    kept, leaked = _unleaked(measured.drop("peak", "unread"))
    kept, copies = _told_apart(kept)
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
    rejected = pl.concat([lost, broken, leaked, copies]).sort("archive", "member", maintain_order=True)
    write_frame(rejected, task.rejected, schemas.REJECTED, **facts)


def _chosen(dataset: RawDataset, labelled: list[Labelled], seed: int) -> pl.DataFrame:
    """Choose at most `images_per_leaf` images of each leaf and split: those with the lowest numbers drawn.

    Returns:
        image_id, split, leaf, member; leaves in the order in which they come first, and of each the lowest
        numbers first.
    """
    ids = [image.image_id for image in labelled]
    if twice := sorted(name for name, number in Counter(ids).items() if number > 1):
        both = [f"{one.leaf} ({one.split})" for one in labelled if one.image_id == twice[0]]
        raise UserError(
            f"{len(twice)} images are labelled more than once, as {twice[0]}: {listed(both)}; leave one "
            "label of each"
        )
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
        parts.append(mine.with_columns(*archive.find(mine["member"]).get_columns()))
    placed = pl.concat(parts)
    absent = pl.col("offset").is_null()
    lost = placed.filter(absent)
    rows = lost.select("split", "member").rows()
    reasons = [archives[split].absent(member) for split, member in rows[:_EXPLAINED]]
    reasons += ["is not there"] * (len(rows) - len(reasons))
    lost = lost.select("archive", "member", pl.Series("reason", reasons, pl.String))
    return placed.filter(~absent).sort("archive", "offset", maintain_order=True), lost


def _measured(placed: pl.DataFrame, bits: int | None, threads: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decode every image once; add width, height, digest and `peak`, and leave out what is broken."""
    store = ImageStore(placed)

    def look(image_id: str) -> tuple[object, ...]:
        data = store.read(image_id)
        try:
            found = examine(data, bits)
            size = decode(data, found.how).size
            return *size, hashlib.sha256(data).hexdigest() + found.how, None, found.peak, found.unread
        except BrokenImage as error:
            return None, None, None, str(error), None, None

    ids, looks = placed["image_id"].to_list(), []
    bar = tqdm(total=len(ids), desc="ingest", unit=" images", mininterval=5)
    with ThreadPoolExecutor(max(1, threads)) as pool, bar:
        for start in range(0, len(ids), _BATCH):
            for seen in pool.map(look, ids[start : start + _BATCH]):
                looks.append(seen)
                bar.update()
    measured = placed.with_columns(*pl.DataFrame(looks, schema=_LOOKS, orient="row").get_columns())
    broken = measured.filter(pl.col("reason").is_not_null()).select("archive", "member", "reason")
    if converted := measured["sha256"].str.ends_with("+srgb").sum():
        print(f"ingest: {converted:,} images are of another space of colours and are converted to sRGB")
    if unread := measured["unread"].sum():
        print(f"ingest: {unread:,} images have a profile of colours that cannot be used; read as sRGB")
    return measured.filter(pl.col("reason").is_null()).drop("reason"), broken


def _demand_whole(rejected: pl.DataFrame, chosen: int, limit: float) -> None:
    """Stop where too many images are absent or broken: a damaged download would go unseen into every number.

    Images left out since they equal another do not count; they are no damage.
    """
    if len(rejected) <= limit * chosen:
        return
    in_archive = pl.format("{} of {}", "member", "archive")
    reason = pl.col("reason").str.splitn(" (", 2).struct  # what is in brackets is of the one image
    more = pl.format(" ({}", reason.field("field_1")).fill_null("")
    common = (
        rejected.select(
            kind=reason.field("field_0"),
            name=pl.when(pl.col("archive").str.ends_with(pl.col("member")))
            .then("archive")
            .otherwise(in_archive)
            + more,
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


def _told_apart(kept: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Leave out test images whose bytes are another's: all where their leaves differ, else all but the first.

    Of two labels of one picture one is wrong, nobody knows which; and a picture that is there twice would
    count twice.
    """
    tests = kept.filter(pl.col("split") == "test").sort("image_id")
    twice = tests.filter(tests["sha256"].is_duplicated())
    if twice.is_empty():
        return kept, kept.head(0).select("archive", "member", reason=pl.lit(""))
    left = []
    for same in twice.partition_by("sha256", maintain_order=True):
        first, *others = same.rows(named=True)
        if same["leaf"].n_unique() == 1:
            left += [(one, f"same bytes as {first['member']}, which is kept") for one in others]
            continue
        for one in (first, *others):
            other = next(row for row in (first, *others) if row["leaf"] != one["leaf"])
            left.append(
                (one, f"labelled {one['leaf']}, and {other['leaf']} in {other['member']} of the same bytes")
            )
    gone = pl.DataFrame(
        [(one["archive"], one["member"], reason) for one, reason in left],
        schema=["archive", "member", "reason"],
        orient="row",
    )
    print(f"ingest: {len(gone):,} test images are left out, whose bytes are another test image's")
    return kept.filter(~pl.col("image_id").is_in([one["image_id"] for one, _ in left])), gone


def _demand_bits(measured: pl.DataFrame) -> None:
    """Stop where no image of 16 bits has a high value: written with fewer bits, all would be nearly black."""
    deep = measured.filter(pl.col("peak").is_not_null())
    if deep.is_empty() or (highest := int(deep["peak"].max())) >= 1 << 14:  # type: ignore[arg-type]
        return
    likely = next(bits for bits in (8, 10, 12, 14) if highest < 1 << bits)
    raise UserError(
        f"{len(deep):,} images have values of 16 bits, and none of these is above {highest:,} of 65,535: "
        f"they seem to have {likely} bits, and would be read nearly black "
        f"({listed(deep['archive'].to_list())}). Say in the data set's file how many they have: `bits: "
        f"{likely}`, or `bits: 16` if they are so dark"
    )
