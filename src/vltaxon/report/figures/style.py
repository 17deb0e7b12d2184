"""What all figures share: colours, fonts, panels, a legend, files of the same bytes for the same numbers."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from vltaxon.metrics.heads import OPEN
from vltaxon.provenance import atomic
from vltaxon.report.estimates import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers; shapes and dashes repeat them for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A3D9A", "#8C6D46")
MARKERS = "osD^vPX*"
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)))
_ENTRY = 2.6  # inches of an entry of a legend
GREY = "#6b6b6b"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "svg.hashsalt": "vltaxon",
    "text.parse_math": False,  # a label is a text, whatever signs are in it
    "figure.dpi": 72,
    "savefig.dpi": 160,
}
SMALL = 7.5


class Look(TypedDict):
    """How a system is drawn."""

    color: str
    marker: str
    linestyle: str | tuple[int, tuple[float, ...]]


def styled() -> AbstractContextManager[None]:
    """Return Matplotlib with the style of all figures, whatever the user's own settings."""
    import matplotlib

    style: AbstractContextManager[None] = matplotlib.rc_context(
        {**matplotlib.rcParamsDefault, **STYLE, "backend": "agg"}
    )
    return style


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as .svg and, beside it, .png; the same numbers give the same bytes.

    Args:
        figure: to write.
        path: of the .svg.
    """
    for suffix, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
        with atomic(path.with_suffix(f".{suffix}")) as part:
            figure.savefig(part, format=suffix, metadata=metadata)


def look(labels: Mapping[str, str], system: str) -> Look:
    """Return the look of a system: fixed by its place among all, the same in all figures.

    Args:
        labels: all systems, in their order.
        system: one of them.
    """
    place = list(labels).index(system)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[place % len(DASHES)],
    }


def grid(
    scores: Scores, width: float, height: float, unit: str
) -> tuple["Figure", list[tuple["Axes", str, str]]]:
    """Return a figure with a panel per kind of options (rows) and data set (columns) that has scores.

    Args:
        scores: say which there are.
        width: of a panel in inches.
        height: of a panel in inches.
        unit: of the vertical axes.

    Returns:
        the figure, and (panel, kind of options, data set) of each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(kind for dataset in scores.datasets for kind in scores.choices(dataset)))
    kinds.sort(key=lambda kind: kind == OPEN)
    figure = Figure(
        figsize=(0.5 + width * len(scores.datasets), 0.5 + height * len(kinds)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(kinds), len(scores.datasets), squeeze=False)
    panels = []
    for (row, kind), (column, dataset) in product(enumerate(kinds), enumerate(scores.datasets)):
        panel = axes[row, column]
        if kind not in scores.choices(dataset):
            panel.remove()
            continue
        panel.set_title(f"{dataset}, {'open set' if kind == OPEN else kind + ' choices'}")
        panel.set_ylabel("" if column else unit)
        panels.append((panel, kind, dataset))
    return figure, panels


def legend(figure: "Figure", panels: Sequence["Axes"], order: Sequence[str]) -> None:
    """Write one legend for all panels above them.

    Args:
        figure: that the panels are of.
        panels: whose labels are explained.
        order: of the labels.
    """
    # Not get_legend_handles_labels, to which a leading underscore means that there is nothing to tell.
    artists: list[Any] = [one for panel in panels for one in (*panel.lines, *panel.containers)]
    handles = {one.get_label(): one for one in artists}
    shown = [label for label in order if label in handles]
    columns = max(1, min(4, int(figure.get_figwidth() / _ENTRY)))
    figure.legend(
        [handles[label] for label in shown], shown, loc="outside upper left", ncols=columns, handlelength=3
    )
