"""The plan of training: the steps of recipes, what they learn from, and where their adapters lie."""

from pathlib import Path

from vltaxon import layout
from vltaxon.config.experiment import Experiment, Training
from vltaxon.config.protocols import Stage
from vltaxon.config.recipes import Recipe
from vltaxon.config.steps import Samples, Step
from vltaxon.errors import UserError, suggest
from vltaxon.plan.models import Models
from vltaxon.plan.planned import Wildcards, planned
from vltaxon.tasks.asking import Asking
from vltaxon.tasks.training import MergeTask, NameTrainingTask, TrainTask


class TrainingPlan:
    """The tasks that train adapters; a step that several recipes share is trained once."""

    def __init__(self, experiment: Experiment, models: Models) -> None:
        self._experiment, self._models = experiment, models
        self._config = experiment.config

    @property
    def _learnt(self) -> Training:
        return self._experiment.training

    # -- steps and their files --

    def step(self, recipe: str, step: str) -> Step:
        """Return a step of a recipe.

        Args:
            recipe: name of the recipe.
            step: name of the step, `2-grpo`.

        Raises:
            UserError: the recipe has no such step.
        """
        chain = self._recipe(recipe)
        if step not in chain.step_names:
            raise UserError(f'recipe {recipe}: step "{step}" is not {suggest(step, chain.step_names)}')
        return chain.steps[chain.step_names.index(step)]

    def adapter(self, model: str, recipe: str, step: str, file: str = layout.WEIGHTS) -> Path:
        """Return a file of a trained adapter's folder.

        Args:
            model: name of the base model.
            recipe: name of a recipe that has the step.
            step: name of the step.
            file: name of the file.
        """
        owner = self._experiment.step_recipe(recipe, step)
        return layout.fill(layout.ADAPTER, model=model, recipe=owner, step=step, file=file)

    def last_adapter(self, model: str, recipe: str, file: str = layout.WEIGHTS) -> Path:
        """Return the adapter that a recipe ends in, or another file of its folder.

        Args:
            model: name of the base model.
            recipe: name of the recipe.
            file: name of the file.
        """
        return self.adapter(model, recipe, self._recipe(recipe).step_names[-1], file)

    def previous(self, model: str, recipe: str, step: str) -> Path | None:
        """Return the adapter of the step before, None for the first step.

        Args:
            model: name of the base model.
            recipe: name of the recipe.
            step: name of the step.
        """
        names = self._recipe(recipe).step_names
        before = names[: names.index(step)]
        return self.adapter(model, recipe, before[-1]) if before else None

    def trained(self, file: str) -> dict[str, Path]:
        """Return a file of every training step in use, by a name to show.

        The name is recipe and step, with the model before them where there are several models.
        """
        shown = self._config.shown.values()
        pairs = sorted({(self._models.base(each.model), each.recipe) for each in shown if each.recipe})
        several = len({model for model, _ in pairs}) > 1
        named = {
            f"{model} {recipe} {step}" if several else f"{recipe} {step}": self.adapter(
                model, recipe, step, file
            )
            for model, recipe in pairs
            for step in self._recipe(recipe).step_names
        }
        once = {path: name for name, path in reversed(named.items())}  # of recipes that share it the first
        return {name: path for path, name in reversed(once.items())}

    def priority(self, wildcards: Wildcards) -> int:
        """Return how many steps wait for this one, and one.

        So the longest chain is trained first, and training goes before the rest.
        """
        names = self._recipe(wildcards.recipe).step_names
        return len(names) - names.index(wildcards.step)

    def threads(self, wildcards: Wildcards) -> int:
        """Return the CPU cores of a job that loads the base model."""
        return self._models.vlm(wildcards.model).threads

    def memory(self, wildcards: Wildcards) -> int:
        """Return the MB of main memory of a training job, all its processes together."""
        return self._models.memory(wildcards.model) * self._models.vlm(wildcards.model).processes

    # -- tasks --

    @planned
    def train(self, wildcards: Wildcards) -> TrainTask:
        """Plan a training step."""
        model, recipe, name = wildcards.model, wildcards.recipe, wildcards.step
        step, data, spec = self.step(recipe, name), self._learnt.dataset, self._models.vlm(model)
        place = {"model": model, "recipe": recipe, "step": name}
        return TrainTask(
            step=step,
            model=spec,
            prompts={sample.prompt: self._experiment.prompts[sample.prompt] for sample in step.samples},
            wording=self._wording(),
            word=self._word(recipe),
            seed=self._config.seed,
            device_batch_size=step.device_batch_size,
            checkpoint_minutes=step.checkpoint_minutes,
            later=self._recipe(recipe).steps[self._recipe(recipe).step_names.index(name) + 1 :],
            processes=spec.processes,
            distributed=spec.distributed,
            accelerate=self._experiment.file("accelerate", spec.distributed),
            gpu=self._models.train_gpus(model),
            state=layout.TRAINER_STATES / model / recipe / name,
            images=layout.fill(layout.IMAGES, dataset=data),
            taxa=layout.fill(layout.TAXA, dataset=data),
            questions=layout.fill(
                layout.QUESTIONS, dataset=data, choices=step.choices or self._learnt.choices
            ),
            parts=layout.fill(layout.PARTS, dataset=data),
            weights=self._models.files(model),
            previous=self.previous(model, recipe, name),
            files=step.files(data),
            own=layout.fill(layout.OWN, **place) if step.own else None,
            adapter=layout.fill(layout.ADAPTER, **place, file=layout.WEIGHTS),
            config=layout.fill(layout.ADAPTER, **place, file=layout.ADAPTER_CONFIG),
            record=layout.fill(layout.ADAPTER, **place, file=layout.RECORD),
            curve=layout.fill(layout.ADAPTER, **place, file=layout.CURVE),
        )

    @planned
    def name_training(self, wildcards: Wildcards) -> NameTrainingTask:
        """Plan stage 1 of the training images before a step, asked as the step's own leaf samples ask it."""
        model, recipe, name = wildcards.model, wildcards.recipe, wildcards.step
        step, data = self.step(recipe, name), self._learnt.dataset
        leaf: Samples = next(
            each for each in step.samples if each.task == "leaf" and each.condition == "none"
        )
        prompt = self._experiment.prompts[leaf.prompt]
        stage = {
            "name": "leaf",
            "prompt": leaf.prompt,
            "form": leaf.form,
            "max_new_tokens": step.max_new_tokens,
        }
        return NameTrainingTask(
            asking=Asking(
                stage=Stage.model_validate(stage),
                seed=self._config.seed,
                prompt=prompt,
                wording=self._wording() if "{question}" in prompt.text else "",
                word=self._word(recipe),
                ranks=self._experiment.datasets[data].ranks,
                model=self._models.vlm(model),
            ),
            part=step.part,
            batch_size=self._models.vlm(model).batch_size,
            gpu=self._models.gpus(model),
            threads=self._models.vlm(model).threads,
            images=layout.fill(layout.IMAGES, dataset=data),
            names=layout.fill(layout.TAXA, dataset=data),
            parts=layout.fill(layout.PARTS, dataset=data),
            model=self._models.files(model),
            adapter=self.previous(model, recipe, name),
            predictions=layout.fill(layout.OWN, model=model, recipe=recipe, step=name),
        )

    @planned
    def merge_adapter(self, wildcards: Wildcards) -> MergeTask:
        """Plan a checkpoint with a recipe's last adapter merged in."""
        model, recipe = wildcards.model, wildcards.recipe
        return MergeTask(
            model=self._models.vlm(model),
            weights=self._models.files(model),
            adapter=self.last_adapter(model, recipe),
            config=self.last_adapter(model, recipe, layout.ADAPTER_CONFIG),
            merged=layout.fill(layout.MERGED, model=model, recipe=recipe),
        )

    def _recipe(self, name: str) -> Recipe:
        return self._experiment.recipes[name]

    def _wording(self) -> str:
        """Return the benchmark's question in the variant of the data set that is learnt from."""
        data = self._experiment.datasets[self._learnt.dataset]
        return self._experiment.questions[data.questions].variants[data.variant]

    def _word(self, recipe: str) -> str:
        """Return what the prompts of a recipe call the organism."""
        return self._recipe(recipe).word or self._experiment.datasets[self._learnt.dataset].word
