"""The one error that a user can mend, printed without a traceback.

It says what is wrong and where, what is allowed, and what to do next.
"""

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Bad input (config, archive, image, model). The message is the whole story; no traceback is shown."""


def suggest(given: str, allowed: Iterable[str]) -> str:
    """Return `one of a, b, c. Did you mean "b"?` for an unknown name, with the nearest allowed name last.

    Args:
        given: the unknown name.
        allowed: the names that there are.
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=1)
    return f"one of {', '.join(names) or 'none'}." + (f' Did you mean "{near[0]}"?' if near else "")


def listed(names: Sequence[str]) -> str:
    """Return three names of many: `a, b, c and 5 more`, or `none`."""
    shown, rest = ", ".join(names[:3]), len(names) - 3
    return f"{shown} and {rest} more" if rest > 0 else shown or "none"


def flat(text: object) -> str:
    """Return a text, or the words of an error, on one line."""
    return " ".join(str(text).split())
