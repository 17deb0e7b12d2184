"""docs/photos.md as a newcomer follows it: each command as written, on 24 photos in class folders."""

import re
import subprocess
import sys

import pytest
import yaml

from tests.data.photos import draw_photos
from tests.workflow.conftest import ROOT, Run

PAGE = (ROOT / "docs/photos.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]  # fmt: skip


def follow(run: Run, command: str) -> str:
    """Run a command of the page in the copy of the workflow; what it printed."""
    program, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=run.folder,
        env=run.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A fresh workflow and a folder of photos."""
    run = Run(tmp_path_factory.mktemp("newcomer"))
    draw_photos(run.folder / "photos")
    return run


def test_the_page_begins_with_what_is_understood_and_costs(newcomer: Run) -> None:
    assert [command.split()[0] for command in COMMANDS] == [
        "vltaxon", "snakemake", "snakemake", "vltaxon", "vltaxon", "snakemake",
    ]  # fmt: skip
    said = [follow(newcomer, command) for command in COMMANDS[:2]]
    assert "| species | 6 | 0 |" in said[0]
    assert re.search(r"direct.*oaks.*\b48\b", said[1]), "two questions about each of 24 photos"


@pytest.mark.slow
def test_the_page_is_followed_from_a_folder_to_a_table(newcomer: Run) -> None:
    if not (newcomer.folder / "config/oaks.yaml").exists():  # where this test runs alone
        follow(newcomer, COMMANDS[0])
    follow(newcomer, COMMANDS[2])
    table = (newcomer.folder / "results/tables/main.md").read_text()
    assert "## oaks, similar choices, n = 24 images" in table
    assert "tiny_siglip, zero-shot" in table and "tiny_vlm, direct" in table and "Seen and" not in table
    assert "Open leaf" not in table.partition("# How")[0]
    report = (newcomer.folder / "results/report/index.html").read_text()
    assert "tiny_vlm, direct gets the whole lineage right" in report


def test_real_models_are_proposed_by_name(newcomer: Run) -> None:
    follow(newcomer, COMMANDS[3])
    config = yaml.safe_load((newcomer.folder / "config/oaks_7b.yaml").read_text())
    assert config["encoder"] == "siglip_so400m"
    assert config["systems"]["direct"]["model"] == "qwen2_5_vl_7b"


@pytest.mark.slow
def test_the_page_is_followed_to_a_trained_model(newcomer: Run) -> None:
    for command in COMMANDS[4:]:
        follow(newcomer, command)
    table = (newcomer.folder / "results/tables/main.md").read_text()
    assert "## oaks_trained, similar choices, n = 12 images" in table
    assert "VL-Taxon" in table and "Seen and unseen species" in table
