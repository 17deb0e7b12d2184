"""The documents: links lead somewhere, commands name targets that exist, and no key of the config is left
out.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from vltaxon.config.experiment import Config, Report, System, Training
from vltaxon.config.load import load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "config" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The headings of a page, written as links write them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[str]:
    """What stands after `snakemake` in the code of a page: in fenced shell lines and between backticks."""
    text = page.read_text()
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from re.findall(r"^(?:\S+=\S+ )*snakemake (.+)$", block, re.MULTILINE)
    yield from re.findall(r"`snakemake ([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


@pytest.fixture(scope="module")
def rules() -> set[str]:
    """The names of all rules, as Snakemake lists them."""
    listed = subprocess.run(
        [sys.executable, "-m", "snakemake", "--list-rules"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listed.stdout.split())


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if not link.startswith(("http:", "https:"))]
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_name_targets_that_exist(
    page: Path, rules: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake's own parser reads them, so options exist, too, and none of them swallows a target."""
    from snakemake import cli

    monkeypatch.chdir(ROOT)
    for command in commands(page):
        _, given = cli.parse_args(shlex.split(command, comments=True))
        odd = {
            target for target in given.targets if target not in rules and not target.startswith("results/")
        }
        # Until papers are folders, a paper's table is a rule by its short name only.
        assert {target for target in odd if target.partition(".")[2] not in rules} == set(), command
        assert all(path.suffix == ".yaml" for path in map(Path, given.configfile or [])), command


def test_every_page_has_commands_or_links_to_check() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 20


@pytest.mark.parametrize("model", [Config, System, Training, Report])
def test_the_keys_of_the_config_are_described(model: type[BaseModel]) -> None:
    described = (ROOT / "config" / "README.md").read_text()
    assert [key for key in model.model_fields if f"| `{key}` |" not in described] == []


def test_the_smallest_experiment_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "config" / "README.md").read_text(), re.M | re.S)
    assert len(blocks) == 2
    for block in blocks:
        load(yaml.safe_load(block), ROOT / "config")


def test_the_catalog_is_told_what_it_shows() -> None:
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment", "report"}
