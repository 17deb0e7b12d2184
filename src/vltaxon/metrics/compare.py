"""Differences between systems over the same images."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vltaxon.metrics.aggregate import Floats
from vltaxon.metrics.database import reading
from vltaxon.metrics.uncertainty import paired_difference


class Difference(NamedTuple):
    """A metric of one system less that of another over the same images.

    Attributes:
        points: of 1.
        low: of its 95 % interval.
        high: of its 95 % interval.
        p: of the exact test of signs over the images on which they differ (McNemar's where each is right or
            wrong), two-sided; 1 where they differ on none.
    """

    points: float
    low: float
    high: float
    p: float


class Compared(NamedTuple):
    """What is compared: a metric of a system less that of another, over the images of a table."""

    systems: tuple[str, str]
    dataset: str
    choices: str
    metric: str


def differences(
    database: Path,
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[str],
    bootstrap: int,
    seed: int,
) -> dict[Compared, Difference]:
    """Return metrics of systems less those of others over the same images, in every table that has both.

    Args:
        database: with the values per image, which are read once. Its paths are relative: call this from the
            workflow root.
        pairs: of systems; the second is taken from the first.
        metrics: means over images.
        bootstrap: resamples.
        seed: of the resamples.
    """
    import polars as pl

    with reading(database) as connection:
        values = connection.sql(
            """
            SELECT dataset, choices, metric, system, image_id, value FROM per_image
            WHERE metric IN (SELECT unnest($1)) AND system IN (SELECT unnest($2))
            """,
            params=[list(metrics), sorted({system for pair in pairs for system in pair})],
        ).pl()
    found = {}
    table = ["dataset", "choices", "metric"]
    for pair in pairs:
        one, other = (values.filter(pl.col("system") == system).drop("system") for system in pair)
        both = one.join(other, [*table, "image_id"], suffix="_other").sort(*table, "image_id")
        for (dataset, choices, metric), rows in both.group_by(table, maintain_order=True):
            a, b = rows["value"].to_numpy(), rows["value_other"].to_numpy()
            of = Compared(pair, str(dataset), str(choices), str(metric))
            found[of] = _difference(a, b, bootstrap, (seed, zlib.crc32(of.dataset.encode())))
    return found


def _difference(a: Floats, b: Floats, bootstrap: int, seed: tuple[int, int]) -> Difference:
    from scipy.stats import binomtest

    points, low, high = paired_difference(a, b, bootstrap, seed)
    better, worse = (int(np.count_nonzero(sign * (a - b) > 0)) for sign in (1, -1))
    p = binomtest(better, better + worse).pvalue if better + worse else 1.0
    return Difference(points, low, high, float(p))
