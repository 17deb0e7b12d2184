"""What `make` installs: every package with the digests of its files, and nothing that the shell smuggles in."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_every_package_of_the_lock_has_a_version_and_digests() -> None:
    """pip too, and what builds the package itself."""
    entries = re.split(
        r"^(?=[a-z0-9])", "".join(re.findall(r"^[^#].*\n", LOCK, re.MULTILINE)), flags=re.MULTILINE
    )
    names = {}
    for entry in filter(None, entries):
        head, *digests = re.split(r" \\\n", entry.rstrip("\n"))
        names[head.partition("==")[0]] = head
        assert re.fullmatch(r"[a-z0-9-]+==[^ ;]+( ; .*)?", head), head
        assert digests and all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in digests), (
            head
        )
    assert {"pip", "setuptools", "torch", "snakemake"} <= names.keys() and len(names) > 100
    assert "://" not in LOCK, "whoever installs says from where"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in wanted:
        name = re.match(r"[\w-]+", requirement)
        assert name is not None
        assert re.sub("_", "-", name[0]).lower() in names or name[0] == "vltaxon", requirement


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_hides_what_would_put_packages_elsewhere() -> None:
    given = {
        "PYTHONPATH": "/else",
        "PIP_TARGET": "/else",
        "PIP_USER": "1",
        "PIP_PREFIX": "/else",
        "PIP_PRE": "1",
    }
    kept = {"PIP_INDEX_URL": "a mirror", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["make", "--silent", "--eval", "told: ; @env", "told"],
        cwd=ROOT, env=given | kept, capture_output=True, text=True, check=True,
    )  # fmt: skip
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert not given.keys() & seen.keys() and kept.items() <= seen.items()
