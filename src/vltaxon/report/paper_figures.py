"""Stand-ins for Figures 2 and 4 of the paper (VL-Taxon, arXiv 2601.14610), of which only the text was at hand, not the pictures.

They show what the text says the figures are about, from the numbers of the tables that they belong to: Figure 2, a right leaf is
not a right lineage (Table 1); Figure 4, at which level the lineages of right leaves break (Table 5).
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vltaxon.report.cells import FIGURES, of_table
from vltaxon.report.estimates import Scores
from vltaxon.report.figures import COLOURS, GREY, draw_levels, legend, save, styled
from vltaxon.report.paper import Compared, Setting, compare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SMALL = 7.5
_STAND_IN = "Stand-in for {name} of arXiv 2601.14610: of the paper only the text was at hand, not its pictures. "


def plot_paper(
    figure: str, scores: Path, setting: Setting, labels: Mapping[str, str], ranks: Mapping[str, Sequence[str]], folder: Path
) -> None:
    """Draw `figure2` or `figure4` into `folder`, as .svg and .png.

    Args:
        figure: which one.
        scores: scores.parquet of the table that it belongs to.
        setting: data sets, choices and systems of the experiment.
        labels: what to call each system, in order.
        ranks: names of each data set's levels.
        folder: where to write.
    """
    found = Scores.read(scores)
    with styled():
        drawn = leaf_and_hca(found, setting, labels) if figure == "figure2" else broken(found, setting, labels, ranks)
        save(figure, drawn, folder)


def _panels(figure_name: str, setting: Setting, width: float, unit: str, text: str) -> tuple["Figure", dict[str, "Axes"]]:
    """A panel per data set of the figure's table, by role, with the caption below them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    roles = list(dict.fromkeys(cell.dataset for cell in of_table(FIGURES[figure_name])))
    figure = Figure(figsize=(0.5 + width * len(roles), 4.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(roles), squeeze=False)[0]
    for panel, role in zip(axes, roles, strict=True):
        panel.set_title(f"{role}: {setting.datasets[role]}")
    axes[0].set_ylabel(unit)
    other = [setting.datasets[role] for role in roles if not setting.comparable[role]]
    if other:
        text += f" Not the paper's data sets: {', '.join(other)}."
    caption = _STAND_IN.format(name=figure_name.replace("figure", "Figure ")) + text
    figure.supxlabel(_wrapped(caption, figure.get_figwidth()), fontsize=_SMALL, color=GREY, x=0.01, ha="left")
    return figure, dict(zip(roles, axes, strict=True))


def _wrapped(text: str, width: float) -> str:
    """Text in lines as wide as a figure of so many inches."""
    return textwrap.fill(text, int(width * 72 / (0.53 * _SMALL)))


def leaf_and_hca(scores: Scores, setting: Setting, labels: Mapping[str, str]) -> "Figure":
    """Leaf accuracy beside HCA of each system, with 95 % intervals and the published values as hollow diamonds."""
    text = f"Bars: ours, {setting.choices} choices, 95 % intervals. Diamonds: published in Table 1."
    figure, panels = _panels("figure2", setting, 3.9, "images right (%)", text)
    compared = compare(FIGURES["figure2"], scores, setting)
    for role, panel in panels.items():
        for place, (metric, name) in enumerate((("leaf", "leaf"), ("hca", "whole lineage (HCA)"))):
            for at, system in enumerate(labels):
                one = next(c for c in compared if (c.cell.dataset, c.cell.metric, c.cell.system) == (role, metric, system))
                _bar(panel, at + (place - 0.5) * 0.38, one, COLOURS[place], name)
        names = [textwrap.fill(label, 16) for label in labels.values()]
        panel.set(xticks=range(len(names)), xticklabels=names, ylim=(0, 105), xlim=(-0.6, len(names) - 0.4))
        panel.grid(axis="x", visible=False)
    legend(figure, list(panels.values()), ["leaf", "whole lineage (HCA)", "published"])
    return figure


def _bar(panel: "Axes", at: float, one: Compared, colour: str, name: str) -> None:
    """A bar with its interval, its number, and the published value."""
    if one.ours is not None:
        value = 100 * one.ours.value
        panel.bar(at, value, 0.36, color=colour, label=name)
        panel.errorbar(at, value, one.ours.bars, color="#222222", elinewidth=1.1, capsize=2.5)
        top, other = 100 * one.ours.high, one.cell.value
        near = other is not None and -3 < other - top < 8  # the diamond would cover the number
        place = (at, other if near else top)
        panel.annotate(f"{value:.0f}", place, (0, 6 if near else 3), textcoords="offset points", ha="center", fontsize=_SMALL)
    if one.cell.value is not None:
        panel.plot(
            at + 0.11, one.cell.value, "D", markersize=6, markerfacecolor="white", markeredgecolor="#222222", markeredgewidth=1.1,
            linestyle="none", label="published", zorder=4,
        )  # fmt: skip


def broken(scores: Scores, setting: Setting, labels: Mapping[str, str], ranks: Mapping[str, Sequence[str]]) -> "Figure":
    """Accuracy per level among the images with the leaf right: where the lineages of right leaves break."""
    text = (
        f"{setting.choices.capitalize()} choices, 95 % intervals; n: images with the leaf right, so all right at the last level."
    )
    figure, panels = _panels("figure4", setting, 3.4, "right, of images with the leaf right (%)", text)
    for role, panel in panels.items():
        dataset = setting.datasets[role]
        metric = "level_accuracy_given_leaf"
        draw_levels(panel, scores, (dataset, setting.choices, metric), labels, ranks[dataset])
        counts = [(labels[s], scores.get(dataset, setting.choices, s, "hca_given_leaf")) for s in labels]
        said = ", ".join(f"{label} {found.n if found else 0}" for label, found in counts)
        panel.set_xlabel(_wrapped(f"n: {said}", 3.2), fontsize=_SMALL, color=GREY)
    legend(figure, list(panels.values()), list(labels.values()))
    return figure
