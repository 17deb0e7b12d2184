"""Species parted for training: one half for SFT, the other for GRPO, and some held out and never trained on."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vltaxon import config, schemas
from vltaxon.errors import UserError
from vltaxon.lots import lots
from vltaxon.provenance import read_parquet, write_parquet
from vltaxon.taxonomy import Taxonomy


def partition(taxa: Path, images: Path, parts: config.Partition, seed: int, split: Path) -> None:
    """Put each species of the training data set into one of sft, grpo and held_out.

    Args:
        taxa: table of the data set.
        images: table of the data set; a species without training image is held out, beside those asked for.
        parts: how many are held out, and the share of the others that is for SFT.
        seed: of the draw.
        split: written, schema `PARTS`, ordered by leaf.

    Raises:
        UserError: fewer than one species each would be left for SFT and GRPO.
    """
    table = read_parquet(images, schemas.IMAGES, columns=["leaf", "split"])
    seen = set(table.filter(pc.equal(table["split"], "train"))["leaf"].to_pylist())
    leaves = Taxonomy.read(taxa).leaves
    names = [leaf for leaf in leaves if leaf in seen]
    order = [name for _, name in sorted(zip(lots("partition", seed, names).tolist(), names, strict=True))]
    rest = order[parts.held_out :]
    share = round(parts.sft_share * len(rest))
    if share < 1 or share >= len(rest):
        raise UserError(
            f"training.partition: held_out {parts.held_out} and sft_share {parts.sft_share} leave {share} species for sft and "
            f"{len(rest) - share} for grpo, of {len(names)} with training images; each needs at least one"
        )
    part = dict.fromkeys(leaves, "held_out") | dict.fromkeys(rest[:share], "sft") | dict.fromkeys(rest[share:], "grpo")
    rows = {"leaf": leaves, "part": [part[leaf] for leaf in leaves], "seed": [seed] * len(leaves)}
    write_parquet(pa.table(rows), split, schemas.PARTS, rule="partition", seed=seed)
