"""Training curves."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vltaxon import schemas
from vltaxon.metrics.aggregate import Floats
from vltaxon.provenance import read_parquet
from vltaxon.report.figures.style import COLOURS, DASHES, SMALL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Training"
CAPTION = (
    "Pale: each logged step; bold: running mean over a tenth of the curve. Reward is"
    " the mean over a batch of completions."
)
Curve = dict[str, tuple[Floats, Floats]]  # steps and values by metric
REWARD = "reward"


class Panel(NamedTuple):
    """Curves that stand together: title, unit, names of the columns, and whether of steps with a reward."""

    title: str
    unit: str
    columns: Mapping[str, str]
    rewarded: bool


# What training objectives are to declare of themselves.
PANELS = (
    Panel("SFT loss", "loss (nats per token)", {"loss": ""}, rewarded=False),
    Panel(
        "GRPO reward",
        "mean reward",
        {"reward": "sum", "reward_accuracy": "accuracy", "reward_format": "format"},
        rewarded=True,
    ),
    Panel("GRPO KL to the start", "KL (nats per token)", {"kl": ""}, rewarded=True),
)


def draw(curves: Mapping[str, Path]) -> "Figure":
    """Return the figure: raw values pale, a running mean on top.

    Args:
        curves: curve.parquet of each training step, by the name to show (`vl_taxon 2-grpo`), in order.
    """
    from matplotlib.figure import Figure

    found = {name: _curve(path) for name, path in curves.items()}
    rows = [(panel, steps) for panel in PANELS if (steps := _steps(panel, found))]
    figure = Figure(figsize=(1 + 3.8 * max(len(rows), 1), 3.2), layout="constrained")
    panels = figure.subplots(1, max(len(rows), 1), squeeze=False)[0]
    for panel, (about, steps) in zip(panels, rows, strict=False):
        for place, ((name, curve), metric) in enumerate(product(steps.items(), about.columns)):
            if metric in curve:
                x, y = curve[metric]
                panel.plot(x, y, color=COLOURS[place % len(COLOURS)], alpha=0.25, linewidth=0.9)
                label = " ".join(filter(None, (name, about.columns[metric])))
                panel.plot(
                    x,
                    _smooth(y),
                    color=COLOURS[place % len(COLOURS)],
                    linewidth=1.9,
                    label=label,
                    linestyle=DASHES[place % len(DASHES)],
                )
        panel.set(title=about.title, xlabel="optimiser step", ylabel=about.unit)
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=SMALL, loc="best")
    return figure


def _steps(panel: Panel, found: Mapping[str, Curve]) -> dict[str, Curve]:
    """Return the training steps that a panel is about."""
    return {name: curve for name, curve in found.items() if (REWARD in curve) == panel.rewarded}


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
