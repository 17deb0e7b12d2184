"""A path with spaces: of the repository, and of the Python that runs it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.workflow.conftest import Run


def test_jobs_run_where_paths_have_spaces(tmp_path: Path) -> None:
    """Snakemake itself puts the path of Python into shell commands as it is."""
    folder = tmp_path / "my papers (2)"
    run = Run(_made(folder / "it's here"))
    python = folder / "python"
    python.symlink_to(os.path.realpath(sys.executable))
    environment = run.environment() | {"PYTHONPATH": os.pathsep.join([str(run.folder / "src"), *sys.path])}
    done = subprocess.run(
        [python, "-m", "snakemake", "--cores", "1", "results/demo/raw/val.tar.gz"],
        cwd=run.folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (run.folder / "results/demo/raw/val.tar.gz").stat().st_size > 1000


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
