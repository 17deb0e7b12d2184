"""Differences between systems over the same images."""

import zlib
from pathlib import Path

from vltaxon.metrics.database import reading
from vltaxon.metrics.uncertainty import paired_difference


def difference(
    database: Path,
    dataset: str,
    choices: str,
    metric: str,
    systems: tuple[str, str],
    bootstrap: int,
    seed: int,
) -> tuple[float, float, float] | None:
    """Return a metric of one system less that of another over the same images, with its 95 % interval.

    Args:
        database: with the values per image. Its paths are relative: call this from the workflow root.
        dataset: of the images.
        choices: of the questions.
        metric: a mean over images.
        systems: the second is taken from the first.
        bootstrap: resamples.
        seed: of the resamples.

    Returns:
        the difference, and its bounds; None where one of the systems lacks the metric.
    """
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
    return paired_difference(both["a"], both["b"], bootstrap, (seed, zlib.crc32(dataset.encode())))
