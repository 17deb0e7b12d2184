"""Species parted for training: some for SFT, some for GRPO, and some held out and never trained on."""

from pathlib import Path

import polars as pl

from vltaxon import schemas
from vltaxon.errors import UserError
from vltaxon.provenance import read_frame, write_frame
from vltaxon.seeded import draw_numbers
from vltaxon.tasks.questions import PartitionTask
from vltaxon.taxonomy import Taxonomy


def partition(task: PartitionTask) -> None:
    """Put each species of the training data set into one of sft, grpo and held_out.

    The table has the schema `PARTS` and is ordered by leaf. A species without training image is held out,
    beside those asked for.

    Raises:
        UserError: fewer than one species each would be left for SFT and GRPO.
    """
    parts = task.partition
    images = read_frame(task.images, schemas.IMAGES, ["leaf", "split"])
    trained = images.filter(pl.col("split") == "train").select("leaf")
    leaves = pl.DataFrame({"leaf": Taxonomy.read(task.taxa).leaves})
    names = leaves.join(trained, on="leaf", how="semi", maintain_order="left")["leaf"]
    numbers = draw_numbers("partition", task.seed, names)
    drawn = pl.DataFrame({"leaf": names, "number": numbers}).sort("number", "leaf")
    rest = drawn.select("leaf")[parts.held_out :]
    share = round(parts.sft_share * len(rest))
    if share < 1 or share >= len(rest):
        raise UserError(
            f"training.partition: held_out {parts.held_out} and sft_share {parts.sft_share} leave {share} "
            f"species for sft and {len(rest) - share} for grpo, of {len(names)} with training images; each "
            "needs at least one"
        )
    sft, grpo = rest[:share].with_columns(part=pl.lit("sft")), rest[share:].with_columns(part=pl.lit("grpo"))
    table = leaves.join(pl.concat([sft, grpo]), on="leaf", how="left", maintain_order="left")
    table = table.with_columns(pl.col("part").fill_null("held_out"), seed=pl.lit(task.seed))
    write_frame(table, task.parts, schemas.PARTS, rule="partition", seed=task.seed)


def allowed_parts(part: str) -> frozenset[str]:
    """Return the species parts that `Step.part` means; the held-out species are in none."""
    return frozenset({"sft", "grpo"} if part == "all" else {part})


def training_images(images: Path, parts: Path, allowed: frozenset[str]) -> list[tuple[str, str]]:
    """Return (image_id, leaf) of the training images in the allowed parts, by image_id.

    Args:
        images: table of the training data set.
        parts: what `partition` wrote of it.
        allowed: parts, as `allowed_parts` gives them.

    Raises:
        UserError: an image is of both splits, a species is in two parts, or one is in none.
    """
    table = read_frame(images, schemas.IMAGES, ["image_id", "split", "leaf"])
    part_of = read_frame(parts, schemas.PARTS)
    train, test = (table.filter(pl.col("split") == split) for split in ("train", "test"))
    both = train.join(test, on="image_id", how="semi")["image_id"].unique().sort()
    if len(both):
        raise UserError(
            f"{images}: {len(both)} images are of both splits, {both[0]} for one; the test split is never "
            "trained on"
        )
    several = part_of.filter(pl.col("part").n_unique().over("leaf") > 1)["leaf"]
    if len(several):
        raise UserError(f"{parts}: {several[0]} is in two parts; delete the file and run the workflow again")
    lost = train.join(part_of, on="leaf", how="anti")["leaf"].unique().sort()
    if len(lost):
        raise UserError(
            f"{parts}: {len(lost)} leaves of {images} have no part, {lost[0]} for one; delete it and run "
            "again"
        )
    taken = train.join(part_of.filter(pl.col("part").is_in(allowed)), on="leaf", how="semi")
    return list(taken.select("image_id", "leaf").sort("image_id", "leaf").iter_rows())
