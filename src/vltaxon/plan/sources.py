"""Files that no rule makes (tables, archives, annotations, weights): refused where one is not there.

Where a job's results exist but what it reads does not, Snakemake leaves the job out of its plan in silence,
and with it every change of the config before it: old numbers would pass for those of this config.
"""

import ast
import io
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vltaxon.errors import UserError, listed, suggest
from vltaxon.tasks.base import READS, WRITES, Task
from vltaxon.tasks.data import UnpackTask
from vltaxon.tasks.questions import LoadTaxonomyTask

_BETWEEN = (UnpackTask, LoadTaxonomyTask)  # whose results are needed only where other jobs run
_TELLING = {"plan", "usage", "journal"}  # targets that read no data
_KEEPING = {"--unlock", "--lint", "--list", "-l", "--list-rules", "--cleanup-metadata", "--summary", "-S"}
_CODE = {"code", "version"}  # of what shapes a job: those of its function


class Record(NamedTuple):
    """What a result was made with: the files that were read, and the values that shape it."""

    reads: frozenset[str]
    shaping: dict[str, Any]


def check_sources(tasks: Iterable[Task], workflow: Any) -> None:
    """Check the sources of a workflow, unless it is a job's or only tells something.

    Args:
        tasks: see `demand_sources`.
        workflow: Snakemake's, with all its rules.

    Raises:
        UserError: a file is missing.
    """
    if not workflow.is_main_process or _only_tells():
        return

    def made(path: Path) -> bool:
        return any(maker.is_producer(str(path)) for maker in workflow.rules)

    for note in demand_sources(tasks, made, _memory(workflow)):
        print(f"note: {note}", file=sys.stderr)


def _only_tells() -> bool:
    """Whether the targets of the command line, which Snakemake tells a workflow too late, need no data."""
    from snakemake import cli

    if _KEEPING & set(sys.argv):
        return True
    if not _TELLING & set(sys.argv):
        return False
    with redirect_stderr(io.StringIO()):  # Snakemake prints which profile it reads
        return set(cli.parse_args(sys.argv[1:])[1].targets) <= _TELLING


def _memory(workflow: Any) -> Callable[[Path], Record | None]:
    """Return a function that tells what Snakemake recorded of a result."""
    from snakemake.io import IOFile
    from snakemake.persistence.db import DbPersistence
    from snakemake.persistence.file import FilePersistence
    from snakemake.settings.enums import PersistenceBackend

    @cache
    def memory() -> Any:
        settings = workflow.workflow_settings
        if settings.persistence_backend is PersistenceBackend.FILE:
            return FilePersistence(nolock=True)
        url = settings.persistence_backend_db_url
        return DbPersistence(nolock=True, **({"db_url": url} if url else {}))

    return lambda path: _read_record(memory().metadata(IOFile(str(path))))


def demand_sources(
    tasks: Iterable[Task], made: Callable[[Path], bool], recorded: Callable[[Path], Record | None]
) -> list[str]:
    """Check that the jobs that read what no rule makes can be run, or need not be.

    Such a job needs no run where its results are there, made of the same files with the same values.

    Args:
        tasks: jobs, each after those whose results it reads.
        made: whether a rule makes a file.
        recorded: what a result was made with, None where that is not known.

    Returns:
        What to tell of jobs whose results stay though their code has changed since, one sentence each.

    Raises:
        UserError: with every file that is missing.
    """
    problems: list[str] = []
    notes: list[str] = []
    gone: dict[Path, Path] = {}  # what cannot be made -> the source that it lacks
    for task in tasks:
        lacks = [
            gone.get(path, path)
            for path in task.paths(READS)
            if path in gone or not (path.exists() or made(path))
        ]
        results = task.paths(WRITES)
        if not lacks:
            continue
        records = [recorded(path) if path.exists() else None for path in results]
        if None in records and isinstance(task, _BETWEEN):
            gone |= dict.fromkeys(results, lacks[0])
        elif not all(record is not None and _same(task, record) for record in records):
            problems += [_missing(path, any(path.exists() for path in results)) for path in lacks]
        elif any(record is not None and _code(record.shaping) != _code(task.shaping()) for record in records):
            notes.append(
                f"{lacks[0]} is not there, so {results[0]} stays as an older version of the code made it"
            )
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return notes


def _same(task: Task, record: Record) -> bool:
    """Whether a result was made of the files and with the values of a task, whatever its code was."""
    now, then = (_values(shaping) for shaping in (task.shaping(), record.shaping))
    return now == then and set(map(str, task.paths(READS))) == record.reads


def _values(shaping: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shaping.items() if name not in _CODE}


def _code(shaping: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shaping.items() if name in _CODE}


def _missing(path: Path, old: bool) -> str:
    """Say that a file is missing, and what is there in its place.

    Args:
        path: the file.
        old: whether there are results, of other values or of another file.
    """
    folder = next(parent for parent in path.parents if parent.exists())
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    if folder != path.parent:
        there = f"there is no folder {path.parent}"
    else:
        near = suggest(path.name, names).partition(" Did you mean ")[2].rstrip("?")
        first = [near.strip('"')] if near else []
        there = f"{folder} has {listed(first + [name for name in names if name not in first])}"
    stale = "; the results that are there were made of another file or with other values" if old else ""
    return f"{path}: no such file ({there}){stale}. Put it there, or give its path in the config"


def _read_record(metadata: Any) -> Record | None:
    """Return what Snakemake recorded of a result, None where it has nothing of ours."""
    if metadata is None or metadata.input is None or metadata.params is None:
        return None
    values = [literal(str(text)) for text in metadata.params]
    shaping = [value for value in values if isinstance(value, dict)]
    return Record(frozenset(metadata.input), shaping[0]) if len(shaping) == 1 else None


def literal(text: str) -> object:
    """Return the value of a parameter from the text in which Snakemake keeps it, or the text itself."""
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value
