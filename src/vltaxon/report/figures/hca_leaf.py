"""Whole lineage right against leaf right."""

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vltaxon.metrics.heads import OPEN
from vltaxon.report.estimates import Estimate, Scores
from vltaxon.report.figures.labels import place_labels
from vltaxon.report.figures.style import GREY, grid, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Whole lineage against leaf"
CAPTION = (
    "A system on the dotted line knows the lineage of each leaf it knows; below it,"
    " leaves are known without their lineage."
)
METRICS = {
    False: ("hca", "leaf"),
    True: ("open_lineage", "open_leaf"),
}  # by whether it is stage 1, without options


def draw(scores: Scores, labels: Mapping[str, str]) -> "Figure":
    """Return the figure: the further below the diagonal, the less the leaf implies the rest.

    Args:
        scores: the estimates.
        labels: what to call each system; the order decides the colours.
    """
    figure, panels = grid(scores, 2.95, 3.0, "whole lineage right (%)")
    points: dict[Axes, dict[str, tuple[Estimate, Estimate]]] = {}
    for panel, kind, dataset in panels:
        hca, leaf = METRICS[kind == OPEN]
        panel.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=1.4, zorder=1)
        panel.set(xlim=(-4, 104), ylim=(-4, 104), aspect="equal")
        points[panel] = {}
        for system in scores.systems(dataset, kind, labels):
            x, y = scores.get(dataset, kind, system, leaf), scores.get(dataset, kind, system, hca)
            if x and y:
                points[panel][textwrap.fill(labels[system], 18)] = (x, y)
                style = look(labels, system)
                panel.errorbar(
                    100 * x.value, 100 * y.value, y.bars, x.bars, label=labels[system],
                    color=style["color"], marker=style["marker"], linestyle="none",
                    markersize=6, elinewidth=1.1, markeredgecolor="white", markeredgewidth=0.6, clip_on=False,
                )  # fmt: skip
        panel.set_xlabel("leaf right (%)")
    figure.canvas.draw()
    for panel, named in points.items():
        place_labels(panel, named)
    return figure
