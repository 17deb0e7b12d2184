"""Planning a large experiment takes work that grows with its jobs and no faster; counted, since seconds
depend on the machine.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.planning import build

COUNTED = """
import cProfile, pstats
from vltaxon.why import planned

profile = cProfile.Profile()
dag = profile.runcall(planned)
print(len(dag), sum(len(job.input) for job in dag.jobs), pstats.Stats(profile).total_calls)
"""


def counted(folder: Path, shards: int) -> tuple[int, int, int]:
    """Jobs, their input files, and calls of any function, of a plan of 8 systems on 2 data sets."""
    folder.mkdir()
    build(folder, systems=8, datasets=2, shards=shards)
    done = subprocess.run([sys.executable, "-c", COUNTED], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    jobs, inputs, calls = map(int, done.stdout.split())
    return jobs, inputs, calls


def test_a_plan_grows_with_its_jobs(tmp_path: Path) -> None:
    small, middle, large = (counted(tmp_path / str(shards), shards) for shards in (2, 6, 10))
    assert middle[0] - small[0] == large[0] - middle[0] == 4 * 2 * (8 + 3), (
        "a job for each shard; three stages 1 serve the systems"
    )
    assert middle[1] - small[1] == large[1] - middle[1], (
        "between two stages lie no edges from all shards to all shards"
    )
    first, second = middle[2] - small[2], large[2] - middle[2]
    assert second < 1.2 * first, "calls would double the increase of a step if they grew with the square"
