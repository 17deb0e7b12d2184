"""What CONTRIBUTING.md shows how to add: each diff is applied to a finished small run, and its commands are run there.

A section adds one thing by one file (or one folder of its own), and names it in the config: the test fails where it would need
a second place.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.workflow.conftest import ROOT, Run

GUIDE = ROOT / "CONTRIBUTING.md"
ADDED = {
    "A reward": "src/vltaxon/train/rewards/",
    "A metric": "src/vltaxon/metrics/",
    "A data source": "src/vltaxon/data/sources/",
    "A training objective": "src/vltaxon/train/objectives/",
    "An engine": "src/vltaxon/engines/",
    "A protocol": "config/protocols/",
    "A paper": "src/vltaxon/papers/",
    "A report section": "src/vltaxon/report/pages/",
}


class Example(NamedTuple):
    """A section of the guide: its diffs, the commands that try it, and what these are to print."""

    title: str
    diffs: list[str]
    commands: list[str]
    printed: list[str]


def examples() -> dict[str, Example]:
    """The sections of the guide that have a diff, by title."""
    found = {}
    for section in re.split(r"^## ", GUIDE.read_text(), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        blocks: dict[str, list[str]] = {"diff": [], "sh": [], "text": []}
        for kind, body in re.findall(r"^```(diff|sh|text)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL):
            blocks[kind].append(body)
        if blocks["diff"]:
            commands = [line for body in blocks["sh"] for line in body.splitlines() if not line.startswith("#")]
            printed = [line for body in blocks["text"] for line in body.splitlines()]
            found[title] = Example(title, blocks["diff"], commands, printed)
    return found


def touched(diff: str) -> list[str]:
    """Files that a diff makes or changes."""
    return re.findall(r"^\+\+\+ b/(.*)$", diff, flags=re.MULTILINE)


def test_every_kind_of_thing_is_shown() -> None:
    assert examples().keys() == ADDED.keys()


@pytest.mark.parametrize("title", ADDED)
def test_each_is_one_file_and_its_names_in_the_config(title: str) -> None:
    """A paper is a folder, a section has its template beside it; whatever else a diff touches is config."""
    files = [file for diff in examples()[title].diffs for file in touched(diff)]
    of_code = [file for file in files if not file.startswith("config/") or file.startswith(ADDED[title])]
    assert of_code and all(file.startswith((ADDED[title], "src/vltaxon/report/site/")) for file in of_code), files
    stems = {Path(file.removeprefix(ADDED[title])).parts[0].partition(".")[0] for file in of_code if ADDED[title] in file}
    assert len(stems) == 1, f"{title} takes more than one thing: {of_code}"


def test_they_work_together_as_the_guide_says(finished: Run, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "mine")
    for example in examples().values():
        for diff in example.diffs:
            applied = subprocess.run(
                ["git", "apply", "--unidiff-zero", "-"], cwd=run.folder, input=diff, text=True, capture_output=True
            )
            assert applied.returncode == 0, f"{example.title}: {applied.stderr}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(run.folder / "src"), "PATH": path}
    for example in examples().values():
        for command in example.commands:
            tried = subprocess.run(command, shell=True, cwd=run.folder, env=environment, text=True, capture_output=True)
            said = tried.stdout + tried.stderr
            assert tried.returncode == 0, f"{example.title}: {command}\n{said}"
        for line in example.printed:
            assert line in said, f"{example.title}: does not print {line!r}:\n{said}"
