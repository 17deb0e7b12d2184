"""95 % intervals: percentile bootstrap over images, paired between systems; Wilson's where nothing varies.

The levels of one image depend on each other, so an image is drawn with all its levels or not at all. All
statistics of a call share the same draws, which makes their differences paired.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vltaxon.metrics.aggregate import Floats, Statistic, means

_TAILS = (2.5, 97.5)
_Z = 1.959963984540054  # 97.5 % point of the normal distribution
_ALIKE = 1e-9  # resamples that differ by less are rounded, not drawn, apart
_BLOCK = 64  # resamples held in memory at once, at most
_DRAWN = 1 << 26  # images drawn in them, about: half a GiB


def _draws(images: int, resamples: int, seed: int | tuple[int, ...]) -> Iterator[Floats]:
    """Yield how often each image is drawn: blocks of shape (up to 64, images), `resamples` rows in all."""
    rng = np.random.default_rng(seed)
    height = max(1, min(_BLOCK, _DRAWN // images))
    for start in range(0, resamples, height):
        rows = min(height, resamples - start)
        block = np.empty((rows, images))
        for row in block:
            row[:] = np.bincount(rng.integers(images, size=images), minlength=images)
        yield block


def percentiles(resampled: Floats) -> tuple[Floats, Floats]:
    """Return the bounds of the 95 % interval of each column."""
    low, high = np.nanpercentile(resampled, _TAILS, axis=0)
    return low, high


def resampled(
    statistics: list[Statistic], images: int, resamples: int, seed: int | tuple[int, ...]
) -> list[Floats]:
    """Return the values of statistics in the same resamples.

    Args:
        statistics: each takes how often every image is drawn.
        images: how many there are.
        resamples: how many sets of so many images are drawn.
        seed: of the draws; the same seed and number of images give the same draws.

    Returns:
        for each statistic, shape (resamples, its columns).
    """
    blocks = [[statistic(weights) for statistic in statistics] for weights in _draws(images, resamples, seed)]
    return [np.concatenate(values) for values in zip(*blocks, strict=True)]


def wilson(share: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Return Wilson's score interval (Wilson 1927), elementwise.

    Args:
        share: of 1.
        n: of how many.
    """
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    # Clipped, since rounding must not put the share outside of its interval.
    return np.clip(centre - half, 0.0, share), np.clip(centre + half, share, 1.0)


def mean_intervals(
    values: Floats, drawn: Floats, shares: NDArray[np.bool_]
) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """Return the mean of each column, its 95 % interval, and the number of images behind it.

    Args:
        values: shape (images, columns), NaN where a metric does not apply to an image; each column needs one
            number at least.
        drawn: the means in each resample, shape (resamples, columns).
        shares: whether a column is between 0 and 1. Where all values are equal it gets
            Wilson's interval, as a bootstrap would have no width.
    """
    n = np.count_nonzero(~np.isnan(values), axis=0)
    mean = np.nansum(values, axis=0) / n
    low, high = percentiles(drawn)
    flat = shares & (np.nanmin(values, axis=0) == np.nanmax(values, axis=0))
    low[flat], high[flat] = wilson(mean[flat], n[flat].astype(float))
    return mean, low, high, n


def interval(value: float, drawn: Floats, n: int, share: bool) -> tuple[float, float]:
    """Return the 95 % interval of a number that is no mean; Wilson's where a share is alike in all resamples.

    Args:
        value: the number.
        drawn: the same in each resample, NaN where it has none.
        n: images behind it.
        share: whether it is between 0 and 1.
    """
    some = drawn[~np.isnan(drawn)]
    if share and (len(some) == 0 or np.ptp(some) < _ALIKE):
        low, high = wilson(np.clip(value, 0.0, 1.0), np.array(float(n)))
    else:
        low, high = percentiles(drawn)
    return float(low), float(high)


def paired_difference(
    a: Floats, b: Floats, resamples: int, seed: int | tuple[int, ...]
) -> tuple[float, float, float]:
    """Return the mean of `a` less the mean of `b` with its 95 % interval, both drawn together.

    Args:
        a: one value per image, NaN where it does not apply.
        b: the same images in the same order.
        resamples: bootstrap resamples.
        seed: of the draws.
    """
    [drawn] = resampled([means(np.column_stack([a, b]))], len(a), resamples, seed)
    low, high = percentiles(drawn[:, 0] - drawn[:, 1])
    return float(np.nanmean(a) - np.nanmean(b)), float(low), float(high)
