"""How rules get their tasks from the plan: by functions of the wildcards, which build each task once."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, overload

from vltaxon.tasks.base import Task

T = TypeVar("T", bound=Task)
P = TypeVar("P")


class Wildcards(Protocol):
    """Snakemake's wildcards: the parts of a path."""

    def __getattr__(self, name: str) -> str: ...


class Planned(Generic[T]):
    """The tasks of a rule: call it with wildcards for a task; its methods suit the rule's directives."""

    def __init__(self, build: Callable[[Wildcards], T]) -> None:
        self._build = build
        self._built: dict[tuple[tuple[str, str], ...], T] = {}

    def __call__(self, wildcards: Wildcards) -> T:
        """Return the task of a job (`params: task=...`).

        Snakemake does not compare objects, so a changed task alone runs nothing again.
        """
        parts: Any = wildcards
        key = tuple(parts.items() if hasattr(parts, "items") else vars(parts).items())
        if key not in self._built:
            self._built[key] = self._build(wildcards)
        return self._built[key]

    def reads(self, wildcards: Wildcards) -> dict[str, str | list[str]]:
        """Return the inputs of a job, by name (`input: unpack(...)`)."""
        return self(wildcards).reads()

    def shaping(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return the values that run a job again when they change (`params: shaping=...`)."""
        return self(wildcards).shaping()


class planned(Generic[P, T]):  # a decorator
    """Make a method that builds a rule's task by its wildcards into a `Planned` of its object."""

    def __init__(self, build: Callable[[P, Wildcards], T]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, part: None, owner: type) -> "planned[P, T]": ...
    @overload
    def __get__(self, part: P, owner: type) -> Planned[T]: ...
    def __get__(self, part: P | None, owner: type) -> "planned[P, T] | Planned[T]":
        if part is None:
            return self
        mine = part  # for the closure, which mypy would widen again
        made: Planned[T] = Planned(lambda wildcards: self._build(mine, wildcards))
        vars(part)[self._name] = made  # from now on the attribute is found there, without this method
        return made
