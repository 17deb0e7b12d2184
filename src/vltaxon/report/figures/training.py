"""Training curves."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vltaxon import schemas
from vltaxon.config.steps import declared_in
from vltaxon.metrics.aggregate import Floats
from vltaxon.plugins import find_plugins
from vltaxon.provenance import read_parquet
from vltaxon.report.figures.style import COLOURS, DASHES, SMALL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vltaxon.config.steps import Panel

TITLE = "Training"
CAPTION = (
    "Pale: each logged step; bold: running mean over a tenth of the curve. Reward is"
    " the mean over a batch of completions."
)
Curve = dict[str, tuple[Floats, Floats]]  # steps and values by metric


def draw(curves: Mapping[str, Path]) -> "Figure":
    """Return the figure of the columns that the objectives of the steps declare to be drawn.

    Raw values are pale, a running mean is on top.

    Args:
        curves: curve.parquet of each training step, by the name to show (`vl_taxon 2-grpo`), in order.
    """
    from matplotlib.figure import Figure

    panels = _panels(curves)
    figure = Figure(figsize=(1 + 3.8 * max(len(panels), 1), 3.2), layout="constrained")
    if not panels:
        figure.text(0.5, 0.5, "Nothing is trained.", ha="center", va="center")
        return figure
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (panel, lines) in zip(axes, panels.items(), strict=False):
        bold = {}
        for place, (label, (x, y)) in enumerate(lines):
            colour, dash = COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]
            axis.plot(x, y, color=colour, alpha=0.25, linewidth=0.9)
            (bold[label],) = axis.plot(x, _smooth(y), color=colour, linewidth=1.9, linestyle=dash)
        axis.set(title=panel.title, xlabel="optimiser step", ylabel=panel.unit)
        axis.set_ylim(bottom=0)
        axis.legend(bold.values(), bold.keys(), fontsize=SMALL, loc="best")
    return figure


def _panels(curves: Mapping[str, Path]) -> dict["Panel", list[tuple[str, tuple[Floats, Floats]]]]:
    """Return the lines of each panel with their labels.

    Panels come as the objectives declare them, the lines of a step by the names of their columns.
    """
    objectives = find_plugins("vltaxon.train.objectives")
    panels: dict[Panel, list[tuple[str, tuple[Floats, Floats]]]] = {}
    for name, path in curves.items():
        curve, objective = _curve(path), objectives[path.parent.name.partition("-")[2]]
        drawn = [column for column in declared_in(objective).columns().values() if column.panel is not None]
        panels |= {column.panel: panels.get(column.panel, []) for column in drawn if column.panel is not None}
        for column in sorted(drawn, key=lambda column: column.name):
            for found in sorted(filter(column.has, curve), key=lambda name: (len(name), name)):
                if column.panel is not None:
                    label = " ".join(filter(None, (name, column.label + found.removeprefix(column.name))))
                    panels[column.panel].append((label, curve[found]))
    return panels


def _curve(path: Path) -> Curve:
    """Return steps and values of each metric of a curve."""
    table = read_parquet(path, schemas.CURVE)
    step, metric, value = (table[name].to_numpy() for name in table.column_names)
    return {name: (step[metric == name], value[metric == name]) for name in dict.fromkeys(metric)}


def _smooth(values: "Floats") -> "Floats":
    """Return the centred running mean over a tenth of the curve, its window cut at the ends."""
    half = max(1, len(values) // 20)
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    means: Floats = (total[last] - total[first]) / (last - first)
    return means
