"""Labels beside points, where they cover the least."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from vltaxon.report.estimates import Estimate
from vltaxon.report.figures.style import SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vltaxon.metrics.aggregate import Floats


_DISTANCES = (9, 14, 20, 28, 38, 50, 64, 80)  # of a label from its point, in points


def place_labels(panel: "Axes", points: Mapping[str, tuple[Estimate, Estimate]]) -> None:
    """Write each point's label where it covers the least of other labels, points, bars, diagonal and border.

    The figure is drawn at 72 dots an inch here, so a pixel is a point and the offsets hold at any resolution.

    Args:
        panel: where the points are.
        points: x and y of each, by its label.
    """
    from matplotlib.text import Text

    to_pixels = panel.transData.transform
    centres = {label: to_pixels((100 * x.value, 100 * y.value)) for label, (x, y) in points.items()}
    taken, walls = _taken(panel, points), _walls(panel)
    turns = np.arange(16) * np.pi / 8
    offsets = np.array([(r * np.cos(turn), r * np.sin(turn)) for r in _DISTANCES for turn in turns])
    aligned = np.select([offsets[:, 0] < -1, offsets[:, 0] > 1], [1.0, 0.0], 0.5)  # right, left, centre
    for label, centre in sorted(centres.items(), key=lambda item: -len(item[0])):
        size = Text(0, 0, label, fontsize=SMALL, figure=panel.figure).get_window_extent()
        starts = (
            centre + offsets - np.column_stack([size.width * aligned, np.full(len(offsets), size.height / 2)])
        )
        boxes = np.hstack([starts, starts + np.array([size.width, size.height])])
        cost = 3 * _common(boxes, walls) + 2 * _common(boxes, np.array(taken)) + np.hypot(*offsets.T) / 4
        best = int(cost.argmin())
        dx, dy = offsets[best]
        taken.append(boxes[best] + np.array([-2, -1, 2, 1]))
        leader = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        text = panel.annotate(
            label, (100 * points[label][0].value, 100 * points[label][1].value), (dx, dy),
            textcoords="offset points",
            fontsize=SMALL, color="#222222",
            ha={0.0: "left", 0.5: "center", 1.0: "right"}[aligned[best]], va="center", annotation_clip=False, 
            arrowprops=leader if np.hypot(dx, dy) > 15 else None,
        )  # fmt: skip
        text.set_in_layout(False)


def _taken(panel: "Axes", points: Mapping[str, tuple[Estimate, Estimate]]) -> list["Floats"]:
    """Return the boxes that points, their bars and the diagonal take, in pixels."""
    to_pixels = panel.transData.transform
    centres = [to_pixels((100 * x.value, 100 * y.value)) for x, y in points.values()]
    taken = [_box(centre, 8, 8) for centre in centres]
    for (middle, height), (x, y) in zip(centres, points.values(), strict=True):
        (left, bottom), (right, top) = to_pixels([(100 * x.low, 100 * y.low), (100 * x.high, 100 * y.high)])
        taken.append(np.array([left, height - 2, right, height + 2]))
        taken.append(np.array([middle - 2, bottom, middle + 2, top]))
    return taken + [_box(at, 3, 3) for at in to_pixels(np.linspace((0, 0), (100, 100), 60))]


def _walls(panel: "Axes") -> "Floats":
    """Return boxes for all that is outside the frame of a panel."""
    frame = panel.get_window_extent()
    return np.array(
        [
            [-1e4, -1e4, frame.x0, 1e4],
            [frame.x1, -1e4, 1e4, 1e4],
            [-1e4, -1e4, 1e4, frame.y0],
            [-1e4, frame.y1, 1e4, 1e4],
        ]
    )


def _box(centre: "Floats", width: float, height: float) -> "Floats":
    """Return left, bottom, right, top of a box round a point."""
    half = np.array([width, height]) / 2
    return np.concatenate([centre - half, centre + half])


def _common(boxes: "Floats", others: "Floats") -> "Floats":
    """Return the area that each box shares with all others; of shape (n, 4): left, bottom, right, top."""
    low, high = np.maximum(boxes[:, None, :2], others[:, :2]), np.minimum(boxes[:, None, 2:], others[:, 2:])
    shared: Floats = np.prod(np.maximum(high - low, 0), axis=2).sum(axis=1)
    return shared
