"""Tasks of training: a step of a recipe, stage 1 of the training images before it, merging an adapter."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from vltaxon.config.base import HOW
from vltaxon.config.protocols import Prompt
from vltaxon.config.recipes import AnyStep
from vltaxon.config.steps import Step
from vltaxon.engines.transformers import Vlm
from vltaxon.tasks.asking import LeafTask
from vltaxon.tasks.base import Read, ReadIfAny, ReadMany, Task, Write


class TrainTask(Task):
    """One step of a recipe, from the adapter of the step before it, if any, to its own.

    Further processes of the job get the task as JSON.
    """

    module: ClassVar = "vltaxon.train.step"
    step: AnyStep
    model: Vlm
    prompts: dict[str, Prompt]  # by name, at least those of the step's samples
    wording: str  # the benchmark's question about the data set
    word: str  # what the prompts call the organism
    seed: int
    device_batch_size: Annotated[PositiveInt, HOW]
    checkpoint_minutes: Annotated[NonNegativeInt, HOW]
    later: Annotated[tuple[AnyStep, ...], HOW] = ()  # steps of the recipe that go on from this one
    processes: Annotated[PositiveInt, HOW] = 1
    distributed: Annotated[Literal["ddp", "fsdp"], HOW] = "ddp"
    accelerate: Annotated[Path, HOW] = Path("config/accelerate/ddp.yaml")  # settings of `accelerate launch`
    gpu: Annotated[NonNegativeInt, HOW] = 1  # devices of the job
    state: Annotated[Path, HOW]  # folder of the states that a killed training goes on from
    images: Read
    taxa: Read
    questions: Read
    parts: Read
    weights: ReadMany  # local files of the base model
    previous: ReadIfAny = None  # adapter of the step before
    files: ReadMany = ()  # what its objective reads beside all these, see `Step.files`
    own: ReadIfAny = None  # what that adapter names the training images, where samples are conditioned on it
    adapter: Write
    config: Write
    record: Write
    curve: Write

    @property
    def running_step(self) -> Step:
        """Return the step with the device batch and the pace of saving of the job's resources."""
        how = {name: getattr(self, name) for name in ("device_batch_size", "checkpoint_minutes")}
        return self.step.model_copy(update=how)

    @property
    def running_model(self) -> Vlm:
        """Return the base model with the number of devices that each process has."""
        return self.model.model_copy(update={"gpus": max(1, self.gpu // self.processes)})


class NameTrainingTask(LeafTask):
    """Stage 1 of the training images of a part, by the adapter of the step before."""

    part: str
    parts: Read


class MergeTask(Task):
    """A recipe's last adapter, merged into its base model."""

    module: ClassVar = "vltaxon.train.step"
    model: Vlm
    weights: ReadMany
    adapter: Read
    config: Read
    merged: Write
