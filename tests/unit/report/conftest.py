"""A small scored benchmark that the tests of this folder share; they run in its folder, as jobs do in the
workflow root.
"""

from pathlib import Path

import pytest

from tests.data.builder import Bench, realistic, score_task
from vltaxon.metrics.score import score

SCORES, DATABASE = Path("results/metrics/scores.parquet"), Path("results/benchmark.duckdb")
HOSTILE = "<think>x</think></details><script>document.title='owned'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a scored benchmark, one image per leaf; one system's stage 1 texts are hostile."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        bench: Bench = realistic(folder, images_per_leaf=1)
        for row in bench.leaves["base_open", "demo_plants"]:
            row["completion"] = HOSTILE
        score(score_task(bench.sources(), 50, 0, SCORES, DATABASE))
    return folder


@pytest.fixture(autouse=True)
def at_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where the relative paths hold."""
    monkeypatch.chdir(root)
