"""Differences between systems over the same images."""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

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


def difference(
    database: Path,
    dataset: str,
    choices: str,
    metric: str,
    systems: tuple[str, str],
    bootstrap: int,
    seed: int,
) -> Difference | None:
    """Return a metric of one system less that of another over the same images.

    Args:
        database: with the values per image. Its paths are relative: call this from the workflow root.
        dataset: of the images.
        choices: of the questions.
        metric: a mean over images.
        systems: the second is taken from the first.
        bootstrap: resamples.
        seed: of the resamples.

    Returns:
        the difference; None where one of the systems lacks the metric.
    """
    from scipy.stats import binomtest

    with reading(database) as connection:
        both = connection.sql(
            """
            SELECT a.value AS a, b.value AS b
            FROM per_image AS a JOIN per_image AS b USING (dataset, choices, metric, image_id)
            WHERE dataset = $1 AND choices = $2 AND metric = $3 AND a.system = $4 AND b.system = $5
            ORDER BY image_id
            """,
            params=[dataset, choices, metric, *systems],
        ).fetchnumpy()
    if not len(both["a"]):
        return None
    points, low, high = paired_difference(
        both["a"], both["b"], bootstrap, (seed, zlib.crc32(dataset.encode()))
    )
    better, worse = (int(np.count_nonzero(sign * (both["a"] - both["b"]) > 0)) for sign in (1, -1))
    p = binomtest(better, better + worse).pvalue if better + worse else 1.0
    return Difference(points, low, high, float(p))
