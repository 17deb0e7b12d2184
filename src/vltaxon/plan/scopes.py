"""Scopes: systems, data sets and choices that are scored together, and of which one table is made."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Literal, NamedTuple

from vltaxon.config.experiment import Experiment
from vltaxon.errors import UserError, suggest
from vltaxon.papers import cells, papers

Kind = Literal["main", "paper", "sweep", "repeats"]
MAIN = "main"


class Scope(NamedTuple):
    """Systems that are scored together, and the (dataset, choices) that they are asked.

    `kind` says how its table is made, `target` is the target of Snakemake that makes it.
    """

    name: str
    kind: Kind
    target: str
    systems: tuple[str, ...]
    asked: tuple[tuple[str, str], ...]

    @property
    def datasets(self) -> list[str]:
        """Return the data sets, once each."""
        return list(dict.fromkeys(dataset for dataset, _ in self.asked))

    @property
    def ending(self) -> str:
        """Return what its name adds to the names of its scores and its database."""
        return "" if self.name == MAIN else f".{self.name}"


class Scopes:
    """An experiment's scopes by name: `main`, `PAPER.TABLE`, `comparison.NAME`, `sweep` and `repeats`."""

    def __init__(self, experiment: Experiment) -> None:
        """Name the scopes; each is made, and checked, when it is asked for."""
        self._config = experiment.config
        self.asked = tuple(
            (dataset, choices)
            for dataset in self._config.datasets
            for choices in self._config.choices
            if choices != "published" or experiment.datasets[dataset].published is not None
        )
        self._made: dict[str, Callable[[], Scope]] = {MAIN: self._main}
        for paper, about in papers().items():
            self._made |= {f"{paper}.{table}": partial(self._table, paper, table) for table in about.tables}
        self._made |= {
            f"comparison.{name}": partial(self._comparison, name) for name in self._config.comparisons
        }
        self._made |= {"sweep": self._sweep, "repeats": self._repeats}

    def __getitem__(self, name: str) -> Scope:
        """Return a scope.

        Raises:
            UserError: there is none of that name, or the config lacks what it is made of.
        """
        if name not in self._made:
            raise UserError(f'"{name}" is not {suggest(name, self._made)}')
        return self._made[name]()

    def __iter__(self) -> Iterator[Scope]:
        """Yield the scopes for which the config has everything."""
        for name in self._made:
            with suppress(UserError):
                yield self[name]

    def _main(self) -> Scope:
        return Scope(MAIN, "main", "all", tuple(self._config.shown), self.asked)

    def _table(self, paper: str, table: str) -> Scope:
        """Return the systems of a table that the experiment has, and the questions they are asked for it."""
        wanted = cells(paper, table)
        systems = dict.fromkeys(cell.system for cell in wanted if cell.system in self._config.systems)
        filled = self.roles(paper, *(cell.dataset for cell in wanted))
        asked = tuple((dataset, self.choices) for dataset in dict.fromkeys(filled.values()))
        target = "paper" if papers()[paper].aliases else paper
        return Scope(f"{paper}.{table}", "paper", target, tuple(systems), asked)

    @property
    def choices(self) -> str:
        """Return the choices that papers' tables are made of."""
        return self._config.tables.choices if self._config.tables is not None else "similar"

    def roles(self, paper: str, *roles: str) -> dict[str, str]:
        """Return the data sets of the experiment in some roles of a paper.

        Args:
            paper: name of the paper.
            *roles: names of the roles; without any, all that the experiment fills.

        Raises:
            UserError: the config does not say which data set stands for one of them.
        """
        filled = {} if self._config.tables is None else self._config.tables.datasets
        roles = tuple(dict.fromkeys(roles)) or tuple(role for role in papers()[paper].roles if role in filled)
        if lacking := [role for role in roles if role not in filled]:
            example = ", ".join(f"{role}: NAME" for role in papers()[paper].roles)
            raise UserError(
                f"The tables and figures of {papers()[paper].title} need `tables` in the config: which data"
                " sets stand for those"
                f" of the paper, as {{{example}}}; it has none for {', '.join(lacking)}"
            )
        return {role: filled[role] for role in roles}

    def _comparison(self, name: str) -> Scope:
        return Scope(f"comparison.{name}", "main", "comparisons", self._config.comparisons[name], self.asked)

    def _sweep(self) -> Scope:
        """Return the members of all sweeps, asked all questions."""
        if not self._config.sweeps:
            raise UserError("The target sweep needs `sweeps` in the config: NAME: {system: SYSTEM}")
        systems = tuple(chain.from_iterable(map(self._config.swept, self._config.sweeps)))
        return Scope("sweep", "sweep", "sweep", systems, self.asked)

    def _repeats(self) -> Scope:
        """Return the runs of all repeated systems, asked all questions."""
        if not self._config.repeats:
            raise UserError(
                "The target repeats needs `repeats` in the config: NAME: {system: SYSTEM, times: 3}"
            )
        systems = tuple(chain.from_iterable(map(self._config.repeated, self._config.repeats)))
        return Scope("repeats", "repeats", "repeats", systems, self.asked)

    def comparisons(self) -> list[str]:
        """Return the names of the scopes of all comparisons.

        Raises:
            UserError: the config has none.
        """
        if not self._config.comparisons:
            raise UserError("The target comparisons needs `comparisons` in the config: NAME: [SYSTEM, ...]")
        return [f"comparison.{name}" for name in self._config.comparisons]
