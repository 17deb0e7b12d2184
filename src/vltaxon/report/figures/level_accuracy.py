"""Accuracy per level, from the root to the leaf."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vltaxon.metrics.heads import OPEN
from vltaxon.report.estimates import Scores
from vltaxon.report.figures.levels import draw_levels
from vltaxon.report.figures.style import grid, legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Accuracy per level, from the root to the leaf"
CAPTION = (
    "Points: share of the images right at a level; bars: 95 % intervals; dotted: what a random choice scores."
)
METRICS = {False: "level_accuracy", True: "open_level_accuracy"}  # by whether it is stage 1, without options


def draw(scores: Scores, labels: Mapping[str, str], ranks: Mapping[str, Sequence[str]]) -> "Figure":
    """Return the figure: a line per system, with 95 % intervals and the level of chance.

    Args:
        scores: the estimates.
        labels: what to call each system; the order decides the colours.
        ranks: names of each data set's levels.
    """
    figure, panels = grid(scores, 3.4, 2.6, "images right (%)")
    for panel, kind, dataset in panels:
        draw_levels(
            panel, scores, (dataset, kind, METRICS[kind == OPEN]), labels, ranks[dataset], chance=kind != OPEN
        )
    legend(figure, [panel for panel, _, _ in panels], [*labels.values(), "chance level"])
    return figure
