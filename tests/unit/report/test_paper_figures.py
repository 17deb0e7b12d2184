"""The stand-ins for Figures 2 and 4: there, the same twice, and labelled as what they are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.builder import LABELS, RANKS
from vltaxon.metrics import heads
from vltaxon.papers import files, papers
from vltaxon.report.figures.of_papers import plot_paper
from vltaxon.tasks.scoring import PlotPaperTask, Setting

SCORES = Path("results/metrics/scores.parquet")
ALL_RANKS = {"demo_plants": RANKS["seven"], "demo_animals": RANKS["seven"], "demo_birds": RANKS["four"]}
SETTING = Setting(
    paper="vl_taxon",
    datasets={"animal": "demo_animals", "plant": "demo_plants", "bird": "demo_birds"},
    comparable=dict.fromkeys(papers()["vl_taxon"].roles, False),
    choices="similar",
    systems=dict.fromkeys(("base", "default_sft", "vl_taxon"), "tiny"),
)


@pytest.mark.parametrize(("figure", "systems", "panels"), [("figure2", 2, 2), ("figure4", 3, 3)])
def test_figures_are_drawn_and_deterministic(figure: str, systems: int, panels: int) -> None:
    labels = {name: LABELS[name] for name in list(SETTING.systems)[:systems]}
    for folder in ("one", "two"):
        forms = {suffix: Path(f"{folder}/{figure}.{suffix}") for suffix in ("svg", "png")}
        drawing = f"vltaxon.report.figures.{papers()['vl_taxon'].figures[figure].drawing}"
        plot_paper(
            PlotPaperTask(
                figure=figure,
                drawing=drawing,
                setting=SETTING,
                labels=labels,
                ranks=ALL_RANKS,
                metrics=heads.files(),
                paper=files("vl_taxon"),
                scores=SCORES,
                **forms,
            )
        )
    for suffix in ("svg", "png"):
        assert Path(f"one/{figure}.{suffix}").read_bytes() == Path(f"two/{figure}.{suffix}").read_bytes()
    image = Image.open(f"one/{figure}.png")
    assert image.width > 900 and np.asarray(image.convert("L")).std() > 10
    svg = Path(f"one/{figure}.svg").read_text("utf-8")
    assert (
        f"Stand-in for Figure {figure[-1]} of arXiv 2601.14610" in svg and "Not the paper's data sets" in svg
    )
    for role in list(SETTING.datasets)[:panels]:
        assert f"<!-- {role}: {SETTING.datasets[role]} -->" in svg
    assert ("<!-- published -->" in svg) == (figure == "figure2")
