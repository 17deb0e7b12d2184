"""The images of a shard, and the leaves that they truly have."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vltaxon import provenance, schemas
from vltaxon.config.models import VISUAL_TOKEN
from vltaxon.shards import bounds, cost
from vltaxon.tasks.asking import Answering, Asking
from vltaxon.taxonomy import Taxonomy

Costs = Callable[[int, int], int]  # of an image of so many pixels and so many requests about it


def images_of_shard(
    images: Path, shard: int, shards: int, questions: Path | None = None, costs: Costs | None = None
) -> list[str]:
    """Return the test images of one of several contiguous ranges of about equal cost, in order.

    Args:
        images: table of the data set.
        shard: which range.
        shards: how many there are.
        questions: that are asked about the images; where not said, one of each.
        costs: where not said, each request costs the same.

    Returns:
        Their ids.
    """
    table = provenance.read_parquet(images, schemas.IMAGES, ["image_id", "split", "width", "height"])
    table = table.filter(pc.equal(table["split"], "test")).sort_by("image_id")
    ids: list[str] = table["image_id"].to_pylist()
    if shards == 1:
        return ids
    numbers = _question_counts(questions, ids) if questions is not None else [1] * len(ids)
    if costs is None:
        each = numbers
    else:
        pixels = pc.multiply(table["width"].cast(pa.int64()), table["height"].cast(pa.int64())).to_pylist()
        each = [costs(*of) for of in zip(pixels, numbers, strict=True)]
    first, end = bounds(each, shards)[shard : shard + 2]
    return ids[first:end]


def _question_counts(questions: Path, ids: Sequence[str]) -> list[int]:
    """Return how many questions each image has."""
    numbers, wanted = np.zeros(len(ids), np.int64), pa.array(ids, pa.string())
    for batch in provenance.parquet_batches(questions, schemas.QUESTIONS, ["image_id"], rows=1 << 20):
        np.add.at(numbers, pc.index_in(batch["image_id"], wanted).drop_null().to_numpy(), 1)
    return list(numbers.tolist())


def expected_costs(asking: Answering) -> Costs | None:
    """Return what images and requests about them are expected to cost, so that shards take equally long."""
    if not isinstance(asking, Asking):
        return None
    from vltaxon.inference.stages.requests import limited

    most, least = asking.model.pixels, asking.model.min_pixels
    each = cost(limited(asking), asking.prompt, 0)

    def of(pixels: int, requests: int) -> int:
        return each._replace(image=min(max(pixels, least), most) / VISUAL_TOKEN).of(requests)

    return of


def leaves_of(images: Path, ids: Sequence[str]) -> dict[str, str]:
    """Return the leaf of each image, by which the taxonomy knows it.

    Args:
        images: table of the data set.
        ids: of the images.
    """
    wanted = pc.field("image_id").isin(pa.array(ids, pa.string()))
    table = provenance.read_parquet(images, schemas.IMAGES, ["image_id", "leaf"], wanted)
    return dict(zip(table["image_id"].to_pylist(), table["leaf"].to_pylist(), strict=True))


def true_leaves(images: Path, taxa: Path, ids: Sequence[str]) -> dict[str, str]:
    """Return the displayed name of each image's leaf.

    Args:
        images: table of the data set.
        taxa: table of the data set.
        ids: of the images.
    """
    tree = Taxonomy.read(taxa)
    return {image_id: tree.name(leaf) for image_id, leaf in leaves_of(images, ids).items()}
