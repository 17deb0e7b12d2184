"""Recipes: chains of training steps from one base model."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Self, TypeAlias

from pydantic import Field, model_validator

from vltaxon.config.base import Closed, Name, Shown
from vltaxon.config.steps import Step, declared_in
from vltaxon.plugins import find_plugins

STEPS: dict[str, type[Step]] = {  # by kind: the step that the file of each objective declares
    name: declared_in(module) for name, module in find_plugins("vltaxon.train.objectives").items()
}

if TYPE_CHECKING:
    AnyStep: TypeAlias = Step
else:
    AnyStep = Annotated[reduce(or_, STEPS.values()), Field(discriminator="kind")]


class Recipe(Closed):
    """A chain of training steps from one base model.

    A file either lists its steps, or names the recipe it is `based_on` and its `changes`, by step (`2-grpo:
    {kl: 0.04}`): mappings are merged, everything else is replaced. It may end earlier (`until: 1-sft`). A
    recipe that is loaded has all its steps.
    """

    description: str = Field(examples=["SFT on all species."])
    word: Shown | None = Field(
        None, description="What the prompts call the organism; the data set's word where absent."
    )
    based_on: Name | None = None
    until: str | None = Field(None, description="based_on: the last step that is taken; all where absent.")
    steps: tuple[AnyStep, ...] = Field(
        min_length=1,
        examples=[[{"kind": "sft", "part": "all", "samples": [{"task": "leaf", "prompt": "stage1"}]}]],
    )

    @property
    def step_names(self) -> list[str]:
        """Folder names of the steps: 1-sft, 2-grpo."""
        return [f"{i}-{step.kind}" for i, step in enumerate(self.steps, start=1)]

    @model_validator(mode="after")
    def _one_adapter(self) -> Self:
        if self.until is not None and self.based_on is None:
            raise ValueError("until: is for a recipe that is `based_on` another")
        shapes = {(step.lora.rank, step.lora.alpha, step.lora.targets) for step in self.steps}
        if len(shapes) > 1:
            raise ValueError(
                "steps: continue one adapter, so give them the same `lora` rank, alpha and targets"
            )
        return self
