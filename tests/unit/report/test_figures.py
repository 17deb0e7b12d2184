"""The figures: there, the same twice, with the labels and without overlap."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.builder import LABELS, RANKS, curves
from vltaxon import schemas
from vltaxon.provenance import write_parquet
from vltaxon.report.figures import plot, training
from vltaxon.report.figures.labels import _common
from vltaxon.report.figures.style import legend, styled
from vltaxon.report.figures.training import _smooth
from vltaxon.tasks.scoring import PlotTask

SCORES = Path("results/metrics/scores.parquet")
ALL_RANKS = {"demo_plants": RANKS["seven"], "demo_animals": RANKS["seven"], "demo_birds": RANKS["four"]}
NAMES = {
    f"{name}.{suffix}" for name in ("level_accuracy", "hca_leaf", "training") for suffix in ("svg", "png")
}


def drawn(curves: dict[str, Path], folder: str, labels: dict[str, str] = LABELS) -> None:
    """Draw the three figures of a few scores into a folder."""
    names = ("level_accuracy", "hca_leaf", "training")
    plot(
        PlotTask(
            labels=labels,
            ranks=ALL_RANKS,
            steps=tuple(curves),
            scores=Path("few.parquet"),
            curves=tuple(curves.values()),
            png=tuple(Path(f"{folder}/{name}.png") for name in names),
            **{name: Path(f"{folder}/{name}.svg") for name in names},
        )
    )


def test_figures_are_drawn_and_deterministic(root: Path) -> None:
    """Two data sets, similar choices and open set: four panels."""
    table = pq.read_table(SCORES)
    few = pc.and_(pc.not_equal(table["dataset"], "demo_animals"), pc.not_equal(table["choices"], "random"))
    write_parquet(table.filter(few), Path("few.parquet"), schemas.SCORES)
    drawn(curves(root), "one")
    assert {path.name for path in Path("one").iterdir()} == NAMES
    for name in NAMES:
        if name.endswith("png"):
            image = Image.open(Path("one") / name)
            assert image.width > 900 and np.asarray(image.convert("L")).std() > 10
    svg = Path("one/hca_leaf.svg").read_text("utf-8")
    assert (
        svg.count("<!-- VL-Taxon, lookup -->") == 4 and svg.count("<!-- Base -->") == 2
    )  # in open set there is no Base
    assert "<dc:date>" not in svg and "<!-- species -->" in Path("one/level_accuracy.svg").read_text("utf-8")
    drawn({}, "two")
    for name in ("hca_leaf.svg", "level_accuracy.svg", "hca_leaf.png"):
        assert (Path("two") / name).read_bytes() == (Path("one") / name).read_bytes(), name
    assert Path("two/training.png").exists()  # nothing was trained: an empty figure, no error


def test_labels_are_drawn_as_they_are(root: Path) -> None:
    """Neither mathematics, which stops at a lone sign, nor hidden from the legend by a leading underscore."""
    table = pq.read_table(SCORES)
    write_parquet(table.filter(pc.equal(table["dataset"], "demo_birds")), Path("few.parquet"), schemas.SCORES)
    drawn({}, "odd", LABELS | {"base": "_Base costs $5", "vl_taxon": "$\\frac{1}$ | <b>\nline"})
    svg = Path("odd/level_accuracy.svg").read_text("utf-8")
    assert "<!-- _Base costs $5 -->" in svg and "<!-- $\\frac{1}$ | &lt;b&gt; -->" in svg
    ElementTree.fromstring(svg)
    assert "costs $5" in Path("odd/hca_leaf.svg").read_text("utf-8")


def test_running_mean() -> None:
    assert _smooth(np.full(40, 3.0)) == pytest.approx(np.full(40, 3.0))
    assert _smooth(np.array([0.0, 3.0, 6.0])) == pytest.approx([1.5, 3.0, 4.5])


def test_shared_area() -> None:
    boxes = np.array([[0.0, 0, 2, 2], [5, 5, 6, 6]])
    assert _common(boxes, np.array([[1.0, 1, 3, 3], [0, 0, 1, 1], [2, 2, 4, 4]])) == pytest.approx([2, 0])


@pytest.mark.parametrize("width", [3.9, 7.3, 10.7])
def test_a_legend_is_within_its_figure(width: float) -> None:
    """As that of one data set, whose panel is narrower than four labels side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = ["tiny_siglip, zero-shot", "tiny_vlm, direct", "VL-Taxon", "Chance", "chance level"]
    with styled():
        figure = Figure(figsize=(width, 3.1), layout="constrained")
        FigureCanvasAgg(figure)
        panel = figure.subplots()
        for label in labels:
            panel.plot([0, 1], label=label)
        legend(figure, [panel], labels)
        figure.canvas.draw()
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1


def test_without_training_its_figure_says_so() -> None:
    figure = training.draw({})
    assert [text.get_text() for text in figure.texts] == ["Nothing is trained."] and not figure.axes
