"""Where the lineages of right leaves break."""

from typing import TYPE_CHECKING

from vltaxon.report.figures.levels import draw_levels
from vltaxon.report.figures.of_papers import Shown, panels, wrapped
from vltaxon.report.figures.style import GREY, SMALL, legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(shown: Shown) -> "Figure":
    """Return the figure: accuracy per level among the images with the leaf right."""
    scores, setting, labels, ranks = shown.scores, shown.setting, shown.labels, shown.ranks
    text = (
        f"{setting.choices.capitalize()} choices, 95 % intervals; n: images with the leaf right, so all right"
        " at the last level."
    )
    figure, by_role = panels(shown, 3.4, "right, of images with the leaf right (%)", text)
    for role, panel in by_role.items():
        dataset = setting.datasets[role]
        metric = "level_accuracy_given_leaf"
        draw_levels(panel, scores, (dataset, setting.choices, metric), labels, ranks[dataset])
        counts = [(labels[s], scores.get(dataset, setting.choices, s, "hca_given_leaf")) for s in labels]
        said = ", ".join(f"{label} {found.n if found else 0}" for label, found in counts)
        panel.set_xlabel(wrapped(f"n: {said}", 3.2), fontsize=SMALL, color=GREY)
    legend(figure, list(by_role.values()), list(labels.values()))
    return figure
