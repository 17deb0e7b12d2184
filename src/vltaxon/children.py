"""Processes that end with the one that started them, however that ends."""

import ctypes
import functools
import signal
import sys
from collections.abc import Callable

_PDEATHSIG = 1  # PR_SET_PDEATHSIG of Linux


def with_its_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What a child calls, first of all, to get a signal when its parent dies; None where the system cannot."""
    if not sys.platform.startswith("linux"):
        return None
    return functools.partial(ctypes.CDLL(None, use_errno=True).prctl, _PDEATHSIG, number)
