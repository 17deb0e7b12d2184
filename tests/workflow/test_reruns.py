"""What must run again after a change, and what must not: the exact set of planned jobs."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import Run

SCORING = {"score": 1, "tabulate": 1, "plot": 1, "report": 1}
# systems x data sets of the small run: three answer with a model or its stage 1, one by chance
PREDICTION = {"predict_leaf": 2, "answer_questions": 8}

Change = Callable[[Path], None]


def replace(file: str, old: str, new: str) -> Change:
    """Edit one place of a file."""

    def change(folder: Path) -> None:
        path = folder / file
        text = path.read_text()
        assert old in text, f"{file} no longer holds {old!r}"
        path.write_text(text.replace(old, new, 1))

    return change


def configure(file: str, **values: object) -> Change:
    """Set top-level keys of a YAML file; a mapping is merged."""

    def change(folder: Path) -> None:
        path = folder / "config" / file
        data = yaml.safe_load(path.read_text())
        for key, value in values.items():
            data[key] = data[key] | value if isinstance(value, dict) else value
        path.write_text(yaml.safe_dump(data))

    return change


def touch_everything(folder: Path) -> None:
    """Give every file of the copy, results included, the present time."""
    for path in folder.rglob("*"):
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path)


def document(folder: Path) -> None:
    """Add comments and docstrings to modules of every step."""
    for name in ("train/run", "train/rewards", "inference/stages", "metrics/run", "report/tables", "data/ingest", "questions"):
        path = folder / "src" / "vltaxon" / f"{name}.py"
        path.write_text(re.sub(r'^"""', '"""Once more: ', path.read_text(), count=1) + "\n# a remark\n")


new_system = configure("config.yaml", systems={"base_open": {"model": "tiny_vlm", "protocol": "open_set"}})
other_wording = configure("config.yaml", systems={"base": {"model": "tiny_vlm", "protocol": "direct", "variant": 3}})


def train_on_two(folder: Path) -> None:
    """Train on two devices, with as many samples at once on each as the batch allows."""
    configure("models/tiny_vlm.yaml", train_gpus=2)(folder)
    for _ in range(2):
        replace("config/config.yaml", "device_batch_size: 16", "device_batch_size: 8")(folder)


CASES: list[tuple[str, Change, dict[str, int]]] = [
    ("nothing", lambda folder: None, {}),
    ("files touched", touch_everything, {}),
    ("comments and docstrings", document, {}),
    ("a metric's SQL", replace("src/vltaxon/metrics/hca.sql", "SELECT", "SELECT DISTINCT"), SCORING),
    ("metric code", replace("src/vltaxon/metrics/uncertainty.py", "2.5, 97.5", "2.4, 97.6"), SCORING),
    ("report code", replace("src/vltaxon/report/page.py", "240 * 240", "241 * 241"), {"report": 1}),
    ("a new system", new_system, {"predict_leaf": 2} | SCORING),
    ("a label", configure("config.yaml", systems={"base": {"model": "tiny_vlm", "protocol": "direct", "label": "B"}}),
     {"tabulate": 1, "plot": 1, "report": 1}),
    ("batch size", configure("models/tiny_vlm.yaml", batch_size=7), {}),
    ("device batch size", replace("config/config.yaml", "device_batch_size: 16", "device_batch_size: 8"), {}),
    ("how often a training is kept", replace("config/config.yaml", "device_batch_size: 16", "checkpoint_minutes: 1"), {}),
    ("the devices that train", train_on_two, {}),
    ("a description", configure("protocols/two_stage.yaml", description="Other words."), {}),
    ("inference code without a new version", replace("src/vltaxon/inference/stages.py", '"not asked"', '"unasked"'), {}),
    ("inference code with one", replace("src/vltaxon/versions.py", 'ce.run": ', 'ce.run": 9'),
     {"name_training": 1, "train": 1} | PREDICTION | SCORING),
    ("stage 2's prompt", replace("config/prompts/stage2.yaml", "A first look", "One look"),
     {"train": 2, "name_training": 1, "predict_leaf": 2, "answer_questions": 4} | SCORING),
    ("a value that the experiment sets in a recipe's place", replace("config/recipes/vl_taxon.yaml", "5.0e-5", "6.0e-5"), {}),
    ("the word of a recipe", configure("recipes/vl_taxon.yaml", word="organism"),
     {"train": 2, "name_training": 1, "predict_leaf": 2, "answer_questions": 4} | SCORING),
    ("the wording of a system", other_wording, {"answer_questions": 2} | SCORING),
    ("a sweep", configure("config.yaml", sweeps={"more": {"system": "vl_taxon"}}), {}),
    ("a learning rate of GRPO", replace("config/recipes/vl_taxon.yaml", "kl: 0.4", "kl: 0.3"),
     {"train": 1, "predict_leaf": 2, "answer_questions": 4} | SCORING),
    ("the direct prompt", replace("config/prompts/direct.yaml", "letter", "Letter"), {"answer_questions": 2} | SCORING),
    ("resamples", configure("config.yaml", bootstrap=60), SCORING),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_change_plans_exactly(finished: Run, change: Change, expected: dict[str, int]) -> None:
    folder = finished.folder
    kept = {p: p.read_bytes() for top in ("config", "src", "workflow") for p in (folder / top).rglob("*") if p.is_file()}
    try:
        change(folder)
        assert finished.planned() == expected
    finally:
        for path, content in kept.items():
            if path.read_bytes() != content:
                path.write_bytes(content)
