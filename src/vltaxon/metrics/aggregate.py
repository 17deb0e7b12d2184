"""How the rows of a metric become one number, and the same number of a bootstrap resample.

A statistic takes weights, how often each image is drawn, and gives its value for each set of them: so one
bootstrap serves all. A mean needs a `value` per image. Others need other columns, which the metric's SQL
gives:

    mean              of `value`
    harmonic(a, b)    harmonic mean of the means of two other metrics; no SQL
    macro_f1          F1 of labels, `predicted` against `truth`, averaged over the classes that stand in
                      either
    macro_f1(true)    the same, over the classes that stand in `truth`
    macro_f1(micro)   F1 of all labels together
    area              area under the curve of the mean `value` against the share of images kept, the most
                      `confidence` first

The three readings of F1 are those of TerraIncognita (arXiv 2506.03182), whose script has the first: there a
label that exists nowhere, or "Unknown", is a class with F1 0. Labels are compared as they are.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vltaxon.errors import UserError, suggest

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float64]
Labels = NDArray[np.object_]
Statistic = Callable[[Floats], Floats]  # weights of shape (resamples, images) -> (resamples, columns)


class Aggregate(NamedTuple):
    """An aggregate by its name, and what it is told: other metrics, or a reading."""

    name: str
    told: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Aggregate":
        """Return what a head says, `mean` or `harmonic(a, b)`.

        Raises:
            UserError: there is no such aggregate, or it is not told so.
        """
        match = re.fullmatch(r"(\w+)(?:\(([\w, ]+)\))?", text)
        if match is None or match[1] not in AGGREGATES:
            raise UserError(f'"{text}" is not {suggest(text, AGGREGATES)}')
        told = tuple(re.split(r", *", match[2])) if match[2] else ()
        allowed = AGGREGATES[match[1]].told
        if not (told in allowed if allowed is not None else len(told) == 2):
            said = (
                "two metrics"
                if allowed is None
                else " or ".join(", ".join(one) or "nothing" for one in allowed)
            )
            raise UserError(f"{match[1]} is told {said} in parentheses")
        return cls(match[1], told)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the metrics that it is made of; none of one that has rows of its own."""
        return self.told if AGGREGATES[self.name].made is None and self != MEAN else ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that its rows must have."""
        return AGGREGATES[self.name].columns


MEAN = Aggregate("mean")


class _Kind(NamedTuple):
    """Its columns, what an aggregate may be told (None: two metrics), and what makes its statistic."""

    columns: tuple[str, ...]
    told: tuple[tuple[str, ...], ...] | None
    made: Callable[..., Statistic] | None = None


def means(values: Floats) -> Statistic:
    """Return the means of columns: NaN where a resample misses every value of one.

    Args:
        values: shape (images, columns), NaN where a metric does not apply to an image.
    """
    present = ~np.isnan(values)
    gaps = np.flatnonzero(~present.all(axis=0))
    filled, mask = np.where(present, values, 0.0), present[:, gaps].astype(float)

    def statistic(weights: Floats) -> Floats:
        counts = np.full((len(weights), values.shape[1]), float(len(values)))
        counts[:, gaps] = weights @ mask
        with np.errstate(invalid="ignore"):
            means: Floats = (weights @ filled) / counts
        return means

    return statistic


def harmonic(a: Floats, b: Floats) -> Floats:
    """Return the harmonic mean of two numbers, elementwise.

    Args:
        a: the one.
        b: the other; where both are 0, so is their mean.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(a + b == 0, 0.0, 2 * a * b / (a + b))


def macro_f1(truth: Labels, predicted: Labels, reading: str = "") -> Statistic:
    """Return F1 of labels; NaN where a resample has no label.

    A class that a resample has neither in truth nor in predictions (`true`: not in truth) is no part of its
    mean.

    Args:
        truth: the true label of each image, None where the metric does not apply to it.
        predicted: the label given, None where there is none.
        reading: the mean over classes in either ("") or in truth (`true`), or of all labels together
            (`micro`).
    """
    there = np.array([label is not None for label in truth])
    labels = dict.fromkeys(label for label in (*truth[there], *predicted[there]) if label is not None)
    classes = {label: at for at, label in enumerate(labels)}
    true, given = (_one_hot(some, there, classes) for some in (truth, predicted))
    both = true.multiply(given).tocsr()

    def statistic(weights: Floats) -> Floats:
        t, p, hit = ((counts.T @ weights.T).T for counts in (true, given, both))
        with np.errstate(invalid="ignore", divide="ignore"):
            if reading == "micro":
                return np.asarray(2 * hit.sum(axis=1) / (t.sum(axis=1) + p.sum(axis=1)))[:, None]
            counted = t > 0 if reading == "true" else t + p > 0
            f1 = np.where(counted, 2 * hit / (t + p), 0.0)
            return np.asarray(f1.sum(axis=1) / counted.sum(axis=1))[:, None]

    return statistic


def _one_hot(labels: Labels, there: NDArray[np.bool_], classes: Mapping[str, int]) -> "csr_matrix":
    """Return which of the images that are there has which label, shape (images, classes)."""
    from scipy.sparse import csr_matrix

    rows = np.flatnonzero([label is not None for label in labels] & there)
    places = np.array([classes[label] for label in labels[rows]], dtype=int)
    return csr_matrix((np.ones(len(rows)), (rows, places)), shape=(len(labels), len(classes)))


def area(value: Floats, confidence: Floats) -> Statistic:
    """Return the mean value of the images kept, averaged over the shares of images that can be kept.

    Images of equal confidence are kept or left together.

    Args:
        value: of each image, NaN where the metric does not apply to it.
        confidence: by which images are kept, the highest first.
    """
    there = np.flatnonzero(~np.isnan(value) & ~np.isnan(confidence))
    order = there[np.argsort(-confidence[there], kind="stable")]
    last = np.flatnonzero(np.diff(confidence[order], append=-np.inf))  # of each group of equals

    def statistic(weights: Floats) -> Floats:
        if not len(order):  # no image has both, so there is no curve
            return np.full((len(weights), 1), np.nan)
        drawn = weights[:, order]
        kept, sums = drawn.cumsum(axis=1)[:, last], (drawn * value[order]).cumsum(axis=1)[:, last]
        with np.errstate(invalid="ignore", divide="ignore"):
            heights = np.where(kept > 0, sums / kept, 0.0)
            steps = np.diff(kept, axis=1, prepend=0.0) / kept[:, -1:]
            return np.asarray((steps * heights).sum(axis=1, keepdims=True))

    return statistic


AGGREGATES: dict[str, _Kind] = {
    "mean": _Kind(("value",), ((),)),
    "harmonic": _Kind((), None),
    "macro_f1": _Kind(("truth", "predicted"), ((), ("true",), ("micro",)), macro_f1),
    "area": _Kind(("value", "confidence"), ((),), area),
}
