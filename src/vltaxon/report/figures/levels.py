"""Lines over the levels of a lineage, for figures of several kinds."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vltaxon.report.estimates import Scores
from vltaxon.report.figures.style import GREY, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_levels(
    panel: "Axes",
    scores: Scores,
    what: tuple[str, str, str],
    labels: Mapping[str, str],
    ranks: Sequence[str],
    chance: bool = False,
) -> None:
    """Draw a line per system over the levels of a metric, with 95 % intervals.

    Args:
        panel: where to draw.
        scores: the estimates.
        what: data set, choices and metric.
        labels: what to call each system.
        ranks: names of the data set's levels.
        chance: whether to draw what a random choice scores.
    """
    dataset, kind, metric = what
    levels, systems = scores.levels(dataset, kind, metric), scores.systems(dataset, kind, labels)
    at = np.arange(len(levels))
    if chance:
        by_chance = [
            next(e for s in systems if (e := scores.get(dataset, kind, s, "chance", level)))
            for level in levels
        ]
        values = [100 * e.value for e in by_chance]
        panel.plot(at, values, color=GREY, linestyle=":", linewidth=1.4, label="chance level", zorder=1)
    for place, system in enumerate(systems):
        found = [scores.get(dataset, kind, system, metric, level) for level in levels]
        value = np.array([100 * e.value if e else np.nan for e in found])
        bars = np.hstack([e.bars if e else [[np.nan], [np.nan]] for e in found])
        shift = (place - (len(systems) - 1) / 2) * 0.05
        panel.errorbar(
            at + shift, value, bars, **look(labels, system), label=labels[system],
            linewidth=1.6, markersize=4.5, elinewidth=1, markeredgecolor="white", markeredgewidth=0.5,
        )  # fmt: skip
    panel.set(
        xticks=at,
        xticklabels=[ranks[level - 1] for level in levels],
        ylim=(-3, 103),
        xlim=(-0.4, len(levels) - 0.6),
    )
    panel.grid(axis="x", visible=False)
