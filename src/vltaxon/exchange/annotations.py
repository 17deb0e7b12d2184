"""Read the benchmark's annotation files: JSON lines, each checked before anything is made of it."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vltaxon.data.taxa import is_name
from vltaxon.errors import UserError
from vltaxon.parsing import LETTERS
from vltaxon.taxonomy import normalise

_LEVEL = re.compile(r"(?:choices_)?level\d+")


@dataclass(frozen=True)
class Record:
    """A line of an annotation file.

    Attributes:
        line: 1-based.
        image: the path as written.
        asked: options and the index of the right one, by level.
        rest: the keys that these do not hold: label, split, null levels, and any that the format does not
            know.
    """

    line: int
    image: str
    asked: Mapping[int, tuple[list[str], int]]
    rest: dict[str, Any]

    def taxon(self, level: int) -> str:
        """The right option of a level that is asked."""
        options, right = self.asked[level]
        return options[right]


def git_blob(data: bytes) -> str:
    """The digest by which git knows a file: `git hash-object FILE`."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def read_annotations(path: Path, blob: str | None = None) -> list[Record]:
    """Read an annotation file of the benchmark.

    Args:
        path: JSON lines in UTF-8.
        blob: git blob digest that the file must have.

    Raises:
        UserError: no such file, another digest, no record at all, or a line that is no sound record; its
            number is given.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; is the path of the annotations right?") from error
    if blob is not None and (found := git_blob(data)) != blob:
        raise UserError(
            f"{path}: its git blob digest is {found}, but the data set's file expects {blob}; "
            "get the file again, as it was published"
        )
    lines = enumerate(data.split(b"\n"), start=1)
    records = [_record(raw, number, f"{path}, line {number}") for number, raw in lines if raw.strip()]
    if not records:
        raise UserError(f"{path}: is empty; it must hold a JSON record a line")
    return records


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f'key "{Counter(key for key, _ in pairs).most_common(1)[0][0]}" stands twice')
    return found


def _record(raw: bytes, number: int, where: str) -> Record:
    try:
        rest = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not readable as JSON in UTF-8: {error}") from error
    if not isinstance(rest, dict):
        raise UserError(f"{where}: is no JSON object")
    for key in ("image", "label", "level1"):
        if key not in rest:
            raise UserError(
                f"{where}: has no {key}; a record has image, label, and level1, choices_level1, level2, ..."
            )
    for key in ("image", "label"):
        if not is_name(rest[key]):
            raise UserError(f"{where}: {key} is no text")
    asked: dict[int, tuple[list[str], int]] = {}
    level = 1
    while (key := f"level{level}") in rest:
        name: object = rest[key]
        options: Any = rest.get(f"choices_{key}")
        if name is not None:
            right = _right(name, options, f"{where}: {key}")
            asked[level] = options, right
            del rest[f"choices_{key}"]
            if options[right] == name:  # else spelt otherwise, which is to be given back
                del rest[key]
        elif options:
            raise UserError(f"{where}: {key} is null, but choices_{key} has options")
        level += 1
    known = {f"{prefix}level{number}" for number in range(1, level) for prefix in ("", "choices_")}
    if odd := [key for key in rest if _LEVEL.fullmatch(key) and key not in known]:
        raise UserError(
            f"{where}: has {odd[0]} but no level{level}; levels are counted without gaps, null where there "
            "is none"
        )
    return Record(number, rest.pop("image"), asked, rest)


def _right(name: object, options: Any, where: str) -> int:
    """Check the options of a level, and find the right one."""
    if not is_name(name):
        raise UserError(f"{where}: is neither text nor null")
    if not isinstance(options, list) or not options or not all(map(is_name, options)):
        raise UserError(f"{where}: its choices are no list of names")
    if len(options) > len(LETTERS):
        raise UserError(f"{where}: has {len(options)} choices, but there are {len(LETTERS)} letters")
    keys = [normalise(option) for option in options]
    if len(set(keys)) < len(keys):
        raise UserError(f'{where}: choice "{Counter(keys).most_common(1)[0][0]}" stands twice')
    if normalise(name) not in keys:
        raise UserError(f'{where}: "{name}" is not among its choices {", ".join(options)}')
    return keys.index(normalise(name))
