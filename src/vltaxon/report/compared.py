"""Pairs of systems whose difference is tested, in words below a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

from vltaxon.metrics.compare import Compared, Difference, differences
from vltaxon.metrics.heads import OPEN

_METRICS = {"hca": "HCA", "leaf": "leaf", "open_leaf": "open leaf"}  # and what they are called
_STAGE_1 = "open_leaf"


class Pairs(NamedTuple):
    """Pairs of systems, the first of each less the second."""

    pairs: tuple[tuple[str, str], ...]
    found: Mapping[Compared, Difference]

    @classmethod
    def read(cls, pairs: tuple[tuple[str, str], ...], database: Path, bootstrap: int, seed: int) -> Self:
        """Compare them.

        Args:
            pairs: of systems; without any nothing is read.
            database: with the values per image. Its paths are relative to the workflow root.
            bootstrap: resamples.
            seed: of the resamples.
        """
        return cls(pairs, differences(database, pairs, list(_METRICS), bootstrap, seed) if pairs else {})

    def told(self, dataset: str, choices: str, labels: Mapping[str, str]) -> list[str]:
        """Return a line for each pair of which a table has both.

        Args:
            dataset: of the table.
            choices: of the table.
            labels: of the systems that the table has.
        """
        lines = []
        for pair in self.pairs:
            kinds = {metric: OPEN if metric == _STAGE_1 else choices for metric in _METRICS}
            found = [
                f"{title} {_points(one)}, p = {one.p:.2g}"
                for metric, title in _METRICS.items()
                if (one := self.found.get(Compared(pair, dataset, kinds[metric], metric))) is not None
            ]
            if found and set(pair) <= labels.keys():
                first, second = (labels[system] for system in pair)
                lines.append(f"{first} less {second}, paired by image: {'; '.join(found)}.")
        return lines


def _points(one: Difference) -> str:
    value, low, high = (100 * number for number in one[:3])
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
