"""Tasks of prediction: the two stages of a protocol, and the journal of all answers."""

from pathlib import Path
from typing import Annotated, ClassVar

from vltaxon.config.base import HOW
from vltaxon.engines.transformers import Vlm
from vltaxon.tasks.asking import Answering, Asking, AskingTask, LeafTask
from vltaxon.tasks.base import Read, ReadIfAny, ReadMany, Task, Write


class PredictLeafTask(LeafTask):
    """Stage 1 of the test images of a shard."""

    shard: int
    shards: int


class ListLeavesTask(Task):
    """A list of the shards of stage 1, for those of stage 2: listing all pairs would grow as their square."""

    module: ClassVar[str | None] = "vltaxon.inference.run"
    leaves: ReadMany
    shards: Write


class AnswerTask(AskingTask):
    """Stage 2: the questions about the test images of a shard.

    `leaves` are the tables of stage 1, or a list of them; the vectors are those of an encoder. Each is read
    where the stage needs it.
    """

    asking: Asking | Answering
    shard: int
    shards: int
    questions: Read
    taxa: ReadIfAny = None
    leaves: ReadMany = ()
    image_vectors: ReadIfAny = None
    taxon_vectors: ReadIfAny = None


class JournalTask(Task):
    """The journal of all answers that were ever given, to be counted."""

    module: ClassVar[str | None] = None
    journal: Annotated[Path, HOW]
    predictions: Annotated[Path, HOW]
    log: Annotated[Path, HOW] = Path("journal.log")


class PruneJournalTask(Task):
    """Kept answers of weights and settings that `models` and their adapters no longer have, to be deleted."""

    module: ClassVar[str | None] = None
    models: Annotated[dict[str, Vlm], HOW]
    adapters: Annotated[Path, HOW]
    journal: Annotated[Path, HOW]
    log: Annotated[Path, HOW] = Path("prune_journal.log")
