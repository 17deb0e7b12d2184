"""config.yaml: the experiment, which names everything else."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from vltaxon.config.base import HOW, Choices, Closed, Name, Shards, Shown, doubles
from vltaxon.config.datasets import Dataset, Questions
from vltaxon.config.engines import Spec
from vltaxon.config.protocols import Prompt, Protocol
from vltaxon.config.recipes import Recipe
from vltaxon.errors import UserError

NO_TRAINING = (
    "training: is missing, and a system has a recipe: say what it learns from, as {dataset: NAME, partition: "
    "{held_out: 12}}"
)


class Calibration(Closed):
    """The texts that may have mined the published similar choices, which the target `calibrate` compares."""

    templates: tuple[str, ...] = Field(default=("{}", "a photo of a {}.", "a photo of {}."), min_length=1)
    cases: tuple[Literal["keep", "lower"], ...] = Field(default=("keep", "lower"), min_length=1)

    @model_validator(mode="after")
    def _one_label(self) -> Self:
        if wrong := [template for template in self.templates if template.count("{}") != 1]:
            raise ValueError(f'templates: {wrong} must each hold "{{}}" once')
        return self


class System(Closed):
    """A row of the table: model, adapter or none, protocol."""

    model: Name = Field(examples=["qwen2_5_vl_7b"])
    recipe: Name | None = None
    protocol: Name = Field(examples=["direct"])
    label: Shown | None = Field(None, description="Name in tables and figures.")
    word: Shown | None = Field(
        None,
        description="What the prompts call the organism; where absent the recipe's word, then the data "
        "set's.",
    )
    variant: NonNegativeInt | dict[Name, NonNegativeInt] | None = Field(
        None,
        description="Which wording of the question is asked, or which by data set; the data set's own where "
        "absent.",
    )
    rotation: NonNegativeInt = Field(
        0, description="By how many places the options are rotated before they are shown."
    )
    repeat: NonNegativeInt = Field(
        0, description="Which run of the same this is; answers are kept apart by it, and asked anew."
    )

    def variant_for(self, dataset: str) -> int | None:
        """Return the wording asked about a data set, None for the data set's own."""
        return self.variant.get(dataset) if isinstance(self.variant, dict) else self.variant


class Sweep(Closed):
    """A system asked in every combination of question wordings and rotations of the options."""

    system: Name = Field(examples=["base"])
    variants: tuple[NonNegativeInt, ...] = Field((0, 1, 2, 3, 4), min_length=1)
    rotations: tuple[NonNegativeInt, ...] = Field((0, 1, 2, 3), min_length=1)


class Repeats(Closed):
    """A system asked several times over, to see how many of its answers change from run to run."""

    system: Name = Field(examples=["base"])
    times: int = Field(3, ge=2)


class Tables(Closed):
    """Which data set of the experiment stands for each role in the papers' tables and figures."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Name]

    choices: Choices = "similar"

    @property
    def datasets(self) -> dict[str, str]:
        """Return the data set in each role."""
        return dict(self.__pydantic_extra__)


class Partition(Closed):
    """How species are parted."""

    held_out: int = Field(ge=0, description="Species never trained on.", examples=[12])
    sft_share: float = Field(0.5, gt=0, lt=1, description="Share of the others that goes to the sft part.")

    def sft(self, rest: int) -> int:
        """Return how many of the species that are not held out go to the sft part; grpo gets the others."""
        return round(self.sft_share * max(rest, 0))

    def lacks(self, rest: int) -> str | None:
        """Return in words that sft or grpo gets no species, None where both get some."""
        sft, others = self.sft(rest), max(rest, 0) - self.sft(rest)
        if sft and others:
            return None
        return (
            f"held_out {self.held_out} and sft_share {self.sft_share} leave {sft} for sft and {others} for "
            "grpo; each needs at least one"
        )


class Training(Closed):
    """What recipes learn from."""

    dataset: Name = Field(examples=["demo_plants"])
    choices: Literal["similar", "random"] = "similar"
    partition: Partition = Field(examples=[{"held_out": 12}])
    settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Values of steps that this experiment replaces, by kind of step (sft), by recipe, or by "
        "step (vl_taxon/1-sft); the later wins, and recipes based on one take its values too.",
    )


class Report(Closed):
    """What the report page is about; what is not said is chosen by `Experiment.about`."""

    dataset: Name | None = Field(
        default=None, description="Data set of the headline and of the examples; the first where absent."
    )
    choices: Choices | None = Field(
        default=None, description="Of the headline; similar, or the first kind, where absent."
    )
    system: Name | None = Field(
        default=None,
        description="System that the headline is about; where absent the first that was trained, or the last "
        "that answers questions.",
    )
    baseline: Name | None = Field(
        default=None,
        description="System that it is compared with; where absent the first that answers questions.",
    )
    examples: PositiveInt = Field(default=20, description="Images shown.")


class AboutReport(Closed):
    """What the report page is about, all of it said."""

    dataset: Name
    choices: Choices
    system: Name
    baseline: Name
    examples: PositiveInt


class Demo(Closed):
    """Size of the embedded data: images drawn per species."""

    train: PositiveInt = 10
    test: PositiveInt = 5


class Config(Closed):
    """config.yaml: the experiment."""

    seed: int = Field(0, ge=0, lt=2**32)
    datasets: tuple[Name, ...] = Field(min_length=1, examples=[["demo_plants"]])
    choices: tuple[Choices, ...] = Field(
        ("similar",),
        min_length=1,
        description="Kinds of options; `published` are asked of the data sets that have them.",
    )
    encoder: Name = Field(
        "siglip_so400m",
        description="Model file (engine zero_shot) that mines the similar distractors; the default is the "
        "benchmark's own.",
    )
    calibration: Calibration = Calibration()
    training: Training | None = Field(
        None, description="What recipes learn from; only needed where a system has a recipe."
    )
    systems: dict[Name, System] = Field(
        min_length=1, examples=[{"base": {"model": "qwen2_5_vl_7b", "protocol": "direct"}}]
    )
    main: tuple[Name, ...] = Field(
        (),
        description="Systems of the main table, figures and report, in their order; all where empty. The "
        "others are run for the paper's tables.",
    )
    tables: Tables | None = Field(
        None, description="Data sets of the papers' tables and figures, by role (targets table1 ... paper)."
    )
    compare: tuple[tuple[Name, Name], ...] = Field(
        (),
        description="Pairs of systems whose difference, the first less the second, is tested below "
        "each table that has both.",
    )
    comparisons: dict[Name, Annotated[tuple[Name, ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Further tables like the main one, by name, each of some systems (target comparisons).",
    )
    sweeps: dict[Name, Sweep] = Field(
        default_factory=dict, description="Sweeps over wordings and rotations (target sweep)."
    )
    repeats: dict[Name, Repeats] = Field(
        default_factory=dict, description="Systems asked several times (target repeats)."
    )
    shards: Shards = Field(
        "auto",
        description="Jobs that each prediction is cut into, of equal expected cost; auto: as many as suit "
        "`devices` and the size that the data set's file says. Where the number changes, tables are written "
        "anew, from the journal.",
    )
    devices: PositiveInt = Field(
        1,
        description="Devices that the run may expect, for `shards: auto`. What it uses is said to Snakemake, "
        "--resources gpu=N.",
    )
    bootstrap: PositiveInt = Field(1000, description="Resamples for the intervals.")
    report: Report = Report()

    @model_validator(mode="after")
    def _no_doubles(self) -> Self:
        made = {f"sweeps.{name}": self.swept(name) for name in self.sweeps if self._has(self.sweeps[name])}
        made |= {
            f"repeats.{name}": self.repeated(name) for name in self.repeats if self._has(self.repeats[name])
        }
        for key, systems in made.items():
            if taken := sorted(systems.keys() & self.systems.keys()):
                raise ValueError(
                    f"systems: {taken[0]} is the name of one that {key} makes; call yours otherwise"
                )
        every = [*self.systems.items(), *(one for systems in made.values() for one in systems.items())]
        for key, names in (
            ("datasets", self.datasets),
            ("choices", self.choices),
            ("main", self.main),
            *((f"comparisons.{name}", systems) for name, systems in self.comparisons.items()),
            *((f"sweeps.{name}.variants", map(str, sweep.variants)) for name, sweep in self.sweeps.items()),
            *((f"sweeps.{name}.rotations", map(str, sweep.rotations)) for name, sweep in self.sweeps.items()),
            ("labels of systems", [system.label or name for name, system in every]),
        ):
            if found := doubles(names):
                raise ValueError(f"{key}: {', '.join(found)}")
        return self

    def _has(self, spec: Sweep | Repeats) -> bool:
        return spec.system in self.systems

    demo: Demo = Demo()

    @property
    def learnt(self) -> tuple[str, ...]:
        """Return the data set that recipes learn from, or none."""
        return () if self.training is None else (self.training.dataset,)

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Return the values of steps that the experiment replaces."""
        return {} if self.training is None else self.training.settings

    @property
    def shown(self) -> dict[str, System]:
        """Return the systems of the main table, in its order."""
        return {name: self.systems[name] for name in self.main or self.systems}

    def swept(self, sweep: str) -> dict[str, System]:
        """Return the systems that a sweep consists of, by name."""
        spec = self.sweeps[sweep]
        system = self.systems[spec.system]
        return {
            f"{sweep}.v{variant}.r{rotation}": system.model_copy(
                update={
                    "variant": variant,
                    "rotation": rotation,
                    "label": f"{sweep}, wording {variant}, rotation {rotation}",
                }
            )
            for variant in spec.variants
            for rotation in spec.rotations
        }

    def repeated(self, name: str) -> dict[str, System]:
        """Return the runs of a system that is asked several times, by name.

        The first is the same run as the system's own.
        """
        repeats = self.repeats[name]
        system = self.systems[repeats.system]
        return {
            f"{name}.n{run}": system.model_copy(update={"repeat": run, "label": f"{name}, run {run}"})
            for run in range(repeats.times)
        }

    @property
    def asked(self) -> dict[str, System]:
        """Return all systems: those of the config, and those of its sweeps and repeats."""
        every = dict(self.systems)
        for sweep in self.sweeps:
            every |= self.swept(sweep)
        for name in self.repeats:
            every |= self.repeated(name)
        return every


class Experiment(Closed):
    """The validated whole: config.yaml and every file that it names."""

    config: Config
    datasets: dict[str, Dataset]
    models: dict[str, Spec]
    questions: dict[str, Questions]
    prompts: dict[str, Prompt]
    protocols: dict[str, Protocol]
    recipes: dict[str, Recipe]
    folders: Annotated[tuple[Path, ...], HOW] = (Path("config"),)  # where the small files are looked for

    @property
    def training(self) -> Training:
        """Return what recipes learn from.

        Raises:
            UserError: the config does not say it.
        """
        if self.config.training is None:
            raise UserError(NO_TRAINING)
        return self.config.training

    @property
    def about(self) -> AboutReport:
        """Return what the report is about, with what the config leaves open."""
        report, config = self.config.report, self.config
        shown = config.shown
        stages = {name: self.protocols[system.protocol].stage("answer") for name, system in shown.items()}
        answering = [name for name, stage in stages.items() if stage is not None and stage.by != "chance"]
        answering = answering or list(shown)
        trained = [name for name in answering if shown[name].recipe is not None]
        dataset = report.dataset or config.datasets[0]
        published = self.datasets[dataset].published is not None
        kinds = [kind for kind in config.choices if kind != "published" or published] or ["similar"]
        kinds = ["similar"] if "similar" in kinds else kinds
        return AboutReport(
            dataset=dataset,
            choices=report.choices or kinds[0],
            system=report.system or (trained or answering[::-1])[0],
            baseline=report.baseline or answering[0],
            examples=report.examples,
        )

    def file(self, kind: str, name: str) -> Path:
        """Return the path of a small file, `config/{kind}/{name}.yaml` of the first folder that has it.

        Args:
            kind: folder of such files: models, recipes, ...
            name: of the file, without its ending.
        """
        paths = [folder / kind / f"{name}.yaml" for folder in self.folders]
        return next((path for path in paths if path.exists()), paths[0])

    def leaf_systems(self) -> dict[str, str]:
        """Return, for each system, the system whose stage 1 serves it.

        Of all systems with the same model, recipe, word, repeat and leaf stage it is the first by name;
        those of sweeps and repeats come last. The order is by name, so that the order in the config moves no
        table, and a variant `vl_taxon_open` does not take over from `vl_taxon`.
        """
        first: dict[tuple[object, ...], str] = {}
        owners: dict[str, str] = {}
        for name, system in sorted(
            self.config.asked.items(), key=lambda item: (item[0] not in self.config.systems, item[0])
        ):
            stage = self.protocols[system.protocol].stage("leaf")
            owners[name] = first.setdefault(
                (system.model, system.recipe, system.word, system.repeat, stage), name
            )
        return owners

    def step_recipe(self, recipe: str, step: str) -> str:
        """Return the recipe that trains a step, so that recipes that share the step train it once.

        It is the furthest one that the recipe is based on which has the same steps up to this one.

        Args:
            recipe: name of the recipe.
            step: name of its step, `2-grpo`.
        """
        mine = self.recipes[recipe]
        upto = mine.step_names.index(step) + 1
        if mine.based_on is None:
            return recipe
        base = self.recipes[mine.based_on]
        same = (base.word, base.steps[:upto]) == (mine.word, mine.steps[:upto])
        return self.step_recipe(mine.based_on, step) if same else recipe
