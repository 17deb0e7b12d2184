"""Leases with pretended devices and real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vltaxon import gpu
from vltaxon.errors import UserError

HOLD = """
import os, sys, time
from vltaxon.gpu import lease
with lease(int(sys.argv[1])):
    print(os.environ.get("CUDA_VISIBLE_DEVICES", "none"), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLTAXON_DEVICES", "0,1,2")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(gpu.tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def start(count: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", HOLD, str(count)], stdout=subprocess.PIPE, text=True)


def held(process: subprocess.Popen[str]) -> set[str]:
    assert process.stdout is not None
    return set(process.stdout.readline().strip().split(","))


@pytest.mark.usefixtures("pretended")
def test_no_device_is_leased_twice_and_a_killed_job_frees_its_own() -> None:
    jobs = [start(1), start(2)]
    try:
        first, second = map(held, jobs)
        assert first | second == {"0", "1", "2"} and not first & second
        jobs[1].send_signal(signal.SIGKILL)
        jobs[1].wait()
        started = time.monotonic()
        with gpu.lease(2) as mine:
            assert set(mine) == second and os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(mine)
        assert time.monotonic() - started < 30
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    finally:
        for job in jobs:
            job.kill()
            job.wait()


@pytest.mark.usefixtures("pretended")
def test_a_value_already_set_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with gpu.lease(1) as mine:
        assert mine == [] and os.environ["CUDA_VISIBLE_DEVICES"] == "7"


@pytest.mark.usefixtures("pretended")
def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match="wants 4 devices, this machine has 3"), gpu.lease(4):
        pass


def test_a_machine_without_devices_uses_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLTAXON_DEVICES", "")
    with gpu.lease(1) as mine:
        assert mine == []
