"""The figures: accuracy per level, HCA against leaf, training curves; SVG and PNG, the same bytes from the same numbers."""

import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vltaxon import schemas
from vltaxon.provenance import atomic, read_parquet
from vltaxon.report.estimates import OPEN, Estimate, Scores
from vltaxon.train.objectives import step_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vltaxon.config.steps import Panel
    from vltaxon.metrics.uncertainty import Floats

# Okabe and Ito's colours, told apart by colour-blind readers; shapes and dashes repeat the distinction for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A3D9A", "#8C6D46")
MARKERS = "osD^vPX*"
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)))
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
    "figure.dpi": 72,
    "savefig.dpi": 160,
}
_SMALL = 7.5
_METRICS = {False: ("level_accuracy", "hca", "leaf"), True: ("open_level_accuracy", "open_lineage", "open_leaf")}


def plot(
    scores: Path,
    curves: Mapping[str, Path],
    labels: Mapping[str, str],
    ranks: Mapping[str, Sequence[str]],
    folder: Path,
) -> None:
    """Draw `level_accuracy`, `hca_leaf` and `training` into `folder`, each as .svg and .png.

    Args:
        scores: scores.parquet.
        curves: curve.parquet of each training step, by the name to show (`vl_taxon 2-grpo`), in order.
        labels: what to call each system; the order decides the colours.
        ranks: names of each data set's levels.
        folder: where to write.
    """
    with styled():
        found = Scores.read(scores)
        save("level_accuracy", level_accuracy(found, labels, ranks), folder)
        save("hca_leaf", hca_leaf(found, labels), folder)
        save("training", training(curves), folder)


def styled() -> AbstractContextManager[None]:
    """Matplotlib with the style of all figures, whatever the user's own settings."""
    import matplotlib

    style: AbstractContextManager[None] = matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE, "backend": "agg"})
    return style


def save(name: str, figure: "Figure", folder: Path) -> None:
    """Write a figure as .svg and .png; the same numbers give the same bytes."""
    for suffix, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
        with atomic(folder / f"{name}.{suffix}") as part:
            figure.savefig(part, format=suffix, metadata=metadata)


def _style(labels: Mapping[str, str], system: str) -> dict[str, Any]:
    """Colour, marker and dash of a system: fixed by its place, the same in all figures."""
    place = list(labels).index(system)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[place % len(DASHES)],
    }


def _grid(scores: Scores, width: float, height: float, unit: str) -> tuple["Figure", list[tuple["Axes", str, str]]]:
    """A panel per kind of options (rows) and data set (columns), titled; panels without scores are taken away."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(kind for dataset in scores.datasets for kind in scores.choices(dataset)))
    kinds.sort(key=lambda kind: kind == OPEN)
    figure = Figure(figsize=(0.5 + width * len(scores.datasets), 0.5 + height * len(kinds)), layout="constrained")
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
    """One legend for all panels, above them."""
    handles = {label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    shown = [label for label in order if label in handles]
    figure.legend([handles[label] for label in shown], shown, loc="outside upper left", ncols=4, handlelength=3)


def level_accuracy(scores: Scores, labels: Mapping[str, str], ranks: Mapping[str, Sequence[str]]) -> "Figure":
    """Accuracy from the root to the leaf, a line per system, with 95 % intervals and the level of chance."""
    figure, panels = _grid(scores, 3.4, 2.6, "images right (%)")
    for panel, kind, dataset in panels:
        draw_levels(panel, scores, (dataset, kind, _METRICS[kind == OPEN][0]), labels, ranks[dataset], chance=kind != OPEN)
    legend(figure, [panel for panel, _, _ in panels], [*labels.values(), "chance level"])
    return figure


def draw_levels(
    panel: "Axes",
    scores: Scores,
    what: tuple[str, str, str],
    labels: Mapping[str, str],
    ranks: Sequence[str],
    chance: bool = False,
) -> None:
    """A line per system over the levels of a metric, with 95 % intervals.

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
        by_chance = [next(e for s in systems if (e := scores.get(dataset, kind, s, "chance", level))) for level in levels]
        values = [100 * e.value for e in by_chance]
        panel.plot(at, values, color=GREY, linestyle=":", linewidth=1.4, label="chance level", zorder=1)
    for place, system in enumerate(systems):
        found = [scores.get(dataset, kind, system, metric, level) for level in levels]
        value = np.array([100 * e.value if e else np.nan for e in found])
        bars = np.hstack([e.bars if e else [[np.nan], [np.nan]] for e in found])
        shift = (place - (len(systems) - 1) / 2) * 0.05
        panel.errorbar(
            at + shift, value, bars, **_style(labels, system), label=labels[system],
            linewidth=1.6, markersize=4.5, elinewidth=1, markeredgecolor="white", markeredgewidth=0.5,
        )  # fmt: skip
    panel.set(xticks=at, xticklabels=[ranks[level - 1] for level in levels], ylim=(-3, 103), xlim=(-0.4, len(levels) - 0.6))
    panel.grid(axis="x", visible=False)


def hca_leaf(scores: Scores, labels: Mapping[str, str]) -> "Figure":
    """HCA against leaf accuracy with both intervals: the further below the diagonal, the less the leaf implies the rest."""
    figure, panels = _grid(scores, 2.95, 3.0, "whole lineage right (%)")
    points: dict[Axes, dict[str, tuple[Estimate, Estimate]]] = {}
    for panel, kind, dataset in panels:
        _, hca, leaf = _METRICS[kind == OPEN]
        panel.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=1.4, zorder=1)
        panel.set(xlim=(-4, 104), ylim=(-4, 104), aspect="equal")
        points[panel] = {}
        for system in scores.systems(dataset, kind, labels):
            x, y = scores.get(dataset, kind, system, leaf), scores.get(dataset, kind, system, hca)
            if x and y:
                points[panel][textwrap.fill(labels[system], 18)] = (x, y)
                style = {**_style(labels, system), "linestyle": "none"}
                panel.errorbar(
                    100 * x.value, 100 * y.value, y.bars, x.bars, **style, label=labels[system],
                    markersize=6, elinewidth=1.1, markeredgecolor="white", markeredgewidth=0.6, clip_on=False,
                )  # fmt: skip
        panel.set_xlabel("leaf right (%)")
    figure.canvas.draw()
    for panel, named in points.items():
        _place_labels(panel, named)
    return figure


def _place_labels(panel: "Axes", points: Mapping[str, tuple[Estimate, Estimate]]) -> None:
    """Write each point's label beside it where it covers the least of other labels, points, bars, diagonal and border.

    The figure is drawn at 72 dots an inch here, so a pixel is a point and the offsets hold at any resolution.
    """
    from matplotlib.text import Text

    to_pixels = panel.transData.transform
    centres = {label: to_pixels((100 * x.value, 100 * y.value)) for label, (x, y) in points.items()}
    taken = [_box(c, 8, 8) for c in centres.values()]
    for x, y in points.values():
        (left, bottom), (right, top) = to_pixels((100 * x.low, 100 * y.low)), to_pixels((100 * x.high, 100 * y.high))
        (middle, height) = to_pixels((100 * x.value, 100 * y.value))
        taken += [np.array([left, height - 2, right, height + 2]), np.array([middle - 2, bottom, middle + 2, top])]
    taken += [_box(at, 3, 3) for at in to_pixels(np.linspace((0, 0), (100, 100), 60))]
    frame = panel.get_window_extent()
    walls = np.array(
        [
            [-1e4, -1e4, frame.x0, 1e4],
            [frame.x1, -1e4, 1e4, 1e4],
            [-1e4, -1e4, 1e4, frame.y0],
            [-1e4, frame.y1, 1e4, 1e4],
        ]
    )
    offsets = np.array(
        [(r * np.cos(a), r * np.sin(a)) for r in (9, 14, 20, 28, 38, 50, 64, 80) for a in np.arange(16) * np.pi / 8]
    )
    aligned = np.select([offsets[:, 0] < -1, offsets[:, 0] > 1], [1.0, 0.0], 0.5)  # right, left, centre
    for label, centre in sorted(centres.items(), key=lambda item: -len(item[0])):
        size = Text(0, 0, label, fontsize=_SMALL, figure=panel.figure).get_window_extent()
        starts = centre + offsets - np.column_stack([size.width * aligned, np.full(len(offsets), size.height / 2)])
        boxes = np.hstack([starts, starts + np.array([size.width, size.height])])
        cost = 3 * _common(boxes, walls) + 2 * _common(boxes, np.array(taken)) + np.hypot(*offsets.T) / 4
        best = int(cost.argmin())
        dx, dy = offsets[best]
        taken.append(boxes[best] + np.array([-2, -1, 2, 1]))
        leader = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        text = panel.annotate(
            label, (100 * points[label][0].value, 100 * points[label][1].value), (dx, dy), textcoords="offset points",
            fontsize=_SMALL, color="#222222",
            ha={0.0: "left", 0.5: "center", 1.0: "right"}[aligned[best]], va="center", annotation_clip=False, 
            arrowprops=leader if np.hypot(dx, dy) > 15 else None,
        )  # fmt: skip
        text.set_in_layout(False)


def _box(centre: "Floats", width: float, height: float) -> "Floats":
    """Left, bottom, right, top of a box round a point."""
    half = np.array([width, height]) / 2
    return np.concatenate([centre - half, centre + half])


def _common(boxes: "Floats", others: "Floats") -> "Floats":
    """Area that each box shares with the others, together; both of shape (n, 4): left, bottom, right, top."""
    low, high = np.maximum(boxes[:, None, :2], others[:, :2]), np.minimum(boxes[:, None, 2:], others[:, 2:])
    shared: Floats = np.prod(np.maximum(high - low, 0), axis=2).sum(axis=1)
    return shared


def training(curves: Mapping[str, Path]) -> "Figure":
    """Draw what the objectives of the steps say is to be drawn; raw values pale, a running mean on top."""
    from matplotlib.figure import Figure

    panels: dict[Panel, list[tuple[str, str, tuple[Floats, Floats]]]] = {}
    for name, path in curves.items():
        curve, objective = _curve(path), step_classes()[path.parent.name.partition("-")[2]]
        drawn = {column.name: (column.panel, column.label) for column in objective.columns().values() if column.panel}
        panels |= {panel: panels.get(panel, []) for panel, _ in drawn.values()}
        for metric, (panel, label) in sorted(drawn.items()):
            if metric in curve:
                panels[panel].append((name, label, curve[metric]))
    figure = Figure(figsize=(1 + 3.8 * max(len(panels), 1), 3.2), layout="constrained")
    axes = figure.subplots(1, max(len(panels), 1), squeeze=False)[0]
    for axis, (panel, lines) in zip(axes, panels.items(), strict=False):
        for place, (name, label, (x, y)) in enumerate(lines):
            colour, dash = COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]
            axis.plot(x, y, color=colour, alpha=0.25, linewidth=0.9)
            text = " ".join(filter(None, (name, label)))
            axis.plot(x, _smooth(y), color=colour, linewidth=1.9, label=text, linestyle=dash)
        axis.set(title=panel.title, xlabel="optimiser step", ylabel=panel.unit)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=_SMALL, loc="best")
    return figure


def _curve(path: Path) -> dict[str, tuple["Floats", "Floats"]]:
    """Steps and values of each metric of a curve."""
    table = read_parquet(path, schemas.CURVE)
    step, metric, value = (table[name].to_numpy() for name in table.column_names)
    return {name: (step[metric == name], value[metric == name]) for name in dict.fromkeys(metric)}


def _smooth(values: "Floats") -> "Floats":
    """Centred running mean over a tenth of the curve, its window cut at the ends."""
    half = max(1, len(values) // 20)
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    means: Floats = (total[last] - total[first]) / (last - first)
    return means
