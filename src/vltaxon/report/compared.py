"""Pairs of systems whose difference is tested, in words below a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vltaxon.metrics.compare import difference
from vltaxon.metrics.heads import OPEN

_METRICS = (("hca", "HCA", False), ("leaf", "leaf", False), ("open_leaf", "open leaf", True))


class Pairs(NamedTuple):
    """Pairs of systems, the first of each less the second, and what they are compared from.

    Attributes:
        pairs: of systems.
        database: with the values per image. Its paths are relative to the workflow root.
        bootstrap: resamples.
        seed: of the resamples.
    """

    pairs: Sequence[tuple[str, str]]
    database: Path
    bootstrap: int
    seed: int

    def told(self, dataset: str, choices: str, labels: Mapping[str, str]) -> list[str]:
        """Return a line for each pair of which a table has both.

        Args:
            dataset: of the table.
            choices: of the table.
            labels: of the systems that the table has.
        """
        return [
            f"{labels[a]} less {labels[b]}, paired by image: {'; '.join(found)}."
            for a, b in self.pairs
            if a in labels and b in labels and (found := self._metrics(dataset, choices, (a, b)))
        ]

    def _metrics(self, dataset: str, choices: str, pair: tuple[str, str]) -> list[str]:
        out = []
        for metric, title, stage1 in _METRICS:
            kind = OPEN if stage1 else choices
            found = difference(self.database, dataset, kind, metric, pair, self.bootstrap, self.seed)
            if found is not None:
                points, low, high = (100 * number for number in found[:3])
                out.append(f"{title} {points:+.1f} [{low:+.1f}, {high:+.1f}], p = {found.p:.2g}")
        return out
