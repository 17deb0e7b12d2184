"""Keys, tokens and signed addresses: read from the environment, checked, and never written down."""

import html
import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, StringConstraints

from vltaxon.errors import UserError

_RUN = 8  # characters of a secret in a row that are hidden wherever they stand, as where a text was cut
_SECRET = 4  # a shorter text is none, but what is given where a server of one's own asks for no key
_QUERY = re.compile(r"(?<=[^\s?'\"])\?[^\s'\"<>()]+")


def _a_name(value: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{1,63}", value) or sum(c.isdigit() for c in value) > 4:
        raise ValueError("give the NAME of an environment variable (OPENAI_API_KEY), never the key itself")
    return value


Variable = Annotated[str, AfterValidator(_a_name)]  # name of an environment variable that holds a secret
Header = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$")]  # name of an HTTP header


def read(variable: str, where: str) -> str:
    """Return the secret in an environment variable, without the white space around it.

    Args:
        variable: its name.
        where: what it is for, for errors.

    Raises:
        UserError: the variable is not set, or holds what can be no secret: none is quoted.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        raise UserError(f"{where}: its key belongs in the environment variable {variable}, which is not set")
    for place, character in enumerate(value, start=1):
        if not "!" <= character <= "~":
            what = "white space" if character.isspace() else f"a character U+{ord(character):04X}"
            raise UserError(
                f"{where}: the environment variable {variable} has {what} within the key (character {place} "
                f"of {len(value)}); a key has letters, digits and signs of ASCII only: copy it again"
            )
    return value


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return a text with `***` for every part of a secret: also escaped, or cut at either end.

    Args:
        text: that may quote secrets, as what a server answers.
        secrets: to be hidden.
    """
    covered = bytearray(len(text))
    for form in (form for secret in secrets if len(secret) >= _SECRET for form in _forms(secret)):
        run = min(_RUN, len(form))
        pieces = {form[at : at + run] for at in range(len(form) - run + 1)}
        for at in range(len(text) - run + 1):
            if text[at : at + run] in pieces:
                covered[at : at + run] = bytes([1]) * run
    parts = groupby(zip(text, covered, strict=True), key=lambda pair: pair[1])
    return "".join("***" if hidden else "".join(c for c, _ in pairs) for hidden, pairs in parts)


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as it is, and as texts of JSON, HTML, addresses and Python have it."""
    yield from {
        secret,
        json.dumps(secret)[1:-1],
        secret.replace("/", "\\/"),
        re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", secret),
        html.escape(secret),
        quote(secret, safe=""),
        repr(secret)[1:-1],
    }


def without_queries(text: str) -> str:
    """Return a text with `?***` for the queries of its addresses, which may be signed."""
    return _QUERY.sub("?***", text)
