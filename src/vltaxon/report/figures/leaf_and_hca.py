"""A right leaf is not a right lineage: both beside each other, ours and published."""

import textwrap
from typing import TYPE_CHECKING

from vltaxon import papers
from vltaxon.report.figures.of_papers import Shown, panels
from vltaxon.report.figures.style import COLOURS, SMALL, legend
from vltaxon.report.paper import Compared

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(shown: Shown) -> "Figure":
    """Return the figure: leaf accuracy beside HCA of each system; published values are hollow diamonds."""
    labels, table = shown.labels, papers.papers()[shown.setting.paper].tables[shown.about.table]
    text = (
        f"Bars: ours, {shown.setting.choices} choices, 95 % intervals. Diamonds: published in {table.label}."
    )
    figure, by_role = panels(shown, 3.9, "images right (%)", text)
    compared = shown.compared()
    for role, panel in by_role.items():
        for place, (metric, name) in enumerate((("leaf", "leaf"), ("hca", "whole lineage (HCA)"))):
            for at, system in enumerate(labels):
                one = next(
                    c
                    for c in compared
                    if (c.cell.dataset, c.cell.metric, c.cell.system) == (role, metric, system)
                )
                _bar(panel, at + (place - 0.5) * 0.38, one, COLOURS[place], name)
        names = [textwrap.fill(label, 16) for label in labels.values()]
        panel.set(xticks=range(len(names)), xticklabels=names, ylim=(0, 105), xlim=(-0.6, len(names) - 0.4))
        panel.grid(axis="x", visible=False)
    legend(figure, list(by_role.values()), ["leaf", "whole lineage (HCA)", "published"])
    return figure


def _bar(panel: "Axes", at: float, one: Compared, colour: str, name: str) -> None:
    """Draw a bar with its interval, its number, and the published value."""
    if one.ours is not None:
        value = 100 * one.ours.value
        panel.bar(at, value, 0.36, color=colour, label=name)
        panel.errorbar(at, value, one.ours.bars, color="#222222", elinewidth=1.1, capsize=2.5)
        top, other = 100 * one.ours.high, one.cell.value
        near = other is not None and -3 < other - top < 8  # the diamond would cover the number
        place = (at, other if near else top)
        panel.annotate(
            f"{value:.0f}",
            place,
            (0, 6 if near else 3),
            textcoords="offset points",
            ha="center",
            fontsize=SMALL,
        )
    if one.cell.value is not None:
        panel.plot(
            at + 0.11, one.cell.value, "D",
            markersize=6, markerfacecolor="white", markeredgecolor="#222222", markeredgewidth=1.1,
            linestyle="none", label="published", zorder=4,
        )  # fmt: skip
