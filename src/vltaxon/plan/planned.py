"""How a rule asks the plan for its task: as functions of its wildcards, which build each task once."""

import inspect
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, overload

from vltaxon.tasks.base import Task

T = TypeVar("T", bound=Task)
P = TypeVar("P")
F = TypeVar("F", bound=Callable[..., Any])


class Wildcards(Protocol):
    """Snakemake's wildcards: the parts of a path."""

    def __getattr__(self, name: str) -> str: ...


class Named:
    """Wildcards of our own: the parts of a path, for a plan that is asked outside of rules."""

    def __init__(self, **parts: str) -> None:
        vars(self).update(parts)

    def __getattr__(self, name: str) -> str:
        raise AttributeError(name)


def _signed(function: F) -> F:
    """Have a method know its signature, which Snakemake asks of it at every job."""
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # as PEP 362 has it
    return function


class Planned(Generic[T]):
    """The tasks of a rule, by its wildcards.

    Called, it returns the task itself; its methods return what the directives of the rule take.
    """

    __signature__ = inspect.Signature([inspect.Parameter("wildcards", inspect.Parameter.POSITIONAL_ONLY)])

    def __init__(self, build: Callable[[Wildcards], T]) -> None:
        self._build = build
        self._built: dict[tuple[tuple[str, str], ...], T] = {}
        self._shaping: dict[int, dict[str, Any]] = {}  # by the id of a task, which is kept in `_built`

    def __call__(self, wildcards: Wildcards) -> T:
        """Return the task of a job, for `params: task=...`: Snakemake compares no objects."""
        parts: Any = wildcards
        key = tuple(parts.items() if hasattr(parts, "items") else vars(parts).items())
        if key not in self._built:
            self._built[key] = self._build(wildcards)
        return self._built[key]

    @_signed
    def reads(self, wildcards: Wildcards) -> dict[str, str | list[str]]:
        """Return its inputs, by name (`input: unpack(...)`)."""
        return self(wildcards).reads()

    @_signed
    def shaping(self, wildcards: Wildcards) -> dict[str, Any]:
        """Return what runs it again when it changes (`params: shaping=...`)."""
        task = self(wildcards)
        if id(task) not in self._shaping:
            self._shaping[id(task)] = task.shaping()
        return self._shaping[id(task)]


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
        vars(part)[self._name] = made  # found there from now on, instead of here
        return made
