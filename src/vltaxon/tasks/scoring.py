"""Tasks that score predictions and show the scores: tables, figures, the report page, what jobs took."""

import importlib
from pathlib import Path
from typing import Annotated, Any, ClassVar

from vltaxon.code_versions import code_version
from vltaxon.config.base import HOW, Closed
from vltaxon.config.engines import Spec
from vltaxon.config.experiment import AboutReport, System, Training
from vltaxon.tasks.base import Read, ReadIfAny, ReadMany, Task, Write, WriteMany


class Sources(Closed):
    """The files to score; paths are relative to the workflow root, and stay so in the database."""

    questions: dict[tuple[str, str], Path]  # (dataset, choices)
    images: dict[str, Path]  # dataset
    taxa: dict[str, Path]  # dataset
    answers: dict[tuple[str, str, str], tuple[Path, ...]]  # (system, dataset, choices): shards
    leaves: dict[tuple[str, str], tuple[Path, ...]]  # (system whose own stage 1 ran, dataset): shards
    leaf_systems: dict[str, str]  # system with a stage 1: the system whose stage 1 it uses (often itself)
    partition: dict[str, Path]  # data set that recipes learn from, if any
    trained: dict[str, Path]  # its images

    def every(self) -> list[Path]:
        """Return all files."""
        shards = (file for files in (*self.answers.values(), *self.leaves.values()) for file in files)
        tables = (self.partition, self.trained, self.questions, self.images, self.taxa)
        return [*dict.fromkeys(path for table in tables for path in table.values()), *shards]

    def files(self) -> dict[str, str | list[str]]:
        """Return all files, as the named inputs of a rule."""
        shards = {"answers": self.answers.values(), "leaves": self.leaves.values()}
        listed = {
            name: sorted({file for files in groups for file in files}) for name, groups in shards.items()
        }
        tables = ("images", "taxa", "questions", "partition", "trained")
        listed |= {name: list(getattr(self, name).values()) for name in tables}
        return {name: list(map(str, files)) for name, files in listed.items()}


class ScoreTask(Task):
    """The scores of a scope, with their intervals, and a database with views over what they were made of."""

    module: ClassVar = "vltaxon.metrics.score"
    scope: Annotated[str, HOW]
    sources: Sources
    bootstrap: int
    seed: int
    threads: Annotated[int, HOW] = 1
    metrics: ReadMany
    views: ReadMany
    scores: Write
    database: Write

    def reads(self) -> dict[str, str | list[str]]:
        """Return its inputs: the files of its sources, and the SQL."""
        return super().reads() | self.sources.files()


class TabulateTask(Task):
    """The table of a scope, written by `tabulate` of `module`; each kind of scope has a task of its own."""

    caption: ClassVar[str]  # in Snakemake's report
    scope: Annotated[str, HOW]
    metrics: ReadMany
    csv: Write
    md: Write
    tex: Write

    def run(self) -> None:
        """Write the table, by the function of its kind."""
        assert self.module is not None, "each kind of table has a module that writes it"
        importlib.import_module(self.module).tabulate(self)


class MainTableTask(TabulateTask):
    """Every system on every data set and kind of choices."""

    module: ClassVar = "vltaxon.report.tables"
    caption: ClassVar = (
        "Every system on every data set and kind of choices, in percent, with 95 % intervals (percentile "
        "bootstrap over images; Wilson's interval where all images score alike). HCA: every scored level "
        "right. Leaf: the deepest level right. An output without a readable answer counts as wrong. The open "
        "columns score stage 1 alone, by name."
    )
    labels: dict[str, str]
    scores: Read
    compare: tuple[tuple[str, str], ...] = ()
    bootstrap: int = 1000  # of what is compared, as the seed
    seed: int = 0
    database: ReadIfAny = None  # where something is compared


class Setting(Closed):
    """What a paper's tables are made of here."""

    paper: str
    datasets: dict[str, str]  # role: data set of the experiment
    comparable: dict[str, bool]  # role: whether that is the paper's own
    choices: str
    systems: dict[str, str]  # system: what it is, in words


class PaperTableTask(TabulateTask):
    """A table of a paper, published and ours; without scores where the experiment has none of its systems."""

    module: ClassVar = "vltaxon.report.paper"
    caption: ClassVar = (
        "A table of a paper: its rows and columns, each number as published and as measured here, with a "
        "95 % interval and a sign for whether ours lies within one point. Where a data set is not the "
        "paper's the two are not comparable."
    )
    table: str
    setting: Setting
    paper: ReadMany
    scores: ReadIfAny


class SweptSystem(Closed):
    """A sweep: what its system is called, and the wordings and rotations of its members."""

    label: str
    variants: tuple[int, ...]
    rotations: tuple[int, ...]


class SweepTableTask(TabulateTask):
    """Mean, spread and range of each sweep."""

    module: ClassVar = "vltaxon.report.sweeps"
    caption: ClassVar = (
        "Sweeps: a system asked in every combination of question wordings and rotations of the options. "
        "Mean, standard deviation and range of HCA and leaf accuracy, over all combinations, by wording and "
        "by rotation."
    )
    sweeps: dict[str, SweptSystem]
    scores: Read


class RepeatedSystem(Closed):
    """A system asked several times: its label, and its runs' tables by (data set, choices or `leaf`)."""

    label: str
    answers: dict[tuple[str, str], tuple[tuple[Path, ...], ...]]


class RepeatsTableTask(TabulateTask):
    """How many answers change when a system is asked the same again."""

    module: ClassVar = "vltaxon.report.repeats"
    caption: ClassVar = (
        "Repeats: systems asked the very same several times. The share of questions on which not all runs "
        "agree, with Wilson's 95 % interval."
    )
    repeats: dict[str, RepeatedSystem]
    answers: ReadMany


class PlotTask(Task):
    """The figures of the main systems: accuracy per level, whole lineage against leaf, training curves."""

    module: ClassVar = "vltaxon.report.figures"
    labels: dict[str, str]
    ranks: dict[str, tuple[str, ...]]
    steps: tuple[str, ...]  # what each curve is of
    scores: Read
    curves: ReadMany
    level_accuracy: Write
    hca_leaf: Write
    training: Write
    png: WriteMany


class PlotPaperTask(Task):
    """A figure of a paper."""

    module: ClassVar = "vltaxon.report.figures.of_papers"
    figure: str
    drawing: Annotated[str, HOW]  # the module that draws it, whose code counts
    setting: Setting
    labels: dict[str, str]
    ranks: dict[str, tuple[str, ...]]
    metrics: ReadMany
    paper: ReadMany
    scores: Read
    svg: Write
    png: Write

    def shaping(self) -> dict[str, Any]:
        """Return the values that run it again when they change, with the code that draws it."""
        return super().shaping() | {"drawing": code_version(self.drawing)}


class ReportTask(Task):
    """The report page."""

    module: ClassVar = "vltaxon.report.page"
    pages: Annotated[tuple[str, ...], HOW]  # modules of its sections, whose code counts
    about: AboutReport
    systems: dict[str, System]
    datasets: tuple[str, ...]
    choices: tuple[str, ...]
    encoder: str
    training: Training | None
    models: dict[str, Spec]
    steps: tuple[str, ...]  # what each training record is of
    bootstrap: int
    seed: int
    benchmarks: Annotated[Path, HOW]
    scores: Read
    database: Read
    images: Read
    figures: ReadMany
    records: ReadMany
    metrics: ReadMany
    site: ReadMany
    page: Write
    compare: tuple[tuple[str, str], ...] = ()

    def shaping(self) -> dict[str, Any]:
        """Return the values that run it again when they change, with the code of its sections."""
        return super().shaping() | {"pages": {page: code_version(page) for page in self.pages}}


class UsageTask(Task):
    """A table of what the jobs took, for the terminal."""

    module: ClassVar = None
    benchmarks: Annotated[Path, HOW]
    log: Annotated[Path, HOW]
