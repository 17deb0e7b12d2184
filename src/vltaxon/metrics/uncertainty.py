"""95 % intervals: percentile bootstrap over images, paired between systems; Wilson's interval where nothing varies.

The levels of one image depend on each other, so an image is drawn with all its levels or not at all. All columns of a call share
the same draws, which makes their differences paired.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TAILS = (2.5, 97.5)
_Z = 1.959963984540054  # 97.5 % point of the normal distribution
_BLOCK = 64  # resamples held in memory at once, at most
_DRAWN = 1 << 26  # images drawn in them, about: half a GiB


def _draws(images: int, resamples: int, seed: int | tuple[int, ...]) -> Iterator[Floats]:
    """How often each image is drawn: blocks of shape (up to 64, images), fewer rows for many images, `resamples` rows in all."""
    rng = np.random.default_rng(seed)
    height = max(1, min(_BLOCK, _DRAWN // images))
    for start in range(0, resamples, height):
        rows = min(height, resamples - start)
        block = np.empty((rows, images))
        for row in block:
            row[:] = np.bincount(rng.integers(images, size=images), minlength=images)
        yield block


def _percentiles(means: Floats) -> tuple[Floats, Floats]:
    low, high = np.nanpercentile(means, _TAILS, axis=0)
    return low, high


def _resampled(values: Floats, resamples: int, seed: int | tuple[int, ...]) -> Floats:
    """Mean of each column in each resample, shape (resamples, columns); NaN where a resample misses every value of a column."""
    present = ~np.isnan(values)
    gaps = np.flatnonzero(~present.all(axis=0))
    filled, mask = np.where(present, values, 0.0), present[:, gaps].astype(float)
    blocks = []
    for weights in _draws(len(values), resamples, seed):
        counts = np.full((len(weights), values.shape[1]), float(len(values)))
        counts[:, gaps] = weights @ mask
        with np.errstate(invalid="ignore"):
            blocks.append((weights @ filled) / counts)
    return np.concatenate(blocks)


def wilson(share: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Wilson's score interval of a share of `n` (Wilson 1927), elementwise."""
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return np.clip(centre - half, 0.0, share), np.clip(centre + half, share, 1.0)  # rounding must not put the share outside


def intervals(
    values: Floats, shares: NDArray[np.bool_], resamples: int, seed: int | tuple[int, ...]
) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """Mean and 95 % interval of each column.

    Args:
        values: shape (images, columns), NaN where a metric does not apply to an image; each column needs one number at least.
        shares: whether a column is between 0 and 1. Where all values are equal it gets
            Wilson's interval, as a bootstrap would have no width.
        resamples: bootstrap resamples.
        seed: of the draws; the same seed and number of images give the same draws.

    Returns:
        mean, low, high, and the number of images behind each mean.
    """
    n = np.count_nonzero(~np.isnan(values), axis=0)
    mean = np.nansum(values, axis=0) / n
    low, high = _percentiles(_resampled(values, resamples, seed))
    flat = shares & (np.nanmin(values, axis=0) == np.nanmax(values, axis=0))
    low[flat], high[flat] = wilson(mean[flat], n[flat].astype(float))
    return mean, low, high, n


def paired_difference(a: Floats, b: Floats, resamples: int, seed: int | tuple[int, ...]) -> tuple[float, float, float]:
    """Mean of `a` less mean of `b` with its 95 % interval, both drawn together.

    Args:
        a: one value per image, NaN where it does not apply.
        b: the same images in the same order.
        resamples: bootstrap resamples.
        seed: of the draws.
    """
    means = _resampled(np.column_stack([a, b]), resamples, seed)
    low, high = _percentiles(means[:, 0] - means[:, 1])
    return float(np.nanmean(a) - np.nanmean(b)), float(low), float(high)
