"""Local files that were verified and linked: whether they are still what they were then."""

import os
from pathlib import Path

from vltaxon.errors import UserError


def demand_unchanged(path: Path) -> None:
    """Refuse a local file that has changed since it was verified and linked; any other file is let pass.

    Raises:
        UserError: the file behind the link has another size or time than when its checksum was taken.
    """
    record = record_of(path)
    if path.is_symlink() and record.exists() and record.read_text() != stamp_of(path):
        raise UserError(
            f"{path}: {os.readlink(path)} has changed since its checksum was verified; delete the link "
            f"{path} and run again, so that it is verified anew"
        )


def record_of(target: Path) -> Path:
    """Return where the size and time of a linked file are kept, as they were when it was verified."""
    return target.with_name(f".{target.name}.verified")


def stamp_of(path: Path) -> str:
    """Return the size and time of a file, as `record_of` keeps them."""
    found = path.stat()
    return f"{found.st_size} bytes, {found.st_mtime_ns} ns\n"
