"""What figures of papers share: a panel for each data set of their table, and the caption below them."""

import importlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from vltaxon import papers
from vltaxon.metrics import heads
from vltaxon.metrics.heads import Metrics
from vltaxon.papers import PaperFigure
from vltaxon.report.estimates import Scores
from vltaxon.report.figures.style import GREY, SMALL, save, styled
from vltaxon.report.paper import Compared, compare
from vltaxon.tasks.scoring import PlotPaperTask, Setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Shown(NamedTuple):
    """What a figure of a paper is made of."""

    about: PaperFigure
    scores: Scores
    setting: Setting
    labels: Mapping[str, str]
    ranks: Mapping[str, Sequence[str]]
    metrics: Metrics

    def compared(self) -> list[Compared]:
        """Return the cells of its table, published and ours."""
        return compare(self.about.table, self.scores, self.setting, self.metrics)


def plot_paper(task: PlotPaperTask) -> None:
    """Draw a figure of a paper by the module that its `paper.yaml` names."""
    about = papers.papers()[task.setting.paper].figures[task.figure]
    metrics, scores = heads.read(task.metrics), Scores.read(task.scores)
    drawing = importlib.import_module(task.drawing)
    with styled():
        shown = Shown(about, scores, task.setting, task.labels, task.ranks, metrics)
        save(drawing.draw(shown), task.svg)


def panels(shown: Shown, width: float, unit: str, text: str) -> tuple["Figure", dict[str, "Axes"]]:
    """Return a figure with a panel per data set of its table, by role, and the caption below them.

    Args:
        shown: what it is made of.
        width: of a panel in inches.
        unit: of the vertical axis.
        text: of the caption, after the paper's note.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    setting = shown.setting
    roles = list(dict.fromkeys(cell.dataset for cell in papers.cells(setting.paper, shown.about.table)))
    figure = Figure(figsize=(0.5 + width * len(roles), 4.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(roles), squeeze=False)[0]
    for panel, role in zip(axes, roles, strict=True):
        panel.set_title(f"{role}: {setting.datasets[role]}")
    axes[0].set_ylabel(unit)
    other = [setting.datasets[role] for role in roles if not setting.comparable[role]]
    if other:
        text += f" Not the paper's data sets: {', '.join(other)}."
    caption = f"{shown.about.note} {text}"
    figure.supxlabel(wrapped(caption, figure.get_figwidth()), fontsize=SMALL, color=GREY, x=0.01, ha="left")
    return figure, dict(zip(roles, axes, strict=True))


def wrapped(text: str, width: float) -> str:
    """Return text in lines that a figure has room for.

    Args:
        text: to wrap.
        width: of the figure in inches.
    """
    return textwrap.fill(text, int(width * 72 / (0.53 * SMALL)))
