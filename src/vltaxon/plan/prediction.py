"""The plan of predictions: what each system is asked about each data set, and what the jobs need."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

from vltaxon import layout, shards
from vltaxon.config.experiment import Experiment, System
from vltaxon.config.models import MEMORY_MB
from vltaxon.config.protocols import Prompt, Stage
from vltaxon.errors import UserError
from vltaxon.plan.models import Models
from vltaxon.plan.planned import Wildcards, planned
from vltaxon.tasks.asking import Answering, Asking
from vltaxon.tasks.prediction import (
    AnswerTask,
    JournalTask,
    ListLeavesTask,
    PredictLeafTask,
    PruneJournalTask,
)


class Words(NamedTuple):
    """The words of prompts about a data set, where they are not those of the data set's file."""

    word: str | None = None
    recipe: str | None = None
    variant: int | None = None


class PredictionPlan:
    """The tasks of prediction, and where their tables lie."""

    def __init__(self, experiment: Experiment, models: Models) -> None:
        """Remember the experiment; tasks are built when they are asked for.

        Args:
            experiment: the validated whole.
            models: its models.
        """
        self._experiment, self._models, self._config = experiment, models, experiment.config
        self.systems: dict[str, System] = experiment.config.asked
        self.leaf_systems = experiment.leaf_systems()
        # Both are called for each of many shards.
        self._asking, self.shards = functools.cache(self._asking_of), functools.cache(self._count_shards)

    # -- the words of a stage --

    def prompt(self, name: str) -> Prompt:
        """Return a prompt of the config."""
        return self._experiment.prompts[name]

    def wording(self, dataset: str, variant: int | None = None) -> str:
        """Return a wording of the benchmark's question.

        Args:
            dataset: name of the data set that has the wordings.
            variant: number of the wording; the data set's own where None.
        """
        spec = self._experiment.datasets[dataset]
        variants = self._experiment.questions[spec.questions].variants
        return variants[spec.variant if variant is None else variant]

    def word(self, dataset: str, recipe: str | None = None, own: str | None = None) -> str:
        """Return what prompts call the organism: the own word, else the recipe's, else the data set's.

        Args:
            dataset: name of the data set.
            recipe: name of the recipe that a system is trained by, None where it is not trained.
            own: the system's own word, None where it has none.
        """
        trained = self._experiment.recipes[recipe].word if recipe is not None else None
        return own or trained or self._experiment.datasets[dataset].word

    def asking(
        self, stage: Stage, dataset: str, model: str, words: Words | None = None, **more: int
    ) -> Asking:
        """Return how a model is asked a stage.

        Args:
            stage: a stage that a model answers.
            dataset: name of the data set whose images it is about.
            model: name of the model that is asked.
            words: words that are not those of the data set's file.
            **more: further fields, `rotation` or `repeat`.
        """
        assert stage.prompt is not None, "the config is checked for that"
        prompt, words = self.prompt(stage.prompt), words or Words()
        return Asking(
            stage=stage,
            seed=self._config.seed,
            prompt=prompt,
            wording=self.wording(dataset, words.variant) if "{question}" in prompt.text else "",
            word=self.word(dataset, words.recipe, words.word),
            ranks=self._experiment.datasets[dataset].ranks,
            model=self._models.asked(model),
            served=self._models.served(model),
            **more,
        )

    # -- stages of systems --

    def stage(self, system: str, name: str) -> Stage | None:
        """Return a stage of a system's protocol, None where it has none of that name.

        Args:
            system: name of the system.
            name: leaf or answer.
        """
        return self._experiment.protocols[self.systems[system].protocol].stage(name)

    def _stage(self, system: str, name: str) -> Stage:
        stage = self.stage(system, name)
        if stage is None:
            raise UserError(
                f"system {system} has no {name} stage: its protocol is {self.systems[system].protocol}"
            )
        return stage

    def _asking_of(self, system: str, dataset: str, name: str) -> Asking | Answering:
        """Return how a stage of a system is asked, or answered without asking a model."""
        spec, stage = self.systems[system], self._stage(system, name)
        if stage.prompt is None:
            return Answering(stage=stage, seed=self._config.seed)
        words = Words(spec.word, spec.recipe, spec.variant_for(dataset))
        rotation = spec.rotation if name == "answer" else 0
        return self.asking(stage, dataset, spec.model, words, rotation=rotation, repeat=spec.repeat)

    def adapter(self, system: str) -> Path | None:
        """Return the adapter that a system's recipe ends in, None for a system without recipe."""
        spec = self.systems[system]
        if spec.recipe is None:
            return None
        last = self._experiment.recipes[spec.recipe].step_names[-1]
        trained = self._experiment.step_recipe(spec.recipe, last)
        base = self._models.base(spec.model)
        return layout.fill(layout.ADAPTER, model=base, recipe=trained, step=last, file=layout.WEIGHTS)

    def merged(self, system: str) -> Path | None:
        """Return the checkpoint with a system's adapter merged in, None where no server of ours serves it."""
        spec = self.systems[system]
        if spec.recipe is None or not self._models[spec.model].serves_merged:
            return None
        return layout.fill(layout.MERGED, model=self._models.base(spec.model), recipe=spec.recipe)

    # -- shards --

    def _count_shards(self, system: str, dataset: str, name: str) -> int:
        """Return how many tables the predictions of a stage of a system about a data set are cut into.

        With `auto` it is one table where no device of ours answers.
        """
        stage, model = self._stage(system, name), self.systems[system].model
        if self._config.shards != "auto":
            return self._config.shards
        if stage.prompt is None or not (gpus := self._models.gpus(model)):
            return 1
        data, spec = self._experiment.datasets[dataset], self._models.generative(model)
        image = spec.visual_tokens(None if data.size is None else data.size.pixels)
        each = shards.cost(stage, self.prompt(stage.prompt), image, spec.max_new_tokens)
        requests = 1 if name == "leaf" else len(data.ranks)
        return shards.auto(each.of(requests), data.tested, max(1, self._config.devices // gpus))

    def leaf_shards(self, system: str, dataset: str) -> tuple[Path, ...]:
        """Return the tables of stage 1 that serve a system.

        Args:
            system: name of the system.
            dataset: name of the data set.
        """
        owner = self.leaf_systems[system]
        count = self.shards(owner, dataset, "leaf")
        return tuple(
            layout.fill(layout.LEAF, system=owner, dataset=dataset, shard=shard) for shard in range(count)
        )

    def answer_shards(self, system: str, dataset: str, choices: str) -> tuple[Path, ...]:
        """Return the tables of stage 2 of a system, about a data set and a kind of choices.

        Args:
            system: name of the system.
            dataset: name of the data set.
            choices: kind of options.
        """
        count = self.shards(system, dataset, "answer")
        return tuple(
            layout.fill(layout.ANSWERS, system=system, dataset=dataset, choices=choices, shard=shard)
            for shard in range(count)
        )

    # -- tasks --

    def _job(self, system: str, asking: Answering) -> dict[str, Any]:
        """Return the fields of a task that depend on who answers: files of weights, devices, memory."""
        name = self.systems[system].model
        spec = self._models[name]
        needs: dict[str, Any] = {"threads": spec.asking_threads, "batch_size": spec.together}
        if not isinstance(asking, Asking):
            return needs | {"gpu": 0, "mem_mb": MEMORY_MB}
        return needs | {
            "gpu": self._models.gpus(name),
            "mem_mb": self._models.memory(name),
            "model": self._models.files(name),
            "adapter": self.adapter(system),
            "merged": self.merged(system),
            "settings": self._experiment.file("models", name),
        }

    @planned
    def predict_leaf(self, wildcards: Wildcards) -> PredictLeafTask:
        """Plan stage 1 of a shard."""
        system, dataset, shard = wildcards.system, wildcards.dataset, wildcards.shard
        asking = self._asking(system, dataset, "leaf")
        assert isinstance(asking, Asking), "the config is checked for that"
        stage = asking.stage
        knows = stage.constrained or stage.condition == "gold" or stage.choose == "best"
        return PredictLeafTask(
            asking=asking,
            shard=int(shard),
            shards=self.shards(system, dataset, "leaf"),
            images=layout.fill(layout.IMAGES, dataset=dataset),
            taxa=layout.fill(layout.TAXA, dataset=dataset) if knows else None,
            names=layout.fill(layout.TAXA, dataset=dataset),
            predictions=layout.fill(layout.LEAF, system=system, dataset=dataset, shard=shard),
            **self._job(system, asking),
        )

    @planned
    def list_leaves(self, wildcards: Wildcards) -> ListLeavesTask:
        """Plan the list of the shards of stage 1."""
        system, dataset = wildcards.system, wildcards.dataset
        return ListLeavesTask(
            leaves=self.leaf_shards(system, dataset),
            shards=layout.fill(layout.LEAF_SHARDS, system=system, dataset=dataset),
        )

    @planned
    def answer_questions(self, wildcards: Wildcards) -> AnswerTask:
        """Plan stage 2 of a shard, which reads what the one who answers needs."""
        system, dataset, choices = wildcards.system, wildcards.dataset, wildcards.choices
        asking = self._asking(system, dataset, "answer")
        stage, encoder = asking.stage, self.systems[system].model
        alike = stage.by == "similarity"
        knows = stage.by in ("lookup", "similarity") or stage.condition == "gold"
        vectors = {"encoder": encoder, "dataset": dataset}
        return AnswerTask(
            asking=asking,
            shard=int(wildcards.shard),
            shards=self.shards(system, dataset, "answer"),
            images=layout.fill(layout.IMAGES, dataset=dataset),
            questions=layout.fill(layout.QUESTIONS, dataset=dataset, choices=choices),
            taxa=layout.fill(layout.TAXA, dataset=dataset) if knows else None,
            leaves=self._leaves(system, dataset) if stage.by == "lookup" or stage.condition == "leaf" else (),
            image_vectors=layout.fill(layout.IMAGE_VECTORS, **vectors) if alike else None,
            taxon_vectors=layout.fill(layout.TAXON_VECTORS, **vectors) if alike else None,
            predictions=layout.fill(
                layout.ANSWERS, system=system, dataset=dataset, choices=choices, shard=wildcards.shard
            ),
            **self._job(system, asking),
        )

    def _leaves(self, system: str, dataset: str) -> tuple[Path, ...]:
        """Return the file of stage 1 that a shard of stage 2 reads: its one table, or the list of several."""
        owner = self.leaf_systems[system]
        if self.shards(owner, dataset, "leaf") == 1:
            return self.leaf_shards(system, dataset)
        return (layout.fill(layout.LEAF_SHARDS, system=owner, dataset=dataset),)

    @planned
    def journal(self, wildcards: Wildcards) -> JournalTask:
        """Plan the count of the answers that are kept."""
        return JournalTask(journal=layout.JOURNAL, predictions=layout.PREDICTIONS)

    @planned
    def prune_journal(self, wildcards: Wildcards) -> PruneJournalTask:
        """Plan the deletion of answers of weights that are no longer there."""
        models = dict(self._models.generators())
        return PruneJournalTask(models=models, adapters=layout.ADAPTERS, journal=layout.JOURNAL)
