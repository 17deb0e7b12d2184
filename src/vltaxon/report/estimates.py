"""The scores as the report reads them: by data set, choices, system and metric, in the config's order."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from vltaxon import schemas
from vltaxon.metrics.heads import OPEN
from vltaxon.provenance import facts, read_parquet


class Estimate(NamedTuple):
    """A number of `n` images with its 95 % interval; shares are fractions."""

    value: float
    low: float
    high: float
    n: int

    @property
    def bars(self) -> list[list[float]]:
        """Return error bars in percent, below and above; a percentile interval may leave out the mean."""
        return [[100 * max(self.value - self.low, 0.0)], [100 * max(self.high - self.value, 0.0)]]


Key = tuple[str, str, str, str, int | None, str]
_KEY = ("dataset", "choices", "system", "metric", "level", "subset")


@dataclass(frozen=True)
class Scores:
    """All estimates by (dataset, choices, system, metric, level, subset)."""

    found: Mapping[Key, Estimate]
    warnings: Sequence[Sequence[str]] = ()  # data set, choices, system, words
    unasked: Sequence[tuple[str, str, int, int]] = ()  # data set, choices, images without question, images
    notes: Sequence[Sequence[str]] = ()  # data set, words

    @classmethod
    def read(cls, path: Path) -> "Scores":
        """Read scores.parquet."""
        frame = pl.DataFrame(read_parquet(path, schemas.SCORES)).select(*_KEY, *Estimate._fields)
        found = {row[:6]: Estimate(*row[6:]) for row in frame.iter_rows()}
        told = facts(path)
        unasked = [(d, c, lost, of) for d, c, lost, of in json.loads(told.get("unasked", "[]"))]
        warnings, notes = (json.loads(told.get(name, "[]")) for name in ("warnings", "notes"))
        return cls(found, warnings, unasked, notes)

    def lacking(self, dataset: str, choices: str) -> tuple[int, int]:
        """Return how many test images have no scored question, and so count nowhere, and of how many.

        Args:
            dataset: whose images.
            choices: of the questions.
        """
        return next((row[2:] for row in self.unasked if row[:2] == (dataset, choices)), (0, 0))

    def warned(self, dataset: str, choices: str) -> dict[str, list[str]]:
        """Return what is to be known of the answers of systems, in words; stage 1 goes with all choices.

        Args:
            dataset: that the systems were asked about.
            choices: of the questions.
        """
        out: dict[str, list[str]] = {}
        for of_dataset, kind, system, words in self.warnings:
            if of_dataset == dataset and kind in (choices, OPEN):
                out.setdefault(system, []).append(words)
        return out

    def get(
        self,
        dataset: str,
        choices: str,
        system: str,
        metric: str,
        level: int | None = None,
        subset: str = "all",
    ) -> Estimate | None:
        """Return one estimate, None where the system has none.

        Args:
            dataset: that the system was asked about.
            choices: of the questions, `open_set` for stage 1.
            system: that answered.
            metric: its name in the scores.
            level: of a metric that has one for each.
            subset: of the images.
        """
        return self.found.get((dataset, choices, system, metric, level, subset))

    @property
    def datasets(self) -> list[str]:
        """Return the data sets, in the order in which they were scored."""
        return list(dict.fromkeys(key[0] for key in self.found))

    def subsets(self, dataset: str) -> set[str]:
        """Return the subsets of a data set's images that were scored."""
        return {key[5] for key in self.found if key[0] == dataset}

    def images(self, dataset: str, choices: str | None = None) -> int:
        """Return how many images of a data set were scored.

        Args:
            dataset: whose images.
            choices: of the questions; any where not said.
        """
        counts = (
            one.n
            for key, one in self.found.items()
            if key[0] == dataset and key[5] == "all" and choices in (None, key[1])
        )
        return max(counts, default=0)

    def choices(self, dataset: str) -> list[str]:
        """Return the kinds of options of a data set; `similar` first, `open_set` last."""
        kinds = {key[1] for key in self.found if key[0] == dataset}
        return sorted(kinds, key=lambda kind: (kind == OPEN, kind != "similar", kind))

    def systems(self, dataset: str, choices: str, labels: Mapping[str, str]) -> Sequence[str]:
        """Return the systems with scores there.

        Args:
            dataset: that they were asked about.
            choices: of the questions.
            labels: the systems to look for, in the order that they are returned in.
        """
        some = {key[2] for key in self.found if key[:2] == (dataset, choices)}
        return [system for system in labels if system in some]

    def levels(self, dataset: str, choices: str, metric: str) -> list[int]:
        """Return the levels that a metric has, from the root.

        Args:
            dataset: of the images.
            choices: of the questions.
            metric: that has an estimate for each level.
        """
        wanted = (dataset, choices, metric)
        return sorted({key[4] for key in self.found if (key[0], key[1], key[3]) == wanted and key[4]})
