"""What CONTRIBUTING.md shows how to add: each diff is applied to a finished small run, and its commands are run.

A section adds one thing by one file (or one folder of its own), and names it in the config: the test fails where it
would need a second place.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.workflow.conftest import ROOT, Run

GUIDE = ROOT / "CONTRIBUTING.md"
FOLDERS = {
    "A reward": "src/vltaxon/train/rewards/",
    "A metric": "src/vltaxon/metrics/per_image/",
    "A data source": "src/vltaxon/data/sources/",
    "A training objective": "src/vltaxon/train/objectives/",
    "An engine": "src/vltaxon/engines/",
    "A protocol": "config/protocols/",
    "A paper": "src/vltaxon/papers/",
    "A report section": "src/vltaxon/report/pages/",
}
TEMPLATES = "src/vltaxon/report/site/"


class Example(NamedTuple):
    """A section of the guide: its diff, what it adds to the config, commands that try it, what these print."""

    diff: str
    config: dict[str, Any]
    commands: list[str]
    printed: list[str]


def examples() -> dict[str, Example]:
    """The sections of the guide that have a diff, by title."""
    found = {}
    for section in re.split(r"^## ", GUIDE.read_text(), flags=re.MULTILINE)[1:]:
        blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL))
        if "diff" in blocks:
            config = yaml.safe_load(blocks.get("yaml", "{}"))
            lines = (blocks.get(kind, "").splitlines() for kind in ("sh", "text"))
            found[section.partition("\n")[0]] = Example(blocks["diff"], config, *lines)
    return found


def test_every_kind_of_thing_is_shown() -> None:
    assert examples().keys() == FOLDERS.keys()


@pytest.mark.parametrize("title", FOLDERS)
def test_each_is_one_thing_and_its_name_in_the_config(title: str) -> None:
    """A paper is a folder, and a section of the report has its template; all else that is touched is config."""
    files = re.findall(r"^\+\+\+ b/(.*)$", examples()[title].diff, flags=re.MULTILINE)
    folder = FOLDERS[title]
    things = {
        Path(file.removeprefix(folder)).parts[0].partition(".")[0]
        for file in files
        if file.startswith(folder)
    }
    others = [file for file in files if not file.startswith((folder, "config/"))]
    assert len(things) == 1, f"{title} takes more than one thing: {files}"
    assert others == ([f"{TEMPLATES}{things.pop()}.html.j2"] if title == "A report section" else [])


def test_they_work_as_the_guide_says(finished: Run, tmp_path: Path) -> None:
    """All of them are there together; each is named in the config when it is tried."""
    run = finished.copy(tmp_path / "mine")
    top = run.folder / "config/config.yaml"
    given = yaml.safe_load(top.read_text())
    for title, example in examples().items():
        command = ["git", "apply", "--recount", "-"]
        applied = subprocess.run(command, cwd=run.folder, input=example.diff, text=True, capture_output=True)
        assert applied.returncode == 0, f"{title}: {applied.stderr}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(run.folder / "src"), "PATH": path}
    for title, example in examples().items():
        added = {"systems": given["systems"] | example.config.get("systems", {})}
        added["datasets"] = given["datasets"] + example.config.get("datasets", [])
        top.write_text(yaml.safe_dump(given | added, sort_keys=False))
        said = ""
        for command in example.commands:
            tried = subprocess.run(
                command, shell=True, cwd=run.folder, env=environment, text=True, capture_output=True
            )
            said += tried.stdout + tried.stderr
            assert tried.returncode == 0, f"{title}: {command}\n{said}"
        for line in example.printed:
            assert line in said, f"{title}: {line!r} is not printed:\n{said}"
