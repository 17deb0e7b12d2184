"""A small disk that gets really full: a file system in memory, which only one process and its children see."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# In a script: leave no room on its disk.
FILL = """
try:
    with open("other", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
except OSError:
    print("full")
"""


def on_small_disk(folder: Path, script: str, *arguments: str, size: str = "1m") -> tuple[int, str]:
    """Run a script of Python with a disk of that size as its working folder; exit status, and all it printed.

    Where users may make no such disk, the test is skipped.
    """
    folder.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o size={size} none "$0" && cd "$0"'
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*alone, mount, folder], check=False, capture_output=True).returncode
    ):
        pytest.skip("users of this machine may make no small disk")
    done = subprocess.run(
        [*alone, f'{mount} && exec "$@"', folder, sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr
