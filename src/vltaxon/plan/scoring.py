"""The plan of the scores and of what shows them: tables, figures, the report page."""

import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TypedDict

import vltaxon
from vltaxon import layout, papers
from vltaxon.config.experiment import Experiment, System
from vltaxon.errors import UserError
from vltaxon.papers import cells
from vltaxon.plan.planned import Wildcards, planned
from vltaxon.plan.prediction import PredictionPlan
from vltaxon.plan.scopes import MAIN, Scope, Scopes
from vltaxon.plan.targets import Targets, tables
from vltaxon.plan.training import TrainingPlan
from vltaxon.tasks.scoring import (
    MainTableTask,
    PaperTableTask,
    PlotPaperTask,
    PlotTask,
    RepeatedSystem,
    RepeatsTableTask,
    ReportTask,
    ScoreTask,
    Setting,
    Sources,
    SweepTableTask,
    SweptSystem,
    TabulateTask,
    UsageTask,
)

_PACKAGE = Path(os.path.relpath(Path(vltaxon.__file__).parent))


class _Common(TypedDict):
    """What the tasks of all tables have."""

    scope: str
    metrics: tuple[Path, ...]
    csv: Path
    md: Path
    tex: Path


class ScoringPlan:
    """The tasks that score, tabulate, plot and report."""

    def __init__(
        self,
        experiment: Experiment,
        scopes: Scopes,
        training: TrainingPlan,
        prediction: PredictionPlan,
    ) -> None:
        """Plan the scores of an experiment.

        Args:
            experiment: the config.
            scopes: its scopes.
            training: knows where adapters, their curves and records lie.
            prediction: knows where predictions lie.
        """
        self.scopes, self.targets = scopes, Targets(scopes)
        self._training, self._prediction = training, prediction
        self._experiment, self._config = experiment, experiment.config
        self._metrics = tuple(sorted((_PACKAGE / "metrics/per_image").glob("*.sql")))
        self._views = tuple(sorted((_PACKAGE / "metrics/views").glob("*.sql")))

    # -- what is scored --

    def questions(self, scope: Scope) -> dict[tuple[str, str], Path]:
        """Return the tables of questions by (dataset, choices)."""
        return {key: layout.fill(layout.QUESTIONS, dataset=key[0], choices=key[1]) for key in scope.asked}

    def answers(self, scope: Scope) -> dict[tuple[str, str, str], tuple[Path, ...]]:
        """Return the tables of stage 2 by (system, dataset, choices)."""
        return {
            (system, dataset, choices): self._prediction.answer_shards(system, dataset, choices)
            for system in self._with(scope, "answer")
            for dataset, choices in scope.asked
        }

    def leaves(self, scope: Scope) -> dict[tuple[str, str], tuple[Path, ...]]:
        """Return the tables of stage 1 by (system that ran it, dataset); one may serve several systems."""
        owners = dict.fromkeys(self._prediction.leaf_systems[system] for system in self._with(scope, "leaf"))
        return {
            (owner, dataset): self._leaves(owner, dataset) for owner in owners for dataset in scope.datasets
        }

    def _leaves(self, system: str, dataset: str) -> tuple[Path, ...]:
        return self._prediction.leaf_shards(system, dataset)

    def _with(self, scope: Scope, stage: str) -> list[str]:
        """Return the systems whose protocol has a stage."""
        return [system for system in scope.systems if self._prediction.stage(system, stage) is not None]

    def sources(self, scope: Scope) -> Sources:
        """Return the files to score, sorted: another order of systems scores nothing anew."""
        learnt = self._config.learnt
        return Sources(
            questions=self.questions(scope),
            images={name: layout.fill(layout.IMAGES, dataset=name) for name in scope.datasets},
            taxa={name: layout.fill(layout.TAXA, dataset=name) for name in scope.datasets},
            answers=dict(sorted(self.answers(scope).items())),
            leaves=dict(sorted(self.leaves(scope).items())),
            leaf_systems={
                name: self._prediction.leaf_systems[name] for name in sorted(self._with(scope, "leaf"))
            },
            partition={name: layout.fill(layout.PARTS, dataset=name) for name in learnt},
            trained={name: layout.fill(layout.IMAGES, dataset=name) for name in learnt},
        )

    @planned
    def score(self, wildcards: Wildcards) -> ScoreTask:
        """Plan the scores of a scope; the wildcard `of` is empty or `.` and the scope's name."""
        scope = self.scopes[wildcards.of.removeprefix(".") or MAIN]
        return ScoreTask(
            scope=scope.name,
            sources=self.sources(scope),
            bootstrap=self._config.bootstrap,
            seed=self._config.seed,
            metrics=self._metrics,
            views=self._views,
            scores=self._scores(scope),
            database=layout.fill(layout.DATABASE, of=scope.ending),
        )

    @staticmethod
    def _scores(scope: Scope) -> Path:
        return layout.fill(layout.SCORES, of=scope.ending)

    # -- tables --

    @planned
    def tabulate(self, wildcards: Wildcards) -> TabulateTask:
        """Plan the table of a scope, by the task of its kind."""
        scope = self.scopes[wildcards.scope]
        kinds = {
            "main": self._main_table,
            "paper": self._paper_table,
            "sweep": self._sweep_table,
            "repeats": self._repeats_table,
        }
        csv, md, tex = tables(scope.name)
        common: _Common = {
            "scope": scope.name, "metrics": self._metrics, "csv": csv, "md": md, "tex": tex,
        }  # fmt: skip
        return kinds[scope.kind](scope, common)

    def _main_table(self, scope: Scope, common: _Common) -> MainTableTask:
        task = MainTableTask(labels=self.labels(scope.systems), scores=self._scores(scope), **common)
        compare = tuple(pair for pair in self._config.compare if set(pair) <= task.labels.keys())
        if not compare:
            return task
        how = {"compare": compare, "bootstrap": self._config.bootstrap, "seed": self._config.seed}
        return task.model_copy(update=how | {"database": layout.fill(layout.DATABASE, of=scope.ending)})

    def _paper_table(self, scope: Scope, common: _Common) -> PaperTableTask:
        paper, table = scope.name.split(".")
        return PaperTableTask(
            table=table,
            setting=self.setting(scope),
            paper=self._paper_files(paper),
            scores=self._scores(scope) if scope.systems else None,
            **common,
        )

    @staticmethod
    def _paper_files(paper: str) -> tuple[Path, ...]:
        return tuple(Path(os.path.relpath(path)) for path in papers.files(paper))

    def setting(self, scope: Scope) -> Setting:
        """Return what a paper's table is made of here: data sets, whether they are the paper's, systems."""
        paper = scope.name.partition(".")[0]
        filled, own = self.scopes.roles(paper), papers.papers()[paper].roles
        choices = self.scopes.choices
        return Setting(
            paper=paper,
            datasets=filled,
            comparable={role: name == own[role] and choices != "random" for role, name in filled.items()},
            choices=choices,
            systems={name: _described(self._config.systems[name]) for name in scope.systems},
        )

    def _sweep_table(self, scope: Scope, common: _Common) -> SweepTableTask:
        swept = {
            name: SweptSystem(
                label=self._label(sweep.system), variants=sweep.variants, rotations=sweep.rotations
            )
            for name, sweep in self._config.sweeps.items()
        }
        return SweepTableTask(sweeps=swept, scores=self._scores(scope), **common)

    def _repeats_table(self, scope: Scope, common: _Common) -> RepeatsTableTask:
        repeats = {name: self._repeated(name, scope) for name in self._config.repeats}
        runs = chain.from_iterable(one.answers.values() for one in repeats.values())
        files = sorted(set(chain.from_iterable(chain.from_iterable(runs))))
        return RepeatsTableTask(repeats=repeats, answers=tuple(files), **common)

    def _repeated(self, name: str, scope: Scope) -> RepeatedSystem:
        """Return the tables of the runs of a system, run after run."""
        runs = scope._replace(systems=tuple(self._config.repeated(name)))
        answers: dict[tuple[str, str], tuple[tuple[Path, ...], ...]] = {}
        tables_of = [
            ((dataset, choices), files) for (_, dataset, choices), files in self.answers(runs).items()
        ]
        for system in self._with(runs, "leaf"):
            tables_of += [((dataset, "leaf"), self._leaves(system, dataset)) for dataset in scope.datasets]
        for key, files in tables_of:
            answers[key] = (*answers.get(key, ()), files)
        return RepeatedSystem(label=self._label(self._config.repeats[name].system), answers=answers)

    def labels(self, systems: Iterable[str]) -> dict[str, str]:
        """Return what systems are called in tables and figures."""
        return {name: self._label(name) for name in systems}

    def _label(self, system: str) -> str:
        return self._prediction.systems[system].label or system

    # -- figures and the report --

    @planned
    def plot(self, wildcards: Wildcards) -> PlotTask:
        """Plan the figures of the main systems."""
        main, curves = self.scopes[MAIN], self._training.trained(layout.CURVE)
        names = ("level_accuracy", "hca_leaf", "training")
        return PlotTask(
            labels=self.labels(main.systems),
            ranks=self._ranks(),
            steps=tuple(curves),
            scores=self._scores(main),
            curves=tuple(curves.values()),
            png=tuple(layout.fill(f"{layout.FIGURE}.png", name=name) for name in names),
            **{name: layout.fill(f"{layout.FIGURE}.svg", name=name) for name in names},
        )

    @planned
    def plot_paper(self, wildcards: Wildcards) -> PlotPaperTask:
        """Plan a figure of a paper, of the scores of its table.

        Raises:
            UserError: the experiment has none of its systems.
        """
        paper, figure = wildcards.paper, wildcards.figure
        about = papers.papers()[paper].figures[figure]
        scope = self.scopes[f"{paper}.{about.table}"]
        if not scope.systems:
            wanted = ", ".join(dict.fromkeys(cell.system for cell in cells(paper, about.table)))
            raise UserError(f"{figure}: the config has none of its systems: {wanted}")
        drawn = {
            suffix: layout.fill(f"{layout.PAPER_FIGURE}.{suffix}", paper=paper, figure=figure)
            for suffix in ("svg", "png")
        }
        return PlotPaperTask(
            figure=figure,
            drawing=f"vltaxon.report.figures.{about.drawing}",
            setting=self.setting(scope),
            labels=self.labels(scope.systems),
            ranks=self._ranks(),
            metrics=self._metrics,
            paper=self._paper_files(paper),
            scores=self._scores(scope),
            **drawn,
        )

    def _ranks(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the levels of each data set."""
        return {name: self._experiment.datasets[name].ranks for name in self._config.datasets}

    @planned
    def report(self, wildcards: Wildcards) -> ReportTask:
        """Plan the report page."""
        main, records, about = (
            self.scopes[MAIN],
            self._training.trained(layout.RECORD),
            self._experiment.about,
        )
        names, learnt = ("level_accuracy", "hca_leaf", "training"), self._config.training
        models = {system.model for system in self._config.shown.values()}
        pages = sorted(path.stem for path in (_PACKAGE / "report/pages").glob("[a-z]*.py"))
        return ReportTask(
            pages=tuple(f"vltaxon.report.pages.{name}" for name in pages),
            about=about,
            systems=self._config.shown,
            datasets=self._config.datasets,
            choices=self._config.choices,
            encoder=self._config.encoder,
            # without settings: the records have whole steps
            training=None if learnt is None else learnt.model_copy(update={"settings": {}}),
            compare=self._config.compare,
            models={name: self._experiment.models[name] for name in sorted(models)},
            steps=tuple(records),
            bootstrap=self._config.bootstrap,
            seed=self._config.seed,
            benchmarks=layout.BENCHMARKS,
            scores=self._scores(main),
            database=layout.fill(layout.DATABASE, of=main.ending),
            images=layout.fill(layout.IMAGES, dataset=about.dataset),
            figures=tuple(layout.fill(f"{layout.FIGURE}.svg", name=name) for name in names),
            records=tuple(records.values()),
            metrics=self._metrics,
            site=tuple(sorted((_PACKAGE / "report/site").iterdir())),
            page=Path(layout.REPORT),
        )

    @planned
    def usage(self, wildcards: Wildcards) -> UsageTask:
        """Plan the table of what jobs took, for the terminal."""
        return UsageTask(benchmarks=layout.BENCHMARKS, log=Path(layout.log("usage", "md")))

    @property
    def main(self) -> list[Path]:
        """Return the scores, the database and the table of the main systems."""
        scope = self.scopes[MAIN]
        return [self._scores(scope), layout.fill(layout.DATABASE, of=scope.ending), *tables(MAIN)]


def _described(system: System) -> str:
    recipe = f", trained by {system.recipe}" if system.recipe else ""
    called = f"{system.label}: " if system.label else ""
    return f"{called}{system.model}{recipe}, asked by {system.protocol}"
