"""Which config a run has: files of the command line stand alone, values change one, whoever calls."""

import subprocess
import sys
from pathlib import Path

from tests.workflow.conftest import Run

API = """
import sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

with SnakemakeApi(OutputSettings()) as api:
    settings = ConfigSettings(configfiles=[Path(name) for name in sys.argv[1:]])
    workflow = api.workflow(resource_settings=ResourceSettings(cores=1), config_settings=settings)
    workflow.dag(DAGSettings(targets={"all"})).execute_workflow(executor="dryrun")
"""


def test_values_change_the_config_and_files_replace_it_whoever_calls(tmp_path: Path) -> None:
    """As `--config` and `--configfile`, and by Snakemake's API, which reads no profile."""
    run = Run(tmp_path)
    (tmp_path / "one.yaml").write_text("seed: 1\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/record.json").write_text('{"samples": 8}')
    assert run.snakemake("--dry-run", "--quiet", "--config", "seed=1")[0] == 0
    status, said = run.snakemake("--dry-run", "--config", "seed=x")
    assert status and "config.yaml: seed: Input should be a valid integer" in said
    assert "is missing" not in said
    status, said = run.snakemake("--dry-run", "--configfile", "one.yaml")
    assert status and "one.yaml: datasets: is missing" in said
    status, said = run.snakemake("--dry-run", "--configfile", "config/config.yaml", "results/record.json")
    assert status and "record.json: is a result, no config; name targets before --configfile" in said
    assert "unknown key" not in said
    for files, expected in ((), "ingest"), (("one.yaml",), "one.yaml: datasets: is missing"):
        done = subprocess.run(
            [sys.executable, "-c", API, *files], cwd=tmp_path, env=run.environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert (done.returncode == 0) == (not files), done.stderr
        assert expected in done.stdout + done.stderr
