"""The figures: SVG and PNG, the same bytes from the same numbers; a module each, whose `draw` returns it."""

from vltaxon.report.estimates import Scores
from vltaxon.report.figures import hca_leaf, level_accuracy, training
from vltaxon.report.figures.style import save, styled
from vltaxon.tasks.scoring import PlotTask

FIGURES = {"level_accuracy": level_accuracy, "hca_leaf": hca_leaf, "training": training}


def plot(task: PlotTask) -> None:
    """Draw `level_accuracy`, `hca_leaf` and `training`; the order of the labels decides the colours."""
    curves = dict(zip(task.steps, task.curves, strict=True))
    with styled():
        found = Scores.read(task.scores)
        save(level_accuracy.draw(found, task.labels, task.ranks), task.level_accuracy)
        save(hca_leaf.draw(found, task.labels), task.hca_leaf)
        save(training.draw(curves), task.training)
