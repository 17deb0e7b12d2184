"""What the journal holds, and what of it nothing can use any more."""

import json
import shutil
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from vltaxon.errors import UserError
from vltaxon.inference.journal import frames
from vltaxon.inference.journal.folder import NOTE, folder_of
from vltaxon.provenance import facts
from vltaxon.tasks.prediction import JournalTask


def tell(task: JournalTask) -> None:
    """Count the answers that are kept, on the terminal and in the log."""
    table = statistics(task.journal, task.predictions)
    task.log.write_text(table + "\n", encoding="utf-8")
    print(table)


@dataclass(frozen=True)
class FolderContent:
    """What a folder of the journal holds.

    Attributes:
        folder: of one identity.
        note: the identity, and what it is called.
        files: how many.
        answers: how many are distinct.
        bytes: of all files.
    """

    folder: Path
    note: Mapping[str, Any]
    files: int
    answers: int
    bytes: int

    @classmethod
    def of(cls, folder: Path) -> "FolderContent":
        """Count the whole frames of a folder."""
        files, keys = sorted(folder.glob("*.journal")), array("Q")
        for path in files:
            with path.open("rb") as file:
                frames.scan(file.fileno(), 0, lambda key, *_: keys.append(int.from_bytes(key, "little")))
        return cls(
            folder,
            _read_note(folder / NOTE),
            len(files),
            len(np.unique(keys)),
            sum(path.stat().st_size for path in files),
        )


def _read_note(note: Path) -> Mapping[str, Any]:
    """Return the identity of a folder; nothing where it is missing or damaged: answers need it not."""
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def kept(root: Path) -> list[FolderContent]:
    """Return what each folder of the journal holds."""
    return [FolderContent.of(folder) for folder in sorted(root.glob("*")) if folder.is_dir()]


def prune(
    root: Path, checkpoints: Collection[str], wanted: Iterable[Mapping[str, Any]]
) -> list[FolderContent]:
    """Delete answers of identities that are not wanted, unless they are being written; return the deleted.

    Those of other checkpoints, and of other engines than transformers, are spared: they may have been paid
    for.

    Args:
        root: folder of all identities.
        checkpoints: whose identities may be deleted.
        wanted: identities to keep.
    """
    spared, gone = {folder_of(root, identity) for identity in wanted}, []
    for there in kept(root):
        called = str(there.note.get("called"))
        of_ours = any(called == name or called.startswith(f"{name} + ") for name in checkpoints)
        if there.folder in spared or there.note.get("engine") != "transformers" or not of_ours:
            continue
        with ExitStack() as held:
            if all(
                held.enter_context(frames.unwritten(path)) is not None
                for path in there.folder.glob("*.journal")
            ):
                shutil.rmtree(there.folder)
                gone.append(there)
    return gone


def statistics(root: Path, predictions: Path) -> str:
    """Return a table for readers: answers and bytes of each identity, and predictions of its weights.

    Args:
        root: folder of all identities.
        predictions: folder of all tables of predictions.
    """
    import pyarrow.parquet as pq

    rows: Counter[str] = Counter()
    damaged = []
    for path in sorted(predictions.rglob("*.parquet")):
        try:
            rows[facts(path).get("weights", "")] += pq.read_metadata(path).num_rows
        except UserError as error:
            damaged.append(str(error))
    lines = [
        [
            one.note.get("called", "?"),
            f"{one.note.get('engine', '?')} {one.note.get('version', '?')}",
            one.folder.name,
            one.files,
            one.answers,
            rows[str(one.note.get("weights", "?"))],
            one.bytes,
        ]
        for one in kept(root)
    ]
    total = ["total", "", "", *(sum(line[i] for line in lines) for i in range(3, 7))]
    header = ["model and adapter", "engine", "folder", "files", "answers", "rows now predicted", "bytes"]
    table = str(tabulate([*lines, total], header, tablefmt="github", intfmt=","))
    return "\n".join([table, *damaged])
