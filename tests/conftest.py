"""For all tests: how many threads they compute with, said before anything that computes is imported."""

import os

import pytest

from vltaxon.logs import THREADS

# Models this small gain nothing from a second thread, which between two small sums waits busily. `.ci/run`
# tries two.
for name in THREADS:
    os.environ.setdefault(name, os.environ.get("OMP_NUM_THREADS", "1"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tell the workers that `make test` starts what they are to take whole.

    That is a file, for its fixtures; and all tests of the one small run of the workflow, which take longest
    and so come first.
    """
    ours = {item: "finished" in getattr(item, "fixturenames", ()) for item in items}
    for item, finished in ours.items():
        item.add_marker(pytest.mark.xdist_group("finished" if finished else item.path.name))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not ours[item])
