"""What must run again after a change, and what must not: the exact set of planned jobs."""

import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.workflow.conftest import SMALL, Run

SCORING = {"score": 1, "tabulate": 1, "plot": 1, "report": 1}
# The small run has four systems on two data sets: `base` answers directly, `vl_taxon` and `lookup` share
# stage 1, `chance` draws.
PREDICTION = {"predict_leaf": 2, "answer_questions": 8}
TRAINED = {"predict_leaf": 2, "answer_questions": 4} | SCORING  # what hangs on the adapter
TRAINING = {"train": 2, "name_training": 1} | TRAINED
MODEL = TRAINING | {"answer_questions": 6}  # chance has no model

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
    """Set top-level keys of a YAML file; a mapping is merged, and what is None there is taken out."""

    def change(folder: Path) -> None:
        path = folder / "config" / file
        data = yaml.safe_load(path.read_text())
        for key, value in values.items():
            if isinstance(value, dict):
                value = {name: one for name, one in (data[key] | value).items() if one is not None}
            data[key] = value
        path.write_text(yaml.safe_dump(data, sort_keys=False))

    return change


def add(file: str, text: str) -> Change:
    """Write a new file."""
    return lambda folder: (folder / file).write_text(text) and None


def delete(path: str) -> Change:
    """Delete a folder or a file of the results."""
    return lambda folder: (shutil.rmtree if (folder / path).is_dir() else os.remove)(folder / path)


def touch_everything(folder: Path) -> None:
    """Give every file of the copy, results included, the present time."""
    for path in folder.rglob("*"):
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path)


def document(folder: Path) -> None:
    """Add comments and docstrings to modules of every step."""
    names = (
        "train/step",
        "train/rewards/accuracy",
        "inference/stages/leaf",
        "metrics/score",
        "report/tables",
        "data/ingest",
        "questions",
    )
    for name in names:
        path = folder / "src" / "vltaxon" / f"{name}.py"
        path.write_text(re.sub(r'^"""', '"""Once more: ', path.read_text(), count=1) + "\n# a remark\n")


def system(name: str, **values: object) -> Change:
    """Set a system; one without values goes."""
    return configure("config.yaml", systems={name: values or None})


def systems(*names: str) -> Change:
    """Leave these systems, in this order; those that are not in the small run are asked for the leaf
    alone.
    """
    given = SMALL["systems"]
    opened = {"model": "tiny_vlm", "recipe": "vl_taxon", "protocol": "open_set"}

    def change(folder: Path) -> None:
        path = folder / "config/config.yaml"
        chosen = {name: given.get(name, opened) for name in names}
        path.write_text(
            yaml.safe_dump(yaml.safe_load(path.read_text()) | {"systems": chosen}, sort_keys=False)
        )

    return change


def train_on_two(folder: Path) -> None:
    """Train on two devices, with as many samples at once on each as the batch allows."""
    configure("models/tiny_vlm.yaml", train_gpus=2)(folder)
    for _ in range(2):
        replace("config/config.yaml", "device_batch_size: 16", "device_batch_size: 8")(folder)


CASES: list[tuple[str, Change, dict[str, int]]] = [
    ("nothing", lambda folder: None, {}),
    ("files touched", touch_everything, {}),
    ("comments and docstrings", document, {}),
    # code
    ("a metric's SQL", replace("src/vltaxon/metrics/per_image/hca.sql", "SELECT", "SELECT DISTINCT"), SCORING),
    ("a new metric", add("src/vltaxon/metrics/per_image/new.sql", "SELECT 1"), SCORING),
    ("metric code", replace("src/vltaxon/metrics/uncertainty.py", "2.5, 97.5", "2.4, 97.6"), SCORING),
    ("columns of the scores", replace("src/vltaxon/schemas.py", '("high", pa.float64())', '("high", pa.float32())'), SCORING),
    ("columns of the training curve", replace("src/vltaxon/schemas.py", '("metric", _str), ("value', '("kind", _str), ("value'),
     {"plot": 1, "report": 1}),
    ("report code", replace("src/vltaxon/report/pages/examples.py", "240 * 240", "241 * 241"), {"report": 1}),
    ("the report's style", replace("src/vltaxon/report/site/style.css", "{", " {"), {"report": 1}),
    ("figure code", replace("src/vltaxon/report/figures/style.py", '"savefig.dpi": 160', '"savefig.dpi": 150'),
     {"plot": 1, "report": 1}),
    ("code of random distractors", replace("src/vltaxon/questions.py", "distractors of level", "wrong labels of level"),
     {"draw": 2} | TRAINING | PREDICTION),
    ("inference code without a new version", replace("src/vltaxon/inference/stages/answers.py", '"not asked"', '"unasked"'), {}),
    ("inference code with one", replace("src/vltaxon/versions.py", 'ce.run": ', 'ce.run": 9'),
     {"name_training": 1, "train": 1} | PREDICTION | SCORING),
    ("training code with a new version", replace("src/vltaxon/versions.py", 'in.step": ', 'in.step": 9'), TRAINING),
    # what is asked
    ("the direct prompt", replace("config/prompts/direct.yaml", "letter", "Letter"), {"answer_questions": 2} | SCORING),
    ("stage 2's prompt", replace("config/prompts/stage2.yaml", "A first look", "One look"), TRAINING),
    ("a wording that nobody is asked in", replace("config/questions/inat21.yaml", "What could the", "What might the"), {}),
    ("the wording of a data set", configure("datasets/demo_birds.yaml", variant=1), {"answer_questions": 2} | SCORING),
    ("the wording of a system", system("base", model="tiny_vlm", protocol="direct", variant=3),
     {"answer_questions": 2} | SCORING),
    ("a protocol's second stage", replace("config/protocols/two_stage.yaml", "leaf, max_new_tokens: 512", "leaf"), {}),
    ("a protocol's limit", replace("config/protocols/two_stage.yaml", "leaf, max_new_tokens: 512", "leaf, max_new_tokens: 9"),
     {"answer_questions": 2} | SCORING),
    ("another protocol", system("base", model="tiny_vlm", protocol="direct_letters"), {"answer_questions": 2} | SCORING),
    ("another kind of choices", configure("config.yaml", choices=["random", "similar"]),
     {"embed": 2, "mine": 2, "answer_questions": 8} | SCORING),
    # data
    ("sampling of a data set", configure("datasets/demo_birds.yaml", test={"images_per_leaf": 1}),
     {"ingest": 1, "draw": 1, "predict_leaf": 1, "answer_questions": 4} | SCORING),
    ("species held out", replace("config/config.yaml", "held_out: 68", "held_out: 67"), {"partition": 1} | TRAINING),
    ("licence and size of a data set", configure("datasets/demo_birds.yaml", licence="none", size={"test": 5}), {}),
    ("another data set", configure("config.yaml", datasets=["demo_plants", "demo_birds", "demo_animals"]),
     {"ingest": 1, "draw": 1, "predict_leaf": 1, "answer_questions": 4} | SCORING),
    ("one data set less", configure("config.yaml", datasets=["demo_plants"], tables=None), SCORING),
    ("the seed", configure("config.yaml", seed=1),
     {"demo_archives": 1, "unpack_archive": 3, "ingest": 2, "draw": 2, "partition": 1} | TRAINING | PREDICTION),
    # models and recipes
    ("a model's revision", configure("models/tiny_vlm.yaml", revision="0" * 40), MODEL),
    ("a model's weights", replace("src/vltaxon/demo/base/generation_config.json", "{", "{ "), MODEL),
    ("batch size, devices and threads of a model", configure("models/tiny_vlm.yaml", batch_size=7, gpus=2, threads=3), {}),
    ("a learning rate of SFT", replace("config/config.yaml", "learning_rate: 0.001", "learning_rate: 0.002"), TRAINING),
    ("the KL term of GRPO", replace("config/recipes/vl_taxon.yaml", "kl: 0.4", "kl: 0.3"), {"train": 1} | TRAINED),
    ("device batch size", replace("config/config.yaml", "device_batch_size: 16", "device_batch_size: 8"), {}),
    ("how often a training is kept", replace("config/config.yaml", "device_batch_size: 16", "checkpoint_minutes: 1"), {}),
    ("the devices that train", train_on_two, {}),
    ("a value that the experiment sets in a recipe's place", replace("config/recipes/vl_taxon.yaml", "5.0e-5", "6.0e-5"), {}),
    ("the word of a recipe", configure("recipes/vl_taxon.yaml", word="organism"), TRAINING),
    ("a description", configure("protocols/two_stage.yaml", description="Other words."), {}),
    # systems
    ("a new system", system("base_open", model="tiny_vlm", protocol="open_set"), {"predict_leaf": 2} | SCORING),
    ("a new system before all others, with the stage 1 of some", systems("z_open", *SMALL["systems"]), SCORING),
    ("a new system whose name comes first of those that share stage 1", systems(*SMALL["systems"], "a_open"),
     {"predict_leaf": 2, "answer_questions": 4} | SCORING),
    ("one system less", system("chance"), SCORING),
    ("one system less, whose stage 1 another uses", system("lookup"), {"predict_leaf": 2, "answer_questions": 2} | SCORING),
    ("systems in another order", systems("chance", "lookup", "vl_taxon", "base"), {"tabulate": 1, "plot": 1, "report": 1}),
    ("a label", system("base", model="tiny_vlm", protocol="direct", label="B"), {"tabulate": 1, "plot": 1, "report": 1}),
    ("a sweep", configure("config.yaml", sweeps={"more": {"system": "vl_taxon"}}), {}),
    ("resamples", configure("config.yaml", bootstrap=60), SCORING),
    ("more shards", configure("config.yaml", shards=2), {"predict_leaf": 4, "list_leaves": 2, "answer_questions": 16} | SCORING),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_change_plans_exactly(finished: Run, change: Change, expected: dict[str, int]) -> None:
    folder = finished.folder
    tops = [folder / top for top in ("config", "src", "workflow")]

    def files() -> list[Path]:
        return [
            path
            for top in tops
            for path in top.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        ]

    kept = {path: path.read_bytes() for path in files()}
    try:
        change(folder)
        assert finished.planned() == expected
    finally:
        for path in set(files()) - kept.keys():
            path.unlink()
        for path, content in kept.items():
            if path.read_bytes() != content:
                path.write_bytes(content)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--cores", "1"),
        (
            "--cores",
            "7",
            "--resources",
            "gpu=4",
            "--set-threads",
            "train=3",
            "--set-resources",
            "predict_leaf:batch_size=5",
        ),
        ("--profile", "elsewhere"),
    ],
    ids=["cores", "threads and resources", "a profile"],
)
def test_how_it_is_run_plans_nothing(finished: Run, arguments: tuple[str, ...]) -> None:
    profile = finished.folder / "elsewhere"
    profile.mkdir(exist_ok=True)
    (profile / "config.yaml").write_text(
        "cores: 3\nlatency-wait: 60\nretries: 2\nkeep-going: true\nresources: [gpu=2]\n"
    )
    assert finished.planned(*arguments) == {}


@pytest.fixture
def moved(finished: Run, tmp_path: Path) -> Run:
    """A copy of the finished run at another path, as made by a tool that keeps neither times nor order."""
    run = Run.__new__(Run)
    run.folder = tmp_path / "another" / "machine"
    shutil.copytree(finished.folder, run.folder, copy_function=shutil.copyfile)
    times = random.Random(0)
    for path in sorted(path for path in run.folder.rglob("*") if path.is_file()):
        now = path.stat().st_mtime - times.randrange(100_000)
        os.utime(path, (now, now))
    return run


def test_why_says_what_has_changed_in_a_line(finished: Run) -> None:
    config = finished.folder / "config/models/tiny_vlm.yaml"
    before = config.read_text()
    try:
        configure("models/tiny_vlm.yaml", revision="a" * 40)(finished.folder)
        status, said = finished.snakemake("--cores", "1", "why")
    finally:
        config.write_text(before)
    assert status == 0, said
    lines = [re.split(r"  +", line.strip()) for line in said[said.index("rule ") :].splitlines()]
    assert ["train", "1", f"model.revision: None -> '{'a' * 40}'"] in lines
    assert ["answer_questions", "2", f"asking.model.revision: None -> '{'a' * 40}'"] in lines
    assert ["tabulate", "1", "after score"] in lines and not any(line[0] == "all" for line in lines)
    assert "Nothing is to be done" in finished.snakemake("--cores", "1", "why")[1]


def test_why_hears_another_config(finished: Run) -> None:
    other = finished.folder / "config/other.yaml"
    given = yaml.safe_load((finished.folder / "config/config.yaml").read_text())
    other.write_text(yaml.safe_dump(given | {"seed": 1}))
    for how in (
        ["--configfile", "config/config.yaml", "--config", "bootstrap=60"],
        ["--configfile", "config/other.yaml"],
    ):
        said = finished.snakemake("why", "--cores", "1", *how)[1]
        assert re.search(r"^score +1 ", said, re.MULTILINE), said
        assert ("ingest" in said) == ("config/other.yaml" in how) and max(map(len, said.splitlines())) < 1000
    other.unlink()


def test_results_moved_with_snakemakes_records_are_finished_there(moved: Run) -> None:
    assert moved.planned() == {}


def test_results_moved_alone_are_adopted_by_touching_them(moved: Run) -> None:
    """Without .snakemake nothing tells what they were made of, so the times count; `--touch` says that
    they are right.
    """
    shutil.rmtree(moved.folder / ".snakemake")
    assert moved.planned() != {}, "times alone, in no order"
    status, said = moved.snakemake("--cores", "1", "--touch", "--forceall")
    assert status == 0, said
    assert moved.planned() == {}
    replace("config/recipes/vl_taxon.yaml", "kl: 0.4", "kl: 0.3")(moved.folder)
    assert moved.planned() == {"train": 1} | TRAINED, "and it is known again what they were made of"


def test_a_branch_switch_and_back_plans_nothing(moved: Run) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=n", "-c", "user.email=e")
        subprocess.run(["git", *identity, *arguments], cwd=moved.folder, check=True, capture_output=True)

    (moved.folder / ".gitignore").write_text("/results/\n/.snakemake/\n__pycache__/\n")
    git("init", "--initial-branch", "main")
    git("add", ".")
    git("commit", "--message", "As it was run")
    git("checkout", "-b", "other")
    for name in ("train/step.py", "inference/run.py", "metrics/score.py", "data/ingest.py"):
        path = moved.folder / "src/vltaxon" / name
        path.write_text(path.read_text() + "\nANOTHER = 1\n")
    replace("config/recipes/vl_taxon.yaml", "kl: 0.4", "kl: 0.3")(moved.folder)
    for path in (moved.folder / "workflow/scripts").iterdir():
        path.write_text(path.read_text() + "\n")
    git("commit", "--all", "--message", "Another idea")
    there = moved.planned()
    assert there["ingest"] == 2 and there["train"] == 2, "the other branch has other code for the data"
    git("checkout", "main")
    assert moved.planned() == {}


def test_deleting_the_state_loses_only_time(moved: Run) -> None:
    (moved.folder / "results/.state").rename(moved.folder / "aside")
    assert moved.planned() == {}
    files = [f"results/predictions/{name}/demo_birds/random/0.parquet" for name in ("base", "lookup")]
    files.append("results/predictions/lookup/demo_birds/leaf/0.parquet")
    before = [pq.read_table(moved.folder / file).drop(["seconds"]) for file in files]
    status, said = moved.snakemake("--cores", "2", "--force", *files)
    assert status == 0, said
    assert (
        "answered there"
        not in (moved.folder / "results/logs/answer_questions/base/demo_birds/random/0.log").read_text()
    )
    assert [pq.read_table(moved.folder / file).drop(["seconds"]) for file in files] == before
