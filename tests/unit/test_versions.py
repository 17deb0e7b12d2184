"""An edit that changes what an expensive step computes needs a decision: a new number, or a new recorded
hash.

After the decision: python -m tests.unit.test_versions
"""

import json
from pathlib import Path

import pytest

from vltaxon.code_versions import code_version
from vltaxon.versions import VERSIONS

RECORD = Path(__file__).parents[1] / "data" / "versions.json"


@pytest.mark.parametrize("module", VERSIONS)
def test_code_has_not_moved_behind_its_version(module: str) -> None:
    recorded = json.loads(RECORD.read_text())[module]
    assert {"version": VERSIONS[module], "code": code_version(module)} == recorded, (
        f"the code behind {module} has changed. If it can change results, raise its number in src/vltaxon/versions.py; "
        "in both cases record the new hash: python -m tests.unit.test_versions"
    )


if __name__ == "__main__":
    found = {module: {"version": number, "code": code_version(module)} for module, number in VERSIONS.items()}
    RECORD.write_text(json.dumps(found, indent=1) + "\n")
