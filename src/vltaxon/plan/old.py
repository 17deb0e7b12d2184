"""What the rules ask of an experiment: which files a job needs, which values, and what the run ends in.

Light: read while the Snakefile is parsed. Values go to `params`, so a change in them reruns a job; what must not (batch sizes,
descriptions, licences) is left out of them here.
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple

from vltaxon.config import (
    Config,
    Dataset,
    Experiment,
    Stage,
    System,
    Tables,
)
from vltaxon.errors import UserError
from vltaxon.plan.data import DataPlan
from vltaxon.plan.models import Models
from vltaxon.plan.planned import Wildcards
from vltaxon.plan.prediction import PredictionPlan
from vltaxon.plan.questions import QuestionsPlan
from vltaxon.plan.training import TrainingPlan
from vltaxon.report.cells import FIGURES, ROLES, of_table

Values = dict[str, Any]
_PREDICTIONS = "results/predictions"
_MEMORY = 2  # GB of a job without a model of ours


class Scope(NamedTuple):
    """Systems that are scored together, and the (dataset, choices) that they are asked."""

    systems: tuple[str, ...]
    asked: tuple[tuple[str, str], ...]

    @property
    def datasets(self) -> list[str]:
        """The data sets, once each."""
        return list(dict.fromkeys(dataset for dataset, _ in self.asked))


class Plan:
    """The experiment as paths and values. Methods that take wildcards are input or params functions of a rule."""

    def __init__(self, experiment: Experiment) -> None:
        self.data = DataPlan(experiment)
        self.models = Models(experiment)
        self.training = TrainingPlan(experiment, self.models)
        self.given = experiment
        self.experiment = experiment.model_copy(
            update={"datasets": {n: d.here() for n, d in experiment.datasets.items()}}
        )
        self.config: Config = experiment.config
        self.systems: dict[str, System] = self.config.asked
        self.prediction = PredictionPlan(self.experiment, self.models)
        self.leaf_systems = self.prediction.leaf_systems
        self.questions = QuestionsPlan(
            experiment,
            self.data,
            self.models,
            lambda wildcards: self.prediction.answer_shards(wildcards.system, wildcards.dataset, wildcards.choices),
        )

    # -- data --------------------------------------------------------------------------------------------------------------

    def dataset(self, name: str) -> Dataset:
        """A data set of the config."""
        return self.experiment.datasets[name]

    # -- models ------------------------------------------------------------------------------------------------------------

    def model(self, name: str) -> Any:
        """A model of the config."""
        return self.experiment.models[name]

    def model_values(self, name: str) -> Values:
        """What of a model shapes its output."""
        return dict(self.model(name).shaping())

    def base(self, name: str) -> str:
        return self.models.base(name)

    def model_files(self, name: str) -> list[str]:
        return list(map(str, self.models.files(name)))

    # -- training ----------------------------------------------------------------------------------------------------------

    def adapter(self, model: str, recipe: str, step: str) -> str:
        return str(self.training.adapter(model, recipe, step))

    def trained(self, file: str) -> dict[str, str]:
        return {name: str(path) for name, path in self.training.trained(file).items()}

    # -- prediction: what others still ask here ----------------------------------------------------------------------------

    def prompt_values(self, name: str) -> Values:
        return dict(self.prediction.prompt(name).shaping())

    def wording(self, dataset: str, variant: int | None = None) -> str:
        return self.prediction.wording(dataset, variant)

    def word(self, dataset: str, recipe: str | None, own: str | None = None) -> str:
        return self.prediction.word(dataset, recipe, own)

    def stage(self, system: str, name: str) -> Stage | None:
        return self.prediction.stage(system, name)

    def leaf_shards(self, system: str, dataset: str) -> list[str]:
        return list(map(str, self.prediction.leaf_shards(system, dataset)))

    def gpus(self, model: str) -> int:
        return self.models.gpus(model)

    def train_gpus(self, model: str) -> int:
        return self.models.train_gpus(model)

    def memory(self, model: str) -> int:
        return self.models.memory(model)

    def answer_shards(self, wildcards: Wildcards) -> list[str]:
        return self._answers(wildcards.system, wildcards.dataset, wildcards.choices)

    def _answers(self, system: str, dataset: str, choices: str) -> list[str]:
        return list(map(str, self.prediction.answer_shards(system, dataset, choices)))

    # -- results -----------------------------------------------------------------------------------------------------------

    def asked(self) -> list[tuple[str, str]]:
        return self.questions.asked()

    @property
    def main(self) -> Scope:
        """What the main table, figures and report are made of."""
        return Scope(tuple(self.config.shown), tuple(self.asked()))

    def question_tables(self, scope: Scope | None = None) -> dict[tuple[str, str], str]:
        """Tables of questions by (dataset, choices)."""
        asked = (scope or self.main).asked
        return {
            (dataset, choices): f"results/questions/{dataset}/{choices}.parquet" for dataset, choices in asked
        }

    def _with(self, scope: Scope, stage: str) -> list[str]:
        """Systems whose protocol has a stage."""
        return [system for system in scope.systems if self.stage(system, stage) is not None]

    def answers(self, scope: Scope | None = None) -> dict[tuple[str, str, str], list[str]]:
        """Stage 2 tables by (system, dataset, choices)."""
        scope = scope or self.main
        return {
            (system, dataset, choices): self._answers(system, dataset, choices)
            for system in self._with(scope, "answer")
            for dataset, choices in scope.asked
        }

    def leaves(self, scope: Scope | None = None) -> dict[tuple[str, str], list[str]]:
        """Stage 1 tables by (system that ran it, dataset); a table may serve several systems."""
        scope = scope or self.main
        owners = dict.fromkeys(self.leaf_systems[system] for system in self._with(scope, "leaf"))
        return {
            (owner, dataset): self.leaf_shards(owner, dataset)
            for owner in owners
            for dataset in scope.datasets
        }

    def score_inputs(self, scope: Scope | None = None) -> dict[str, Any]:
        """The files that are scored."""
        scope = scope or self.main
        return {
            "answers": list(chain.from_iterable(self.answers(scope).values())),
            "leaves": sorted(set(chain.from_iterable(self.leaves(scope).values()))),
            "images": [f"results/data/{dataset}/images.parquet" for dataset in scope.datasets],
            "taxa": [f"results/data/{dataset}/taxa.parquet" for dataset in scope.datasets],
            "questions": list(self.question_tables(scope).values()),
            "parts": f"results/splits/{self.config.training.dataset}.parquet",
        }

    def score_values(self, scope: Scope | None = None) -> Values:
        """Which file belongs to which row of the scores: keys are joined by `/`, as they are in the paths."""
        scope, training = scope or self.main, self.config.training.dataset
        return {
            "questions": {"/".join(key): path for key, path in self.question_tables(scope).items()},
            "images": {d: f"results/data/{d}/images.parquet" for d in scope.datasets},
            "taxa": {d: f"results/data/{d}/taxa.parquet" for d in scope.datasets},
            # sorted, so that the order of the systems, which is one of the tables, scores nothing anew
            "answers": {"/".join(key): paths for key, paths in sorted(self.answers(scope).items())},
            "leaves": {"/".join(key): paths for key, paths in sorted(self.leaves(scope).items())},
            "leaf_systems": {s: self.leaf_systems[s] for s in sorted(self._with(scope, "leaf"))},
            "partition": f"results/splits/{training}.parquet",
            "training": training,
        }

    def report_values(self) -> Values:
        """What the report page is about, and what was run."""
        given, about = self.config, self.config.report
        return about.model_dump(mode="json", exclude={"dataset", "system"}) | {
            "main": about.dataset,
            "best": about.system,
            "bootstrap": given.bootstrap,
            "seed": given.seed,
            "settings": {
                "seed": given.seed,
                "data sets": ", ".join(given.datasets),
                "choices": ", ".join(given.choices),
                "distractors mined by": given.encoder,
                "trained on": given.training.model_dump(
                    mode="json", exclude={"settings"}
                ),  # the records have whole steps
                "resamples of an interval": given.bootstrap,
                **{
                    f"model {name}": self.model_values(name)
                    for name in sorted({s.model for s in given.shown.values()})
                },
            },
        }

    def ranks(self) -> dict[str, list[str]]:
        """Names of the levels of each data set."""
        return {name: list(self.dataset(name).ranks) for name in self.config.datasets}

    def labels(self, systems: Iterable[str] | None = None) -> Mapping[str, str]:
        """Names of systems in tables and figures; of those of the main table where not said."""
        return {
            name: self.systems[name].label or name
            for name in (self.config.shown if systems is None else systems)
        }

    # -- the paper's tables and figures, sweeps and repeats ----------------------------------------------------------------

    def _tables(self) -> Tables:
        if self.config.tables is None:
            raise UserError(
                "The paper's tables and figures need `tables` in the config: which data sets stand for those of the paper,"
                " as {animal: NAME, plant: NAME, bird: NAME}"
            )
        return self.config.tables

    def table_scope(self, table: str) -> Scope:
        """The systems of a table of the paper that this experiment has, and the questions they are asked for it.

        Raises:
            UserError: the config does not say which data sets stand for the paper's.
        """
        given, wanted = self._tables(), of_table(table)
        systems = dict.fromkeys(cell.system for cell in wanted if cell.system in self.config.systems)
        datasets = dict.fromkeys(getattr(given, cell.dataset) for cell in wanted)
        return Scope(tuple(systems), tuple((dataset, given.choices) for dataset in datasets))

    def table_scores(self, table: str) -> list[str]:
        """Scores of a table's systems, as a list of one, or none where the experiment has none of the systems."""
        return [f"results/metrics/paper/{table}.parquet"] if self.table_scope(table).systems else []

    def figure_scores(self, figure: str) -> str:
        """Scores of the table that a figure of the paper is made of.

        Raises:
            UserError: the experiment has none of its systems.
        """
        table = FIGURES[figure]
        if not self.table_scope(table).systems:
            wanted = ", ".join(dict.fromkeys(cell.system for cell in of_table(table)))
            raise UserError(f"{figure}: the config has none of its systems: {wanted}")
        return self.table_scores(table)[0]

    def table_values(self, table: str) -> Values:
        """Data sets by role, whether they are the paper's, and what the systems of a table are."""
        given = self._tables()
        return {
            "datasets": {role: getattr(given, role) for role in ROLES},
            "comparable": {
                role: getattr(given, role) == name and given.choices != "random"
                for role, name in ROLES.items()
            },
            "choices": given.choices,
            "systems": {
                name: self._described(self.config.systems[name]) for name in self.table_scope(table).systems
            },
        }

    @staticmethod
    def _described(system: System) -> str:
        recipe = f", trained by {system.recipe}" if system.recipe else ""
        called = f"{system.label}: " if system.label else ""
        return f"{called}{system.model}{recipe}, asked by {system.protocol}"

    def paper_files(self, *names: str) -> list[str]:
        """The tables and figures of the paper, as the workflow makes them."""
        self._tables()
        return [
            f"results/figures/{name}.{suffix}" if name in FIGURES else f"results/tables/{name}.{suffix}"
            for name in names
            for suffix in (("svg", "png") if name in FIGURES else ("csv", "md", "tex"))
        ]

    def comparison_scope(self, name: str) -> Scope:
        """The systems of a comparison, asked all questions."""
        return Scope(self.config.comparisons[name], tuple(self.asked()))

    def comparison_files(self) -> list[str]:
        """The tables of all comparisons.

        Raises:
            UserError: the config has no comparison.
        """
        if not self.config.comparisons:
            raise UserError("The target comparisons needs `comparisons` in the config: NAME: [SYSTEM, ...]")
        return [f"results/tables/comparison/{name}.md" for name in self.config.comparisons]

    def sweep_scope(self) -> Scope:
        """The members of all sweeps, asked all questions.

        Raises:
            UserError: the config has no sweep.
        """
        if not self.config.sweeps:
            raise UserError("The target sweep needs `sweeps` in the config: NAME: {system: SYSTEM}")
        return Scope(
            tuple(chain.from_iterable(map(self.config.swept, self.config.sweeps))), tuple(self.asked())
        )

    def sweep_values(self) -> Values:
        """What each sweep is: its system, and its members by wording and rotation."""
        return {
            name: {
                "label": self.config.systems[sweep.system].label or sweep.system,
                "variants": list(sweep.variants),
                "rotations": list(sweep.rotations),
            }
            for name, sweep in self.config.sweeps.items()
        }

    def repeat_files(self) -> list[str]:
        """What the runs of all repeated systems answered.

        Raises:
            UserError: the config repeats no system.
        """
        if not self.config.repeats:
            raise UserError(
                "The target repeats needs `repeats` in the config: NAME: {system: SYSTEM, times: 3}"
            )
        runs = chain.from_iterable(values["answers"].values() for values in self.repeat_values().values())
        return sorted(set(chain.from_iterable(chain.from_iterable(runs))))

    def repeat_values(self) -> dict[str, Values]:
        """What is repeated: the system, and the tables of its runs by data set and choices, `leaf` for stage 1."""
        values: dict[str, Values] = {}
        for name, repeats in self.config.repeats.items():
            answers: dict[str, list[list[str]]] = {}
            scope = Scope(tuple(self.config.repeated(name)), tuple(self.asked()))
            for (_, dataset, choices), files in self.answers(scope).items():
                answers.setdefault(f"{dataset}/{choices}", []).append(files)
            for system in self._with(scope, "leaf"):
                for dataset in scope.datasets:
                    answers.setdefault(f"{dataset}/leaf", []).append(self.leaf_shards(system, dataset))
            label = self.config.systems[repeats.system].label or repeats.system
            values[name] = {"label": label, "answers": answers}
        return values
