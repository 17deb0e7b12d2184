"""The scores as the report reads them: by data set, choices, system and metric, in the order of the config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vltaxon import schemas
from vltaxon.provenance import read_parquet

OPEN = "open_set"


class Estimate(NamedTuple):
    """A mean over `n` images with its 95 % interval; shares are fractions."""

    value: float
    low: float
    high: float
    n: int

    @property
    def bars(self) -> list[list[float]]:
        """Error bars in percent, below and above; a percentile interval of a few skewed values may leave out the mean."""
        return [[100 * max(self.value - self.low, 0.0)], [100 * max(self.high - self.value, 0.0)]]


Key = tuple[str, str, str, str, int | None, str]


@dataclass(frozen=True)
class Scores:
    """All estimates by (dataset, choices, system, metric, level, subset)."""

    found: Mapping[Key, Estimate]

    @classmethod
    def read(cls, path: Path) -> "Scores":
        """Read scores.parquet."""
        rows = read_parquet(path, schemas.SCORES).to_pylist()
        key = ("dataset", "choices", "system", "metric", "level", "subset")
        return cls({tuple(row[k] for k in key): Estimate(row["value"], row["low"], row["high"], row["n"]) for row in rows})

    def get(
        self, dataset: str, choices: str, system: str, metric: str, level: int | None = None, subset: str = "all"
    ) -> Estimate | None:
        """One estimate, None where the system has none."""
        return self.found.get((dataset, choices, system, metric, level, subset))

    @property
    def datasets(self) -> list[str]:
        """Data sets, in the order in which they were scored."""
        return list(dict.fromkeys(key[0] for key in self.found))

    def choices(self, dataset: str) -> list[str]:
        """Kinds of options of a data set; `similar` first, `open_set` last."""
        kinds = {key[1] for key in self.found if key[0] == dataset}
        return sorted(kinds, key=lambda kind: (kind == OPEN, kind != "similar", kind))

    def systems(self, dataset: str, choices: str, labels: Mapping[str, str]) -> Sequence[str]:
        """Systems with scores there, in the order of `labels`."""
        some = {key[2] for key in self.found if key[:2] == (dataset, choices)}
        return [system for system in labels if system in some]

    def levels(self, dataset: str, choices: str, metric: str) -> list[int]:
        """Levels that a metric has, from the root."""
        return sorted({key[4] for key in self.found if key[0] == dataset and key[1] == choices and key[3] == metric and key[4]})
