"""The scores as the report reads them: by data set, choices, system and metric, in the config's order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from vltaxon import schemas
from vltaxon.provenance import read_parquet

OPEN = "open_set"


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

    @classmethod
    def read(cls, path: Path) -> "Scores":
        """Read scores.parquet."""
        frame = pl.DataFrame(read_parquet(path, schemas.SCORES)).select(*_KEY, *Estimate._fields)
        return cls({row[:6]: Estimate(*row[6:]) for row in frame.iter_rows()})

    def get(
        self,
        dataset: str,
        choices: str,
        system: str,
        metric: str,
        level: int | None = None,
        subset: str = "all",
    ) -> Estimate | None:
        """Return one estimate, None where the system has none."""
        return self.found.get((dataset, choices, system, metric, level, subset))

    @property
    def datasets(self) -> list[str]:
        """Return the data sets, in the order in which they were scored."""
        return list(dict.fromkeys(key[0] for key in self.found))

    def subsets(self, dataset: str) -> set[str]:
        """Return the subsets of a data set's images that were scored."""
        return {key[5] for key in self.found if key[0] == dataset}

    def images(self, dataset: str, choices: str | None = None) -> int:
        """Return how many images of a data set were scored, with some choices or with any."""
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
        """Return the systems with scores there, in the order of `labels`."""
        some = {key[2] for key in self.found if key[:2] == (dataset, choices)}
        return [system for system in labels if system in some]

    def levels(self, dataset: str, choices: str, metric: str) -> list[int]:
        """Return the levels that a metric has, from the root."""
        wanted = (dataset, choices, metric)
        return sorted({key[4] for key in self.found if (key[0], key[1], key[3]) == wanted and key[4]})
