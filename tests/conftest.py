"""For all tests: how many threads they compute with, said before anything that computes is imported."""

import os

from vltaxon.logs import THREADS

# Models this small gain nothing from a second thread, which between two small sums waits busily. `.ci/run`
# tries two.
for name in THREADS:
    os.environ.setdefault(name, os.environ.get("OMP_NUM_THREADS", "1"))
