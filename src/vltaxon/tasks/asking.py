"""How a stage is answered, and how a model is asked it: what tasks of prediction and training share."""

from pathlib import Path
from typing import Annotated, ClassVar

from vltaxon import layout
from vltaxon.config.base import HOW, Closed
from vltaxon.config.models import GenerativeSpec
from vltaxon.config.protocols import Prompt, Stage
from vltaxon.engines.transformers import Vlm
from vltaxon.tasks.base import Read, ReadIfAny, ReadMany, Task, Write


class Answering(Closed):
    """A stage of a protocol and the seed of the run; that is all where no model is asked."""

    stage: Stage
    seed: int


class Asking(Answering):
    """A stage as a model is asked it: the prompt in the words of a data set, and the model.

    `wording` is the benchmark's question, empty where the prompt shows none. `served` is the model whose
    weights a managed server serves. `rotation` is the number of places by which options are moved before they
    are shown, `repeat` the number of the run, where the same is asked several times.
    """

    prompt: Prompt
    wording: str
    word: str
    ranks: tuple[str, ...]
    model: GenerativeSpec
    served: Vlm | None = None
    repeat: int = 0
    rotation: int = 0


class AskingTask(Task):
    """A job in which a model may be asked about images.

    `adapter` is the file of its weights; `merged` the folder of a checkpoint that has it merged in;
    `settings` the model's file, which says how to ask an endpoint.
    """

    module: ClassVar[str | None] = "vltaxon.inference.run"
    images: Read
    model: ReadMany = ()
    adapter: ReadIfAny = None
    merged: ReadIfAny = None
    settings: Annotated[Path | None, HOW] = None
    state: Annotated[Path, HOW] = layout.STATE
    log: Annotated[Path, HOW] = Path("job.log")
    batch_size: Annotated[int, HOW] = 1
    gpu: Annotated[int, HOW] = 0
    threads: Annotated[int, HOW] = 1
    mem_mb: Annotated[int, HOW] = 2000
    predictions: Write


class LeafTask(AskingTask):
    """A job of stage 1: the leaf of each image is asked, and named in `predictions`, of schema `PREDICTIONS`.

    `taxa` is read where the stage is given the true leaf, is held to the taxonomy's lineages or takes the
    best sample. `names` is the same table, for the reader: its names may hold what ends other names. It is
    written together with `images`, which says when it is new.
    """

    asking: Asking
    taxa: ReadIfAny = None
    names: Annotated[Path | None, HOW] = None
