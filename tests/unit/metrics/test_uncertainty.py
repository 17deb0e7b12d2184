"""Intervals: against scipy, at the edges, and paired."""

import numpy as np
import pytest
from scipy import stats

from vltaxon.metrics.aggregate import means
from vltaxon.metrics.uncertainty import mean_intervals, paired_difference, resampled, wilson


def intervals(values: np.ndarray, shares: np.ndarray, resamples: int, seed: int) -> tuple[np.ndarray, ...]:
    """Mean, low, high and n of each column."""
    [drawn] = resampled([means(values)], len(values), resamples, seed)
    return mean_intervals(values, drawn, shares)


def _one(
    values: np.ndarray, resamples: int = 4000, seed: int = 0, share: bool = True
) -> tuple[float, float, float, int]:
    mean, low, high, n = intervals(values[:, None], np.array([share]), resamples, seed)
    return mean[0], low[0], high[0], int(n[0])


@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_scipy(seed: int) -> None:
    values = np.random.default_rng(seed).beta(2, 1, size=150)
    ours = _one(values, seed=seed)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=seed
    ).confidence_interval
    assert ours[1:3] == pytest.approx(tuple(theirs), abs=0.004)


def test_agrees_with_scipy_where_values_are_missing() -> None:
    """HCA(L): the images that count differ from resample to resample, so it is a ratio of two resampled sums."""
    rng = np.random.default_rng(3)
    values = np.where(rng.random(200) < 0.5, (rng.random(200) < 0.7).astype(float), np.nan)
    low, high = stats.bootstrap(
        (values,), np.nanmean, n_resamples=4000, method="percentile", rng=0
    ).confidence_interval
    ours = _one(values)
    assert ours[1:3] == pytest.approx((low, high), abs=0.02)
    assert ours[3] == np.count_nonzero(~np.isnan(values))


def test_wilson_agrees_with_scipy() -> None:
    for right, n in ((0, 1), (0, 40), (40, 40), (7, 40), (1, 3)):
        low, high = wilson(np.array([right / n]), np.array([float(n)]))
        theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
        assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_no_interval_of_a_share_has_zero_width(value: float) -> None:
    _, low, high, _ = _one(np.full(50, value))
    assert high - low > 0.05 and low <= value <= high


def test_amounts_that_never_vary_have_no_spread() -> None:
    assert _one(np.full(50, 1.0), share=False)[:3] == (1, 1, 1)


def test_an_interval_does_not_depend_on_other_columns_or_blocks() -> None:
    values = np.random.default_rng(0).random((70, 3))
    together = intervals(values, np.full(3, True), 130, 5)
    alone = intervals(values[:, 1:2], np.full(1, True), 130, 5)
    assert [x[1] for x in together] == pytest.approx([x[0] for x in alone], abs=1e-12)


def test_pairing_narrows_a_difference() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(300)
    better = base + 0.05 + 0.01 * rng.random(300)
    value, low, high = paired_difference(better, base, 1000, 0)
    _, shuffled_low, shuffled_high = paired_difference(rng.permutation(better), base, 1000, 0)
    assert value == pytest.approx(float(better.mean() - base.mean()))
    assert 0 < low < value < high
    assert (high - low) * 5 < shuffled_high - shuffled_low


def test_seed_decides_the_draws() -> None:
    values = np.random.default_rng(0).random(60)
    assert _one(values, 100, 1) == _one(values, 100, 1) != _one(values, 100, 2)
