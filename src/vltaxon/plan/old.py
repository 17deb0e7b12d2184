"""What the rules ask of an experiment: which files a job needs, which values, and what the run ends in.

Light: read while the Snakefile is parsed. Values go to `params`, so a change in them reruns a job; what must not (batch sizes,
descriptions, licences) is left out of them here.
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from vltaxon import shards
from vltaxon.config import (
    Clip,
    Config,
    Dataset,
    Endpoint,
    Experiment,
    Published,
    Samples,
    Stage,
    Step,
    System,
    Tables,
)
from vltaxon.errors import UserError
from vltaxon.plan.data import DataPlan
from vltaxon.plan.models import Models
from vltaxon.plan.planned import Wildcards
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
        self.given = experiment
        self.experiment = experiment.model_copy(
            update={"datasets": {n: d.here() for n, d in experiment.datasets.items()}}
        )
        self.config: Config = experiment.config
        self.systems: dict[str, System] = self.config.asked
        self.leaf_systems = experiment.leaf_systems()

    # -- data --------------------------------------------------------------------------------------------------------------

    def dataset(self, name: str) -> Dataset:
        """A data set of the config."""
        return self.experiment.datasets[name]

    def splits(self, dataset: str) -> dict[str, str]:
        """Name of the archive of each split; none of a split that is a folder."""
        given = self.dataset(dataset)
        return {
            kind: split.stem
            for kind in ("train", "test")
            if (split := getattr(given, kind)) is not None and split.stem
        }

    def question_values(self, wildcards: Wildcards) -> Values:
        """What shapes the questions of a data set."""
        return {
            "scored_levels": list(self.dataset(wildcards.dataset).scored_levels),
            "seed": self.config.seed,
        }

    def mining_values(self, wildcards: Wildcards) -> Values:
        """The same, and who mines."""
        encoder = self.config.encoder
        return self.question_values(wildcards) | {
            "encoder": encoder,
            "template": self.model(encoder).template,
        }

    def published(self, dataset: str) -> Published:
        """The benchmark's own questions about a data set."""
        given = self.dataset(dataset).published
        if given is None:
            raise UserError(
                f"config/datasets/{dataset}.yaml has no `published`, so there are no published questions to ask"
            )
        return given

    def taxonomy(self, wildcards: Wildcards) -> list[str]:
        """The benchmark's taxonomy file of a data set, as a list of none or one."""
        return [str(path) for path in [self.published(wildcards.dataset).taxonomy] if path is not None]

    def published_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """The benchmark's annotations, and what of the data set they are matched with."""
        data = wildcards.dataset
        index = [
            f"results/data/archives/{name}.parquet"
            for kind, name in self.splits(data).items()
            if kind == "test"
        ]
        return {
            "annotations": str(self.published(data).annotations),
            "taxa": f"results/data/{data}/taxa.parquet",
            "images": f"results/data/{data}/images.parquet",
            "rejected": f"results/data/{data}/rejected.parquet",
            "index": index,
            "taxonomy": [f"results/published/{data}/taxa.parquet" for _ in self.taxonomy(wildcards)],
        }

    def published_values(self, wildcards: Wildcards) -> Values:
        """What else shapes the published questions of a data set."""
        given = self.dataset(wildcards.dataset)
        values = self.published(wildcards.dataset)
        return {
            "blob": values.blob,
            "parts": values.parts,
            "scored_levels": list(given.scored_levels),
            "drawn": given.test.images_per_leaf is not None,
        }

    def question_files(self, wildcards: Wildcards) -> dict[str, Any]:
        """Questions to export, whose images they are, and for published ones the records they came in."""
        data, choices = wildcards.dataset, wildcards.choices
        return {
            "questions": f"results/questions/{data}/{choices}.parquet",
            "images": f"results/data/{data}/images.parquet",
            "taxa": f"results/data/{data}/taxa.parquet",
            "records": [f"results/questions/{data}/published_records.parquet"]
            if choices == "published"
            else [],
        }

    def calibrations(self) -> list[str]:
        """Tables of the target `calibrate`, one for each data set with questions of the benchmark.

        Raises:
            UserError: there is none.
        """
        names = [name for name in self.config.datasets if self.dataset(name).published is not None]
        if not names:
            raise UserError(
                "calibrate: no data set's file has `published`, the benchmark's questions to compare with"
            )
        return [f"results/calibration/{name}/{self.config.encoder}.csv" for name in names]

    def calibration_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Tables, embeddings and published questions to calibrate with, and the encoder's files."""
        data = f"results/data/{wildcards.dataset}"
        return {
            "images": f"{data}/images.parquet",
            "taxa": f"{data}/taxa.parquet",
            "image_vectors": f"results/embeddings/{wildcards.encoder}/{wildcards.dataset}/images.parquet",
            "questions": f"results/questions/{wildcards.dataset}/published.parquet",
            "model": self.encoder_files(wildcards),
        }

    # -- models ------------------------------------------------------------------------------------------------------------

    def model(self, name: str) -> Any:
        """A model of the config."""
        return self.experiment.models[name]

    def model_values(self, name: str) -> Values:
        """What of a model shapes its output."""
        spec = self.model(name)
        values = dict(spec.shaping())
        if isinstance(spec, Endpoint) and spec.managed is not None and spec.max_new_tokens is None:
            values["max_new_tokens"] = self.model(spec.managed.model).max_new_tokens
        return values

    def base(self, name: str) -> str:
        return self.models.base(name)

    def generators(self) -> dict[str, Values]:
        return {name: spec.shaping() for name, spec in self.models.generators().items()}

    def model_files(self, name: str) -> list[str]:
        return list(map(str, self.models.files(name)))

    def encoder_files(self, wildcards: Wildcards) -> list[str]:
        """Input function: the encoder's files."""
        return self.model_files(wildcards.encoder)

    # -- training ----------------------------------------------------------------------------------------------------------

    def step(self, wildcards: Wildcards) -> Step:
        """The step that a job trains."""
        recipe = self.experiment.recipes[wildcards.recipe]
        return recipe.steps[recipe.step_names.index(wildcards.step)]

    def adapter(self, model: str, recipe: str, step: str, file: str = "adapter_model.safetensors") -> str:
        """File of a trained adapter's folder; a step that several recipes share is trained once."""
        return f"results/adapters/{model}/{self.experiment.step_recipe(recipe, step)}/{step}/{file}"

    def train_priority(self, wildcards: Wildcards) -> int:
        """Steps that wait for this one, and one: the longest chain is trained first, and training goes before the rest."""
        names = self.experiment.recipes[wildcards.recipe].step_names
        return len(names) - names.index(wildcards.step)

    def previous(self, wildcards: Wildcards) -> list[str]:
        """Adapter of the step before, as a list of none or one."""
        names = self.experiment.recipes[wildcards.recipe].step_names
        before = names[: names.index(wildcards.step)][-1:]
        return [self.adapter(wildcards.model, wildcards.recipe, step) for step in before]

    def train_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Training images and questions, the species' parts, the base model, the adapter of the step before and what it names."""
        data, step = self.config.training.dataset, self.step(wildcards)
        own = f"results/own/{wildcards.model}/{wildcards.recipe}/{wildcards.step}.parquet"
        return {
            "images": f"results/data/{data}/images.parquet",
            "taxa": f"results/data/{data}/taxa.parquet",
            "questions": f"results/questions/{data}/{step.choices or self.config.training.choices}.parquet",
            "parts": f"results/splits/{data}.parquet",
            "model": self.model_files(wildcards.model),
            "previous": self.previous(wildcards),
            "own": [own] if step.own else [],
        }

    def train_values(self, wildcards: Wildcards) -> Values:
        """Step, prompts and words of a training job."""
        step = self.step(wildcards)
        return {
            "step": step.shaping(),
            "prompts": {s.prompt: self.prompt_values(s.prompt) for s in step.samples},
            "wording": self.wording(self.config.training.dataset),
            "word": self.word(self.config.training.dataset, wildcards.recipe),
        }

    def own_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """What the naming of training images reads."""
        inputs = self.train_inputs(wildcards)
        return {key: inputs[key] for key in ("images", "parts", "model", "previous")}

    def own_values(self, wildcards: Wildcards) -> Values:
        """Stage 1 of the training images as a prediction job has it: as the step's leaf samples ask."""
        step, data = self.step(wildcards), self.config.training.dataset
        leaf: Samples = next(
            sample for sample in step.samples if sample.task == "leaf" and sample.condition == "none"
        )
        asked = {
            "name": "leaf",
            "prompt": leaf.prompt,
            "form": leaf.form,
            "max_new_tokens": step.max_new_tokens,
        }
        stage = Stage.model_validate(asked)
        values = self._stage_values(stage, data, wildcards.model, self.word(data, wildcards.recipe)) | {
            "part": step.part
        }
        return {key: value for key, value in values.items() if key != "shards"}

    def merge_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """A recipe's last adapter and the base model that it is to be merged into."""
        last = self.experiment.recipes[wildcards.recipe].step_names[-1]
        return {
            "model": self.model_files(wildcards.model),
            "adapter": self.adapter(wildcards.model, wildcards.recipe, last),
            "config": self.adapter(wildcards.model, wildcards.recipe, last, "adapter_config.json"),
        }

    def trained(self, file: str) -> dict[str, str]:
        """A file of every training step in use, by the name to show: recipe and step, and the model where there are several."""
        pairs = sorted({(self.base(s.model), s.recipe) for s in self.config.shown.values() if s.recipe})
        several = len({model for model, _ in pairs}) > 1
        return {
            f"{model} {recipe} {step}" if several else f"{recipe} {step}": self.adapter(
                model, recipe, step, file
            )
            for model, recipe in pairs
            for step in self.experiment.recipes[recipe].step_names
        }

    # -- prediction --------------------------------------------------------------------------------------------------------

    def prompt_values(self, name: str) -> Values:
        """Text of a prompt."""
        return dict(self.experiment.prompts[name].shaping())

    def wording(self, dataset: str, variant: int | None = None) -> str:
        """The benchmark's question in a variant, that of the data set where none is given."""
        given = self.dataset(dataset)
        return self.experiment.questions[given.questions].variants[
            given.variant if variant is None else variant
        ]

    def word(self, dataset: str, recipe: str | None, own: str | None = None) -> str:
        """What the prompts call the organism: a system's own word, else its recipe's, else the data set's."""
        trained = self.experiment.recipes[recipe].word if recipe is not None else None
        return own or trained or self.dataset(dataset).word

    def stage(self, system: str, name: str) -> Stage | None:
        """A stage of a system's protocol."""
        return self.experiment.protocols[self.systems[system].protocol].stage(name)

    def _stage(self, system: str, name: str) -> Stage:
        stage = self.stage(system, name)
        if stage is None:
            raise UserError(
                f"system {system} has no {name} stage: its protocol is {self.systems[system].protocol}"
            )
        return stage

    def system_files(self, system: str) -> list[str]:
        """Adapter of a system, as a list of none or one."""
        given = self.systems[system]
        if given.recipe is None:
            return []
        return [
            self.adapter(
                self.base(given.model), given.recipe, self.experiment.recipes[given.recipe].step_names[-1]
            )
        ]

    def merged_files(self, system: str) -> list[str]:
        """Checkpoint with the adapter merged in, for a server that serves that; as a list of none or one."""
        given = self.systems[system]
        spec = self.model(given.model)
        if (
            given.recipe is None
            or not isinstance(spec, Endpoint)
            or spec.managed is None
            or spec.managed.lora
        ):
            return []
        return [f"results/merged/{spec.managed.model}/{given.recipe}"]

    def leaf_shards(self, system: str, dataset: str) -> list[str]:
        """Stage 1 tables that serve a system."""
        owner = self.leaf_systems[system]
        folder = f"{_PREDICTIONS}/{owner}/{dataset}/leaf"
        return [f"{folder}/{shard}.parquet" for shard in range(self.shards(owner, dataset, "leaf"))]

    def leaf_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """What stage 1 reads."""
        stage = self._stage(wildcards.system, "leaf")
        return self._asking_inputs(
            wildcards, stage.constrained or stage.condition == "gold" or stage.choose == "best"
        )

    def _asking_inputs(self, wildcards: Wildcards, taxa: bool) -> dict[str, Any]:
        """What a stage reads that a model answers, and the taxonomy where it needs that."""
        given, data = self.systems[wildcards.system], f"results/data/{wildcards.dataset}"
        inputs = {
            "images": f"{data}/images.parquet",
            "model": self.model_files(given.model),
            "adapter": self.system_files(wildcards.system),
            "merged": self.merged_files(wildcards.system),
        }
        return inputs | ({"taxa": f"{data}/taxa.parquet"} if taxa else {})

    def answer_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """What stage 2 reads, by who answers."""
        given, data = self.systems[wildcards.system], wildcards.dataset
        stage = self._stage(wildcards.system, "answer")
        inputs: dict[str, Any] = {
            "images": f"results/data/{data}/images.parquet",
            "questions": f"results/questions/{data}/{wildcards.choices}.parquet",
        }
        if stage.by == "model":
            inputs |= self._asking_inputs(wildcards, stage.condition == "gold")
        if stage.by in ("lookup", "similarity"):
            inputs["taxa"] = f"results/data/{data}/taxa.parquet"
        if stage.by == "lookup" or stage.condition == "leaf":
            shards = self.leaf_shards(wildcards.system, data)
            inputs["leaves"] = shards if len(shards) == 1 else [str(Path(shards[0]).with_name("shards.json"))]
        if stage.by == "similarity":
            inputs["vectors"] = [
                f"results/embeddings/{given.model}/{data}/{kind}.parquet" for kind in ("images", "taxa")
            ]
        return inputs

    def shards(self, system: str, dataset: str, name: str) -> int:
        """How many tables a stage of a system is predicted in, about a data set; by auto, one where no device of ours answers."""
        stage, model = self._stage(system, name), self.systems[system].model
        if self.config.shards != "auto":
            return self.config.shards
        if stage.prompt is None or not (gpus := self.gpus(model)):
            return 1
        given, spec = self.dataset(dataset), self.model(model)
        image = shards.image_tokens(spec, None if given.size is None else given.size.pixels)
        each = shards.cost(stage, self.experiment.prompts[stage.prompt], image, spec.max_new_tokens)
        requests = 1 if name == "leaf" else len(given.ranks)
        return shards.auto(each.of(requests), given.tested, max(1, self.config.devices // gpus))

    def stage_values(self, wildcards: Wildcards, name: str) -> Values:
        """Stage, prompt, words and model of a prediction job."""
        given, stage = self.systems[wildcards.system], self._stage(wildcards.system, name)
        word = self.word(wildcards.dataset, given.recipe, given.word)
        variant, count = (
            given.variant_for(wildcards.dataset),
            self.shards(wildcards.system, wildcards.dataset, name),
        )
        values = self._stage_values(
            stage, wildcards.dataset, given.model, word, variant, given.rotation, count
        )
        return values | ({"repeat": given.repeat} if given.repeat else {})

    def _stage_values(
        self,
        stage: Stage,
        dataset: str,
        model: str,
        word: str,
        variant: int | None = None,
        rotation: int = 0,
        count: int = 1,
    ) -> Values:
        values: Values = {"stage": stage.shaping(), "seed": self.config.seed, "shards": count}
        if stage.prompt is not None:
            asks = "{question}" in self.experiment.prompts[stage.prompt].text
            values |= {
                "prompt": self.prompt_values(stage.prompt),
                "wording": self.wording(dataset, variant) if asks else "",
                "word": word,
                "ranks": list(self.dataset(dataset).ranks),
                "model": self.model_values(model),
            }
            if self.base(model) != model:
                values["served"] = self.model_values(self.base(model))
        return values | ({"rotation": rotation} if stage.name == "answer" else {})

    def needs_gpu(self, wildcards: Wildcards, name: str) -> int:
        """Devices a prediction job wants: those of the model where one generates."""
        stage = self.stage(wildcards.system, name)
        return (
            self.gpus(self.systems[wildcards.system].model)
            if stage is not None and stage.by == "model"
            else 0
        )

    def gpus(self, model: str) -> int:
        return self.models.gpus(model)

    def train_gpus(self, model: str) -> int:
        return self.models.train_gpus(model)

    def memory(self, model: str) -> int:
        return self.models.memory(model)

    def prediction_memory(self, wildcards: Wildcards, name: str) -> int:
        """The same for a prediction job, whose answers may need no model."""
        stage = self.stage(wildcards.system, name)
        return (
            self.memory(self.systems[wildcards.system].model)
            if stage is not None and stage.by == "model"
            else 1000 * _MEMORY
        )

    def settings(self, wildcards: Wildcards) -> str:
        """The file of a system's model, read by its jobs for what does not shape results."""
        return f"config/models/{self.systems[wildcards.system].model}.yaml"

    def threads(self, wildcards: Wildcards) -> int:
        """CPU cores of a prediction job: those of the model where one generates, else one."""
        spec = self.model(self.systems[wildcards.system].model)
        return 1 if isinstance(spec, Clip) else int(getattr(spec, "threads", 1))

    def batch_size(self, wildcards: Wildcards) -> int:
        """Requests generated together; a resource, since it must not change results."""
        return int(getattr(self.model(self.systems[wildcards.system].model), "batch_size", 1))

    def answer_shards(self, wildcards: Wildcards) -> list[str]:
        """Stage 2 tables of a system, a data set and a kind of choices."""
        self._stage(wildcards.system, "answer")
        return self._answers(wildcards.system, wildcards.dataset, wildcards.choices)

    def _answers(self, system: str, dataset: str, choices: str) -> list[str]:
        folder = f"{_PREDICTIONS}/{system}/{dataset}/{choices}"
        return [f"{folder}/{shard}.parquet" for shard in range(self.shards(system, dataset, "answer"))]

    # -- results -----------------------------------------------------------------------------------------------------------

    def asked(self) -> list[tuple[str, str]]:
        """Data sets and the kinds of choices asked of each: `published` where the benchmark has questions about it."""
        return [
            (dataset, choices)
            for dataset in self.config.datasets
            for choices in self.config.choices
            if choices != "published" or self.dataset(dataset).published is not None
        ]

    @property
    def main(self) -> Scope:
        """What the main table, figures and report are made of."""
        return Scope(tuple(self.config.shown), tuple(self.asked()))

    def questions(self, scope: Scope | None = None) -> dict[tuple[str, str], str]:
        """Tables of questions by (dataset, choices)."""
        asked = (scope or self.main).asked
        return {
            (dataset, choices): f"results/questions/{dataset}/{choices}.parquet" for dataset, choices in asked
        }

    def exports(self) -> list[str]:
        """All questions and answers in the benchmark's formats."""
        questions = [f"results/published/{dataset}/{choices}.jsonl" for dataset, choices in self.asked()]
        return questions + [f"results/published/{'/'.join(key)}.json" for key in self.answers()]

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
            "questions": list(self.questions(scope).values()),
            "parts": f"results/splits/{self.config.training.dataset}.parquet",
        }

    def score_values(self, scope: Scope | None = None) -> Values:
        """Which file belongs to which row of the scores: keys are joined by `/`, as they are in the paths."""
        scope, training = scope or self.main, self.config.training.dataset
        return {
            "questions": {"/".join(key): path for key, path in self.questions(scope).items()},
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
