"""Tasks that make questions: vectors, distractors, parts of the species, the benchmark's files in and out."""

from typing import Annotated, ClassVar

from vltaxon.config.base import HOW
from vltaxon.config.experiment import Calibration, Partition
from vltaxon.engines.zero_shot import Clip
from vltaxon.tasks.base import Read, ReadIfAny, ReadMany, Task, Write


class EmbedTask(Task):
    """The images and taxa of a data set, as vectors of a dual encoder."""

    module: ClassVar = "vltaxon.encoders.embedding"
    encoder: Clip
    batch_size: Annotated[int, HOW]
    threads: Annotated[int, HOW] = 1
    model: ReadMany
    images: Read
    taxa: Read
    image_vectors: Write
    taxon_vectors: Write


class MineTask(Task):
    """The questions of a data set with similar choices."""

    module: ClassVar = "vltaxon.distractors.mining"
    encoder: str
    template: str
    scored_levels: tuple[int, ...]
    seed: int  # of the order of the options; the choice itself has none
    images: Read
    taxa: Read
    image_vectors: Read
    taxon_vectors: Read
    questions: Write


class DrawTask(Task):
    """The questions of a data set with random choices."""

    module: ClassVar = "vltaxon.questions"
    scored_levels: tuple[int, ...]
    seed: int
    images: Read
    taxa: Read
    questions: Write


class PartitionTask(Task):
    """The species of the training data set, parted."""

    module: ClassVar = "vltaxon.partition"
    partition: Partition
    seed: int
    images: Read
    taxa: Read
    parts: Write


class CalibrateTask(Task):
    """How many of the published distractors each text of a label finds again."""

    module: ClassVar = "vltaxon.distractors.calibration"
    encoder: Clip
    texts: Calibration
    model: ReadMany
    images: Read
    taxa: Read
    image_vectors: Read
    questions: Read
    table: Write
    text: Write


class LoadTaxonomyTask(Task):
    """One of the benchmark's taxonomy files, to be written as a table of taxa."""

    module: ClassVar = "vltaxon.data.taxa"
    ranks: tuple[str, ...]
    hierarchy: Read
    taxa: Write


class ImportTask(Task):
    """The benchmark's questions about the test images of a data set."""

    module: ClassVar = "vltaxon.exchange.import_published"
    blob: str | None  # git blob digest of the annotations
    parts: int  # how many last parts of a path tell an image, in the annotations as in the archive
    scored_levels: tuple[int, ...]
    drawn: bool  # whether the data set takes only some of the archive's images
    annotations: Read
    images: Read
    taxa: Read
    rejected: Read
    index: ReadIfAny  # of the test split's archive; none where its images lie in a folder
    taxonomy: ReadIfAny  # the benchmark's, as a table, which rows and options must then be of
    questions: Write
    records: Write


class ExportTask(Task):
    """Questions in the benchmark's format."""

    module: ClassVar = "vltaxon.exchange.export"
    questions: Read
    images: Read
    taxa: Read
    records: ReadIfAny  # beside published questions; ours have none
    output: Write


class ExportAnswersTask(ExportTask):
    """A system's answers in the benchmark's format."""

    answers: ReadMany
