"""Let a child process learn that the process which started it has died."""

import ctypes
import functools
import signal
import sys
from collections.abc import Callable

_PDEATHSIG = 1  # PR_SET_PDEATHSIG of Linux


def signal_when_parent_dies(number: signal.Signals) -> Callable[[], None] | None:
    """Make the function that a child calls first of all, so that the kernel signals it when its parent dies.

    Args:
        number: the signal to get.

    Returns:
        A function without arguments (fit for `preexec_fn`), or None where the system is not Linux.
    """
    if not sys.platform.startswith("linux"):
        return None
    return functools.partial(ctypes.CDLL(None, use_errno=True).prctl, _PDEATHSIG, number)
