"""Species parted for training: one half for SFT, the other for GRPO, and some held out and never trained on."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vltaxon import schemas
from vltaxon.errors import UserError
from vltaxon.provenance import read_parquet, write_parquet
from vltaxon.seeded import draw_numbers
from vltaxon.tasks.questions import PartitionTask
from vltaxon.taxonomy import Taxonomy


def partition(task: PartitionTask) -> None:
    """Put each species of the training data set into one of sft, grpo and held_out: schema `PARTS`, ordered by leaf.

    A species without training image is held out, beside those asked for.

    Raises:
        UserError: fewer than one species each would be left for SFT and GRPO.
    """
    table, parts, seed = (
        read_parquet(task.images, schemas.IMAGES, columns=["leaf", "split"]),
        task.partition,
        task.seed,
    )
    seen = set(table.filter(pc.equal(table["split"], "train"))["leaf"].to_pylist())
    leaves = Taxonomy.read(task.taxa).leaves
    names = [leaf for leaf in leaves if leaf in seen]
    order = [name for _, name in sorted(zip(draw_numbers("partition", seed, names).tolist(), names, strict=True))]
    rest = order[parts.held_out :]
    share = round(parts.sft_share * len(rest))
    if share < 1 or share >= len(rest):
        raise UserError(
            f"training.partition: held_out {parts.held_out} and sft_share {parts.sft_share} leave {share} species for sft and "
            f"{len(rest) - share} for grpo, of {len(names)} with training images; each needs at least one"
        )
    part = (
        dict.fromkeys(leaves, "held_out")
        | dict.fromkeys(rest[:share], "sft")
        | dict.fromkeys(rest[share:], "grpo")
    )
    rows = {"leaf": leaves, "part": [part[leaf] for leaf in leaves], "seed": [seed] * len(leaves)}
    write_parquet(pa.table(rows), task.parts, schemas.PARTS, rule="partition", seed=seed)


def allowed_parts(part: str) -> frozenset[str]:
    """Species parts that `Step.part` means; the held-out species are in none."""
    return frozenset({"sft", "grpo"} if part == "all" else {part})


def training_images(images: Path, parts: Path, allowed: frozenset[str]) -> list[tuple[str, str]]:
    """(image_id, leaf) of the training images in the allowed parts, by image_id."""
    table = read_parquet(images, schemas.IMAGES, ["image_id", "split", "leaf"])
    train = table.filter(pc.equal(table["split"], "train")).to_pylist()
    tested = set(table.filter(pc.equal(table["split"], "test"))["image_id"].to_pylist())
    if both := sorted(tested.intersection(row["image_id"] for row in train)):
        raise UserError(
            f"{images}: {len(both)} images are of both splits, {both[0]} for one; the test split is never trained on"
        )
    part_of: dict[str, str] = {}
    for row in read_parquet(parts, schemas.PARTS).to_pylist():
        if part_of.setdefault(row["leaf"], row["part"]) != row["part"]:
            raise UserError(
                f"{parts}: {row['leaf']} is in two parts; delete the file and run the workflow again"
            )
    if lost := sorted({row["leaf"] for row in train} - part_of.keys()):
        raise UserError(
            f"{parts}: {len(lost)} leaves of {images} have no part, {lost[0]} for one; delete it and run again"
        )
    return sorted((row["image_id"], row["leaf"]) for row in train if part_of[row["leaf"]] in allowed)
