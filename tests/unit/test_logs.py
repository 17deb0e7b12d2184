import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, sys
from vltaxon.errors import UserError
from vltaxon.logs import logged
with logged(sys.argv[1], 3):
    print("python")
    os.system("echo child")
    print(os.environ["OMP_NUM_THREADS"])
    if sys.argv[2] == "ask":
        print(input("run the code? "))
    if sys.argv[2] == "mistake":
        raise UserError("config/x.yaml: no")
"""


def run(tmp_path: Path, what: str) -> tuple[int, str, str]:
    log = tmp_path / "deep" / "job.log"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(log), what],
        capture_output=True,
        text=True,
        check=False,
        input="yes\n",
    )
    return done.returncode, done.stdout + done.stderr, log.read_text()


def test_everything_a_job_says_is_in_its_log(tmp_path: Path) -> None:
    status, terminal, log = run(tmp_path, "work")
    assert (status, terminal) == (0, "")
    assert sorted(log.split()) == ["3", "child", "python"]


def test_a_user_s_mistake_is_one_line_without_traceback(tmp_path: Path) -> None:
    status, terminal, log = run(tmp_path, "mistake")
    assert status == 1 and terminal == ""
    assert log.splitlines()[-1] == "error: config/x.yaml: no" and "Traceback" not in log


def test_what_a_library_asks_a_job_nobody_answers(tmp_path: Path) -> None:
    status, _, log = run(tmp_path, "ask")
    assert status == 1 and "EOFError" in log and "yes" not in log
