"""The record of a GPU, rehearsed on the CPU: a script that nobody could run before a device is there would
fail on it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDS_GPU = {"memory", "compile"}


def test_every_section_runs_on_the_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--tiny", "--minutes", "20", "--out", str(tmp_path)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    made = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    sections = made["sections"]
    assert {name for name, found in sections.items() if found.get("skipped") == "needs a GPU"} == NEEDS_GPU
    assert all(found.get("rows") for name, found in sections.items() if name not in NEEDS_GPU)
    assert "error" not in {key for found in sections.values() for key in found}
    for by in ("plain batch", "engine"):
        held = sections["inference"][f"answers of {by} against one by one"]
        assert held["compared"] == 2 and held["differ beyond twice the rounding"] == 0
    assert len({row["rows as the first way's"] for row in sections["decode"]["rows"]}) == 1, (
        "all ways write alike"
    )
    for way, shares in (("grpo", "TRL's way"), ("grpo shared", "yes")):
        assert [row["step"] for row in sections[way]["rows"]][:2] == ["first step", "second step"]
        assert sections[way]["groups share their prompt"] == shares
    gaps = {(row["in"], row["way"]): float(row["largest gap"]) for row in sections["agreement"]["rows"]}
    for way in ("shared", "TRL's"):
        assert gaps["float32", way] < 1e-4 < gaps["bfloat16", way]
    assert "**No GPU was had.**" in done.stdout
