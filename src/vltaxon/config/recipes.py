"""Recipes: chains of training steps from one base model."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from vltaxon import batches
from vltaxon.config.base import HOW, Closed, Name
from vltaxon.errors import UserError
from vltaxon.parsing import Form


class Lora(Closed):
    """Adapter: rank, scale, dropout; on the linear layers of the language model, never on the vision tower."""

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
    prompt: Name
    target: Literal["answer", "reasoning", "lineage"] = Field(
        "reasoning",
        description="What the model is to write: the answer alone; the taxa down to the level asked, then the answer; or the "
        "whole lineage, then the answer. In grpo it is what the format reward asks for.",
    )
    form: Form = "tagged"
    levels: Literal["all", "one"] = Field(
        "all", description="answer: every scored level of an image, or one drawn at random."
    )
    turns: Literal["single", "multi"] = Field(
        "single",
        description="multi: one conversation asks all levels of an image in turn; loss on every answer (sft).",
    )
    condition: Literal["none", "gold", "own", "mixed"] = Field(
        "none",
        description="The leaf that the prompt is given: the true one; the one that the adapter of the step before names for the "
        "image; or either, drawn by the image with equal chance.",
    )
    repeat: PositiveInt = 1

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
    """One training step: SFT or GRPO on a part of the species, from the step before it."""

    kind: Literal["sft", "grpo"]
    part: Literal["sft", "grpo", "all"] = Field(
        description="Species half; all is both halves, never the held-out species."
    )
    split: Literal["train"] = Field("train", description="Images of the training split only.")
    samples: tuple[Samples, ...] = Field(min_length=1)
    choices: Literal["similar", "random"] | None = Field(
        None, description="Options learnt from; the experiment's where absent."
    )
    lora: Lora = Lora()
    learning_rate: PositiveFloat
    epochs: PositiveFloat = 1.0
    batch_size: PositiveInt = Field(
        128, description="Samples (sft) or completions (grpo) of one optimiser step, all devices."
    )
    device_batch_size: Annotated[PositiveInt, HOW] = Field(
        8, description="Of these, how many at once on a device."
    )
    checkpoint_minutes: Annotated[NonNegativeInt, HOW] = Field(
        10,
        description="How often what a killed training goes on from is written; 0: after every optimiser step.",
    )
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(0.03, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    group_size: PositiveInt = Field(8, description="grpo: completions per prompt.")
    kl: float = Field(0.4, ge=0, description="grpo: coefficient of the KL term.")
    temperature: PositiveFloat = 1.0
    clip: PositiveFloat = 0.2
    max_new_tokens: PositiveInt = 512
    zero_variance_limit: Annotated[float, HOW] = Field(
        0.95, gt=0, le=1, description="grpo: warn above this share of groups without variance."
    )
    generate: Literal["transformers", "vllm_colocate", "vllm_server"] = Field(
        "transformers",
        description="grpo: what writes the completions. vLLM, on the training devices or at the address in VLTAXON_VLLM_SERVER "
        "(`trl vllm-serve`), is faster and was not yet run by us.",
    )

    @model_validator(mode="after")
    def _batches(self) -> Self:
        try:
            self.accumulation(1)
        except UserError as error:
            raise ValueError(str(error)) from error
        if self.generate != "transformers" and self.kind != "grpo":
            raise ValueError("generate: is for grpo; sft generates nothing")
        multi = {sample.turns == "multi" for sample in self.samples}
        if multi != {False} and (self.kind == "grpo" or multi == {True, False}):
            raise ValueError("samples: turns multi is for sft, and for all samples of a step or none")
        if (
            self.own
            and len({(s.prompt, s.form) for s in self.samples if s.task == "leaf" and s.condition == "none"})
            != 1
        ):
            raise ValueError(
                "samples: condition own and mixed need leaf samples of one prompt, unconditioned, that name the leaf"
            )
        return self

    def accumulation(self, world: int) -> int:
        """Gradient accumulation steps on `world` devices: see `batches.accumulation`."""
        return batches.accumulation(
            self.batch_size, self.device_batch_size, world, self.group_size if self.kind == "grpo" else None
        )

    @property
    def own(self) -> bool:
        """Whether samples are conditioned on what the adapter of the step before names."""
        return any(sample.condition in ("own", "mixed") for sample in self.samples)


class Recipe(Closed):
    """A chain of training steps from one base model.

    A file either lists its steps, or names the recipe it is `based_on` and its `changes`, by step (`2-grpo: {kl: 0.04}`):
    mappings are merged, everything else is replaced. What is held here is whole.
    """

    description: str
    word: str | None = Field(
        None, description="What the prompts call the organism; the data set's word where absent."
    )
    based_on: Name | None = None
    steps: tuple[Step, ...] = Field(min_length=1)

    @property
    def step_names(self) -> list[str]:
        """Folder names of the steps: 1-sft, 2-grpo."""
        return [f"{i}-{step.kind}" for i, step in enumerate(self.steps, start=1)]

    @model_validator(mode="after")
    def _one_adapter(self) -> Self:
        shapes = {(step.lora.rank, step.lora.alpha, step.lora.targets) for step in self.steps}
        if len(shapes) > 1:
            raise ValueError(
                "steps: continue one adapter, so give them the same `lora` rank, alpha and targets"
            )
        return self
