"""What all tasks have in common: a frozen record that the plan builds and that a job's function takes.

The mark of a field says what it is: READS and WRITES are files, which Snakemake watches itself; HOW says how
a job runs. Fields without a mark shape the result, and a change of them runs the job again.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from vltaxon.code_versions import code_version
from vltaxon.config.base import HOW, Closed, Mark
from vltaxon.versions import VERSIONS

READS, WRITES = Mark("READS"), Mark("WRITES")

Read = Annotated[Path, READS]
ReadIfAny = Annotated[Path | None, READS]
ReadMany = Annotated[tuple[Path, ...], READS]
Write = Annotated[Path, WRITES]
WriteMany = Annotated[tuple[Path, ...], WRITES]


class Task(Closed):
    """What one job reads, writes and needs.

    `module` names the module of its function, whose code, or number in `versions.py` where it has one, shapes
    the result too. It is None where the job makes the same file whatever its code.
    """

    module: ClassVar[str | None]

    def shaping(self) -> dict[str, Any]:
        """Return the values (not files) that run the job again when they change, with its code version."""
        return self.version() | super().shaping()

    @classmethod
    def version(cls) -> dict[str, str | int]:
        """Return the number of the module in `versions.py`, or the hash of its code where it has none."""
        if cls.module is None:
            return {}
        number = VERSIONS.get(cls.module)
        return {"code": code_version(cls.module)} if number is None else {"version": number}

    def reads(self) -> dict[str, str | list[str]]:
        """Return the files that it reads, as the named inputs of a rule."""
        files: dict[str, str | list[str]] = {}
        for name, field in type(self).model_fields.items():
            if READS.on(field):
                value = getattr(self, name)
                some = value if isinstance(value, tuple) else () if value is None else (value,)
                files[name] = list(map(str, some)) if _several(field.annotation) else str(value)
        return files

    def paths(self, mark: Mark) -> list[Path]:
        """Return all files that it reads, or all that it writes.

        Args:
            mark: READS or WRITES.
        """
        found: list[Path] = []
        for name, field in type(self).model_fields.items():
            if mark.on(field) and (value := getattr(self, name)) is not None:
                found += value if isinstance(value, tuple) else (value,)
        return found

    @classmethod
    def of(cls, snakemake: Any) -> Self:
        """Return the task of a running job.

        Files, devices and threads are as Snakemake gives them, everything else is as planned.

        Args:
            snakemake: the object of a script, whose params have the planned `task`.

        Raises:
            TypeError: the rule plans another kind of task.
        """
        planned: Self = snakemake.params.task
        if not isinstance(planned, cls):
            raise TypeError(f"the rule plans a {type(planned).__name__}, its script wants a {cls.__name__}")
        cls = type(planned)
        how = dict(snakemake.resources.items()) | {"threads": snakemake.threads}
        how["log"] = next(iter(snakemake.log), None)
        values = {name: getattr(planned, name) for name in cls.model_fields}
        for mark, actual in ((HOW, how), (READS, snakemake.input), (WRITES, snakemake.output)):
            for name, field in cls.model_fields.items():
                if mark.on(field) and name in actual.keys():  # noqa: SIM118  # Snakemake's lists of names
                    values[name] = _as_declared(actual[name], field.annotation)
        return cls(**values)


def _several(kind: object) -> bool:
    """Return whether an input is a list of files: of any number, or of at most one."""
    return kind is not Path


def _as_declared(value: Any, kind: object) -> object:
    """Return Snakemake's files as the field declares them: one path, a tuple, or one or None."""
    if kind == Path | None:
        return next(map(Path, [value] if isinstance(value, str) else value or ()), None)
    if kind == tuple[Path, ...]:
        return tuple(map(Path, [value] if isinstance(value, str) else value))
    return Path(value) if kind is Path else value
