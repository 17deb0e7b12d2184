"""A small but whole run of the workflow in a copy of the repository, shared by the tests that ask what
would run again.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.data.forks import Forks

ROOT = Path(__file__).parents[2]
FORKS = Forks()
COPIED = ("Snakefile", "config", "profiles", "workflow", "src")

# The embedded default with few images, few species to learn from, no mining and short answers: every kind of
# job but `mine`.
SMALL = {
    "datasets": ["demo_plants", "demo_birds"],
    "choices": ["random"],
    "training": {
        "dataset": "demo_plants",
        "choices": "random",
        "partition": {"held_out": 68},
        "settings": {
            # enough SFT to learn the form, or no reward would vary
            "sft": {
                "learning_rate": 1e-3,
                "batch_size": 16,
                "device_batch_size": 16,
                "lora": {"dropout": 0},
                "epochs": 10,
            },
            "grpo": {
                "learning_rate": 3e-4,
                "batch_size": 16,
                "device_batch_size": 16,
                "lora": {"dropout": 0},
                "max_new_tokens": 48,
            },
        },
    },
    "systems": {
        "base": {"model": "tiny_vlm", "protocol": "direct"},
        "vl_taxon": {"model": "tiny_vlm", "recipe": "vl_taxon", "protocol": "two_stage"},
        "lookup": {"model": "tiny_vlm", "recipe": "vl_taxon", "protocol": "lookup"},
        "chance": {"model": "chance", "protocol": "chance"},
    },
    "main": [],
    "tables": {"animal": "demo_birds", "plant": "demo_plants", "bird": "demo_birds", "choices": "random"},
    "comparisons": {},
    "compare": [["vl_taxon", "base"]],
    "sweeps": {"asked": {"system": "base", "variants": [0, 1], "rotations": [0, 1]}},
    "repeats": {"again": {"system": "base", "times": 2}},
    "bootstrap": 50,
    "report": {
        "dataset": "demo_plants",
        "choices": "random",
        "system": "vl_taxon",
        "baseline": "base",
        "examples": 2,
    },
    "demo": {"train": 2, "test": 1},
}


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[None]:
    """What runs Snakemake ends with the tests."""
    yield
    FORKS.close()


def _heeds_ctrl_c() -> None:
    """A shell lets its background jobs ignore Ctrl-C, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Run:
    """A copy of the repository and what Snakemake says there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            source, target = ROOT / name, folder / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy(source, target)
        config = folder / "config" / "config.yaml"
        config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | SMALL))

    def copy(self, folder: Path) -> "Run":
        """The same in another folder, results included."""
        run = Run.__new__(Run)
        run.folder = folder
        shutil.copytree(self.folder, folder, symlinks=True)
        return run

    def environment(self) -> dict[str, str]:
        """With the copy's package."""
        environment = os.environ | {"PYTHONPATH": str(self.folder / "src")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start Snakemake in the copy, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *args],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_heeds_ctrl_c,
        )

    def snakemake(self, *args: str) -> tuple[int, str]:
        """Run Snakemake in the copy; exit status and all it printed."""
        return FORKS.snakemake(self.folder, self.environment(), *args)

    def planned(self, *args: str) -> dict[str, int]:
        """Jobs per rule that a dry run plans, without `all`."""
        status, said = self.snakemake(*args, "--dry-run", "--quiet", "reason")
        assert status == 0, said
        table = re.search(r"Job stats:\njob\s+count\n[- ]+\n(.*?)\ntotal", said, re.DOTALL)
        rows = [line.split() for line in table.group(1).splitlines()] if table else []
        return {rule: int(count) for rule, count in rows if rule != "all"}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A finished run that was interrupted by Ctrl-C on the way and then simply started again."""
    run = Run(tmp_path_factory.mktemp("run"))
    process = run.start("--cores", "2")
    deadline = time.monotonic() + 600
    while not list(run.folder.glob("results/questions/*/random.parquet")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert process.returncode != 0, said
    assert not (run.folder / "results/report/index.html").exists(), "interrupted too late to show anything"
    status, said = run.snakemake("--cores", "2")
    assert status == 0, said
    yield run
