"""Versions of the expensive steps, so that an edit which cannot change results does not repeat days of work.

A rule that needs a GPU reruns when its number here rises, not when its code changes. A test compares the code
of each module with the hash recorded in tests/data/versions.json and asks for a decision: raise the number,
or record the new hash.
"""

VERSIONS = {
    "vltaxon.encoders.embedding": 1,
    "vltaxon.train.step": 4,
    "vltaxon.inference.run": 2,
}
