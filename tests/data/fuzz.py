"""How long a slow test of fuzzing goes on: VLTAXON_FUZZ_SECONDS, 60 where not set."""

import os
import time
from collections.abc import Iterator


def rounds(what: str) -> Iterator[None]:
    """Yield until the time is over, then print how many there were of what."""
    end, number = time.monotonic() + float(os.environ.get("VLTAXON_FUZZ_SECONDS", "60")), 0
    while time.monotonic() < end:
        yield
        number += 1
    print(f"{number} {what}")
