"""A path with spaces: of the repository, and of the Python that runs it."""

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, Run


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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_demo_in_a_checkout_whose_path_has_spaces(finished: Run, tmp_path: Path) -> None:
    """With the environment in it, as `make` has it; here it borrows the packages of the one that runs this."""
    run = finished.copy(_made(tmp_path / "my papers (2)") / "it's here")
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, run.folder)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=run.folder, check=True)
    [packages] = run.folder.glob(".venv/lib/python*/site-packages")
    lines = [
        str(run.folder / "src"),
        *(f"import site; site.addsitedir({at!r})" for at in site.getsitepackages()),
    ]
    (packages / "all.pth").write_text("\n".join(lines) + "\n")
    (run.folder / ".venv/.ready").touch()
    for made in ("predictions/base", "metrics", "tables", "report"):
        shutil.rmtree(run.folder / "results" / made)
    done = subprocess.run(["make", "demo"], cwd=run.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "## demo_birds, random choices, n = " in done.stdout
    tables = [folder / "results/tables/main.csv" for folder in (run.folder, finished.folder)]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    assert (run.folder / "results/report/index.html").stat().st_size > 10_000


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
