"""Steps of recipes: what those of all objectives have in common, and what an objective may override.

Each objective is a file of `vltaxon/train/objectives`, with its own kind of step.
"""

import math
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from vltaxon import batches
from vltaxon.config.base import HOW, Closed, Name
from vltaxon.errors import UserError
from vltaxon.parsing import Form

if TYPE_CHECKING:
    from vltaxon.config.models import Speed
    from vltaxon.prepared import Prepared

Curve = Sequence[tuple[int, str, float]]  # optimiser step, column, value


class Panel(NamedTuple):
    """A panel of the figure of training."""

    title: str
    unit: str


class Column(NamedTuple):
    """A column of the curve of a training, and the panel that draws it, if any does.

    `label` tells its line from others of the same step and panel. A `family` is as many columns as there are
    names that begin as its own; what follows is added to name and label.
    """

    name: str
    panel: Panel | None = None
    label: str = ""
    family: bool = False

    def has(self, name: str) -> bool:
        """Return whether a column of a curve is this one, or of this family."""
        return name.startswith(self.name) if self.family else name == self.name


class Lora(Closed):
    """An adapter: rank, scale, dropout; on linear layers of the language model, never on the vision tower."""

    rank: PositiveInt = 64
    alpha: PositiveInt = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @field_validator("targets", check_fields=False)
    @classmethod
    def _is_regex(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    targets: Annotated[str, Field(description="Regex over module names.")] = (
        r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
    )


class Samples(Closed):
    """Which training samples an image gives."""

    task: Literal["leaf", "answer"]
    prompt: Name = Field(examples=["stage1"])
    target: Literal["answer", "reasoning", "lineage"] = Field(
        "reasoning",
        description="What the model is to write: the answer alone; the taxa down to the level asked, then "
        "the answer; or the whole lineage, then the answer. In grpo the format reward asks for it.",
    )
    form: Form = "tagged"
    levels: Literal["all", "one"] = Field(
        "all", description="answer: every scored level of an image, or one drawn at random."
    )
    turns: Literal["single", "multi"] = Field(
        "single",
        description="multi: one conversation asks all levels of an image in turn; loss on every answer "
        "(sft).",
    )
    condition: Literal["none", "gold", "own", "mixed"] = Field(
        "none",
        description="The leaf that the prompt is given: the true one; the one that the adapter of the step "
        "before names for the image; or either, drawn by the image with equal chance.",
    )
    repeat: PositiveInt = 1

    def per_image(self, levels: int) -> int:
        """Return how many samples an image gives that has questions at so many levels."""
        several = self.task == "answer" and self.levels == "all" and self.turns == "single"
        return self.repeat * (levels if several else 1)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.task == "leaf" and self.condition not in ("none", "gold"):
            raise ValueError(
                "condition: own and mixed are for the answer task; naming the leaf is what they come from"
            )
        if self.task == "answer" and self.form == "listing":
            raise ValueError("form: listing is for the leaf task")
        if self.turns == "multi" and (
            self.task != "answer" or self.levels != "all" or self.condition != "none"
        ):
            raise ValueError("turns: multi is for the answer task, with all levels and no condition")
        return self


class Step(Closed):
    """One training step on a part of the species: what the steps of all objectives have in common."""

    kind: str
    part: Literal["sft", "grpo", "all"] = Field(
        description="Species half; all is both halves, never the held-out species."
    )
    split: Literal["train"] = Field("train", description="Images of the training split only.")
    samples: tuple[Samples, ...] = Field(min_length=1, examples=[[{"task": "leaf", "prompt": "stage1"}]])
    choices: Literal["similar", "random"] | None = Field(
        None, description="Options learnt from; the experiment's where absent."
    )
    lora: Lora = Lora()
    learning_rate: PositiveFloat = Field(examples=[1.0e-5])
    epochs: PositiveFloat = 1.0
    batch_size: PositiveInt = Field(
        128,
        description="Samples, or completions where these are generated, of one optimiser step, all devices.",
    )
    device_batch_size: Annotated[PositiveInt, HOW] = Field(
        8, description="Of these, how many at once on a device."
    )
    checkpoint_minutes: Annotated[NonNegativeInt, HOW] = Field(
        10,
        description="How often what a killed training goes on from is written; 0: after every optimiser "
        "step.",
    )
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(0.03, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    max_new_tokens: PositiveInt = Field(
        512,
        description="Tokens of what a model writes for the step: of a completion, where these are generated, "
        "and of the name of an image, where samples are conditioned on it.",
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        try:
            self.accumulation(1)
        except UserError as error:
            raise ValueError(str(error)) from error
        if len({sample.turns for sample in self.samples}) > 1:
            raise ValueError("samples: turns multi is for all samples of a step or none")
        naming = {(s.prompt, s.form) for s in self.samples if s.task == "leaf" and s.condition == "none"}
        if self.own and len(naming) != 1:
            raise ValueError(
                "samples: condition own and mixed need leaf samples of one prompt, unconditioned, that name "
                "the leaf"
            )
        return self

    @property
    def own(self) -> bool:
        """Whether samples are conditioned on what the adapter of the step before names."""
        return any(sample.condition in ("own", "mixed") for sample in self.samples)

    def check_learns(self, samples: int) -> None:
        """Check that two optimiser steps or more change the adapter: the first of a warm-up changes nothing.

        Args:
            samples: that are trained on, or more.

        Raises:
            UserError: there are fewer.
        """
        steps, idle = self.steps(samples), int(self.warmup > 0)
        if steps - idle < 2:
            first = f", and warmup {self.warmup} gives the first a learning rate of 0" if idle else ""
            raise UserError(
                f"{samples} samples make {steps} optimiser step{'s' * (steps != 1)} (batch_size "
                f"{self.batch_size}, epochs {self.epochs:g}){first}; an adapter needs two that change it. "
                f"Lower batch_size, raise epochs or `repeat`{', or set `warmup: 0`' if idle else ''}."
            )

    # -- what an objective may override ----------------------------------------------------------------

    @property
    def rollouts(self) -> int:
        """How many completions are trained on for each sample."""
        return 1

    @property
    def new_tokens(self) -> int:
        """How many tokens may be added to a sample."""
        return 0

    @property
    def least_samples(self) -> int:
        """How many samples one optimiser step needs."""
        return 1

    def steps(self, samples: int) -> int:
        """Return how many optimiser steps a number of samples makes; the last of an epoch may lack some."""
        return math.ceil(self.epochs * math.ceil(samples / self.batch_size))

    def accumulation(self, world: int) -> int:
        """Return the gradient accumulation steps on `world` devices: see `batches.accumulation`."""
        return batches.accumulation(self.batch_size, self.device_batch_size, world)

    def seconds(self, prompt: float, new: float, speed: "Speed") -> float:
        """Return how long one device trains.

        Args:
            prompt: tokens of all prompts, images included.
            new: tokens of all completions.
            speed: of the model on a device, in tokens a second.
        """
        return (prompt + new) / speed.train

    def files(self, dataset: str) -> tuple[Path, ...]:
        """Return the files a training reads beside images, taxa, questions, species' parts and adapters.

        There are none unless an objective overrides this.
        """
        return ()

    @classmethod
    def columns(cls) -> Mapping[str, Column]:
        """Return the columns of the curve by the names that TRL has for them, in their order."""
        return {name: Column(name) for name in ("loss", "grad_norm", "learning_rate", "entropy")}

    def check_environment(self) -> None:
        """Check, before anything is loaded, that what the objective needs beside the model is there.

        Raises:
            UserError: something is missing.
        """

    @abstractmethod
    def trainer(self, prepared: "Prepared") -> Any:
        """Return the trainer, a subclass of transformers' `Trainer`, which has not started."""

    def findings(self, curve: Curve, prepared: "Prepared") -> dict[str, Any]:
        """Return what the record of a finished training says beside what all records say.

        Args:
            curve: of the training.
            prepared: what it was trained with.
        """
        return {}


def declared_in(objective: ModuleType) -> type[Step]:
    """Return the kind of step that the file of an objective declares."""
    return next(
        declared
        for declared in vars(objective).values()
        if isinstance(declared, type)
        and issubclass(declared, Step)
        and declared.__module__ == objective.__name__
    )
