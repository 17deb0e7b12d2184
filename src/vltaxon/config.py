"""The config: closed models for config.yaml and for every small file beside it, all errors reported at once, in words.

`config.yaml` names things; each thing is one file: config/{datasets,models,prompts,questions,protocols,recipes}/NAME.yaml.
`load` reads all files that are named, checks them one by one and against each other, and returns the one object in use.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from vltaxon import batches, prompts
from vltaxon.errors import UserError, suggest
from vltaxon.parsing import Form

CUB200_CLASSES = Path(__file__).parent / "data" / "sources" / "cub200_classes.csv"  # the 200 classes of CUB, with their ranks

M = TypeVar("M", bound=BaseModel)
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
Choices = Literal["similar", "random", "published"]

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
MOVING = "main"  # the one revision that is no commit and may be named all the same


class Closed(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Closed):
    """Where a raw file is to be had: one of the two."""

    url: str | None = Field(None, description="http(s) address: the original or a mirror.")
    path: Path | None = Field(None, description="A local copy.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.url is None) == (self.path is None):
            raise ValueError("needs one of url and path")
        if self.url is not None and not re.fullmatch(r"https?://[^/\s]+/\S*", self.url):
            raise ValueError(f'url: "{self.url}" is no http or https address')
        return self

    def __str__(self) -> str:
        return str(self.url or self.path)


class RawFile(Closed):
    """A raw file with its checksum, verified before anything reads it: downloaded, or linked where it is here already."""

    source: Source
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{32}$", to_lower=True)] | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)] | None = None
    bytes: PositiveInt | None = Field(None, description="Exact size, where known: another is refused before the download starts.")
    gigabytes: PositiveFloat | None = Field(
        None, description="About how large it is, where no more is known, for `snakemake plan`."
    )
    file: str | None = Field(None, description="Name of the file, where the address does not end in it.")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not (self.md5 or self.sha256):
            raise ValueError("needs md5 or sha256; a local file without checksum is given by its path alone")
        if not re.fullmatch(r"\w[\w+-]*\.[\w.+-]*\w", self.name):
            raise ValueError(f'file: "{self.name}" (of {self.source}) is no file name with an ending; give one as `file`')
        return self

    @property
    def name(self) -> str:
        """Name of the file, from its address unless given."""
        address = unquote(urlsplit(self.source.url).path) if self.source.url else str(self.source.path)
        return self.file or address.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Where it lies once it is verified, whatever its source."""
        return Path("results/raw") / self.name

    @property
    def checksum(self) -> str:
        """What makes it this file and no other."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}"


_TAGS = ("(raw)", "(path)", "(number)", "(word)")  # of alternatives, which errors are not to name


def _path_or_raw(value: Any) -> str:
    """Which of the two a value means, so that an error is about that one."""
    return "(raw)" if isinstance(value, Mapping | RawFile) else "(path)"


Shards = Annotated[
    Annotated[PositiveInt, Tag("(number)")] | Annotated[Literal["auto"], Tag("(word)")],
    Discriminator(lambda value: "(word)" if isinstance(value, str) else "(number)"),
]
Raw = Annotated[Annotated[RawFile, Tag("(raw)")] | Annotated[Path, Tag("(path)")], Discriminator(_path_or_raw)]


def local(file: Path | RawFile) -> Path:
    """Path of a raw file on this machine, once it is there."""
    return file.path if isinstance(file, RawFile) else file


class Split(Closed):
    """Where one split of a data set comes from."""

    archive: Raw | None = Field(None, description="The raw archive (inat21, cub200): a path, or its source and checksum.")
    annotations: Raw | None = Field(None, description="The JSON archive beside it (inat21), likewise.")
    folder: Path | None = Field(None, description="The data set's folder, as downloaded (terra_incognita).")
    table: Path | None = Field(
        None,
        description="CSV or Parquet: path (from the table's folder), a column per rank, and split where one table serves both "
        "splits (folder).",
    )
    images_per_leaf: PositiveInt | None = Field(None, description="Draw this many images per leaf, seeded; all where absent.")

    @property
    def stem(self) -> str:
        """Name of the archive without its endings: `val` for `val.tar.gz`; none where there is no archive."""
        return "" if self.archive is None else self.archive.name.removesuffix(".gz").removesuffix(".tgz").removesuffix(".tar")

    @property
    def raw(self) -> dict[str, RawFile]:
        """The files with a source, by key."""
        given = {"archive": self.archive, "annotations": self.annotations}
        return {key: file for key, file in given.items() if isinstance(file, RawFile)}

    def here(self) -> Self:
        """The same, with the paths of the verified files in place of their sources."""
        return self.model_copy(update={key: file.path for key, file in self.raw.items()})


class Published(Closed):
    """The benchmark's own questions about a data set's test images."""

    annotations: Path = Field(description="The benchmark's JSON lines, as downloaded.")
    blob: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")] | None = Field(
        None, description="Its git blob digest (git hash-object FILE), verified before use."
    )
    taxonomy: Path | None = Field(None, description="The benchmark's JSON of leaf -> path; rows and options must be of it.")
    parts: PositiveInt = Field(
        2, description="How many last parts of an image's path tell it: 2 are class folder and file, 1 is the file name."
    )


class Size(Closed):
    """How large a data set is, said for the estimate of costs; once it is read, what was read is counted."""

    leaves: PositiveInt = Field(description="Leaves that it has.")
    test: PositiveInt = Field(description="Test images, before any draw.")
    pixels: PositiveInt = Field(description="Pixels of a typical image.")


class Dataset(Closed):
    """A data set: where it comes from, its ranks, and how its questions are worded."""

    description: str = ""
    source: Literal["inat21", "cub200", "terra_incognita", "folder"] = Field(description="The reader of the raw data.")
    kingdom: str | None = Field(None, description="Keep this kingdom only (inat21).")
    classes: Path | None = Field(
        None, description="CSV with class_name, order, family, genus, species (cub200); where absent, the one of the package."
    )
    subset: Literal["known", "novel"] | None = Field(None, description="Which of the two halves (terra_incognita).")
    max_rejected: float = Field(
        0.001, ge=0, le=1, description="Share of the chosen images that may be broken or absent; beyond it ingest stops."
    )
    word: str = Field(description="What the prompts call the organism: plant, animal, bird.")
    ranks: tuple[str, ...] = Field(min_length=1, description="Names of the levels, root first.")
    scored_levels: tuple[PositiveInt, ...] = Field(min_length=1, description="1-based levels that count.")
    questions: Name = Field(description="File of question wordings in config/questions.")
    variant: int = Field(0, ge=0, description="Which of the wordings is asked.")
    train: Split | None = Field(None, description="Images to learn from.")
    test: Split = Field(description="Images to be scored on.")
    published: Published | None = Field(None, description="The benchmark's own questions, where it has any about these images.")
    size: Size | None = Field(None, description="What is known of it before it is here, for `snakemake plan`.")
    licence: str = Field(description="Terms of use of the images.")

    @property
    def tested(self) -> int | None:
        """Test images, as the file tells before they are read: of the size, or of the draw from each of its leaves."""
        each = self.test.images_per_leaf
        return None if self.size is None else self.size.test if each is None else min(each * self.size.leaves, self.size.test)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that it has."""
        return {key: split for key, split in (("train", self.train), ("test", self.test)) if split is not None}

    def here(self) -> Self:
        """The same, with the paths of verified files in place of their sources: what jobs see."""
        return self.model_copy(update={key: split.here() for key, split in self.splits.items()})

    @model_validator(mode="after")
    def _levels_exist(self) -> Self:
        if wrong := [level for level in self.scored_levels if level > len(self.ranks)]:
            raise ValueError(f"scored_levels {wrong}: out of range, there are {len(self.ranks)} ranks")
        if list(self.scored_levels) != sorted(set(self.scored_levels)):
            raise ValueError("scored_levels: must rise, without repetition")
        if len(set(self.ranks)) < len(self.ranks):
            raise ValueError(f"ranks: {list(self.ranks)} names a rank twice")
        splits = [split for split in (self.train, self.test) if split is not None]
        if self.source == "inat21" and any(split.annotations is None for split in splits):
            raise ValueError("annotations: inat21 needs the JSON archive of every split")
        wanted = {"terra_incognita": "folder", "folder": "table"}.get(self.source, "archive")
        for split in splits:
            given = [key for key in ("archive", "folder", "table") if getattr(split, key) is not None]
            if given != [wanted]:
                raise ValueError(f"train and test: {self.source} takes `{wanted}`, and was given {', '.join(given) or 'none'}")
        if (self.source == "terra_incognita") != (self.subset is not None):
            raise ValueError("subset: terra_incognita needs one, known or novel; no other source has any")
        if self.source == "terra_incognita" and self.train is not None:
            raise ValueError("train: terra_incognita has no training split")
        if self.train is not None and self.train.archive == self.test.archive and self.source == "inat21":
            raise ValueError("train and test name the same archive")
        return self


class Speed(Closed):
    """What one device does with a model, for the estimate of costs before any answer was timed."""

    prompt: PositiveFloat = Field(description="Prompt tokens a second, image tokens among them.")
    new: PositiveFloat = Field(description="New tokens a second, all requests of a batch together.")
    train: PositiveFloat = Field(description="Tokens a second, forward and backward.")
    source: str = Field(description="Where the figures come from.")


class Vlm(Closed):
    """A generative model, loaded by `from_pretrained`."""

    engine: Literal["transformers"]
    description: str = ""
    checkpoint: str = Field(description="Local folder, or hub id.")
    revision: str | None = Field(
        None,
        description="Commit of the hub repository, 40 hex digits; required for a hub id. `main`, where no commit is known, is "
        "looked up when the model is loaded, and its commit of that moment is stamped on all that comes of it.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    pixels: PositiveInt = Field(description="Pixel budget: larger images are scaled down to it, once, for every use.")
    min_pixels: PositiveInt = Field(3136, description="Smaller images are scaled up to it.")
    batch_size: PositiveInt = Field(32, description="Requests generated together, at most.")
    batch_tokens: PositiveInt = Field(65_536, description="Tokens of these together, at most; prompts, images and new ones.")
    max_new_tokens: PositiveInt | None = Field(None, description="Cap on a stage's own limit, for a model of short words.")
    speed: Speed | None = Field(None, description="For `snakemake plan`, as long as no answer of the model was timed.")
    threads: PositiveInt = Field(8, description="CPU cores of a job that runs or trains it, at most those of Snakemake.")
    gpus: PositiveInt = Field(1, description="Devices that hold its weights.")
    train_gpus: PositiveInt | None = Field(
        None, description="Devices that train it, a process on each, where several share the work; else one process on `gpus`."
    )
    distributed: Literal["ddp", "fsdp"] = Field(
        "ddp", description="What these processes hold: all weights each, or a share. Its file is in config/accelerate."
    )
    memory: PositiveInt = Field(32, description="GB of main memory of a job that runs or trains it, asked of a cluster.")
    licence: str

    @property
    def processes(self) -> int:
        """Processes of a training job."""
        return self.train_gpus or 1

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.processes > 1 and self.gpus > 1 and self.distributed == "ddp":
            raise ValueError(
                f"train_gpus: with ddp each of {self.train_gpus} devices holds all weights, which take {self.gpus} (`gpus`); "
                "distributed: fsdp gives each a share"
            )
        return self

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if not Path(self.checkpoint).is_dir() and not self.revision:
            raise ValueError(f'"{self.checkpoint}" is no local folder, and a hub id needs a revision')
        if self.revision and self.revision != MOVING and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(
                f'revision: "{self.revision}" is no commit (40 hex digits). Branches and tags move; give the commit, or '
                f'"{MOVING}" where none is known'
            )
        if self.min_pixels > self.pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above pixels {self.pixels}")
        return self


class Price(Closed):
    """What an endpoint bills for a million tokens, in any one currency."""

    input: NonNegativeFloat = Field(description="Prompt tokens, image tokens among them.")
    output: NonNegativeFloat = Field(description="Completion tokens.")
    cached: NonNegativeFloat | None = Field(None, description="Prompt tokens found in a cache; as input where absent.")


class Managed(Closed):
    """vLLM, started by the job that asks it and ended with it."""

    model: Name = Field(description="File in config/models, of engine transformers: whose weights and adapters are served.")
    environment: Path | None = Field(None, description="Virtual environment that has vLLM; where absent, `vllm` on the PATH.")
    arguments: tuple[str, ...] = Field((), description="Further arguments of `vllm serve`.")
    lora: bool = Field(False, description="Serve a recipe's adapter beside the base; else merged into the weights.")
    replicas: PositiveInt = Field(1, description="Servers of a job, each on devices of its own.")
    startup: PositiveInt = Field(1800, description="Seconds that it may take until it answers.")


class Endpoint(Closed):
    """A generative model behind an OpenAI-compatible endpoint: one that is there, or vLLM started for the job.

    Only `shaping` fields make a job run again; the others say where and how to ask, and are read when the job starts.
    """

    engine: Literal["server"]
    description: str = ""
    url: str | None = Field(None, description="Base address, to which /chat/completions is added: https://HOST/v1.")
    managed: Managed | None = Field(None, description="In place of an address: what to serve.")
    model: str | None = Field(None, description="Name that requests carry; for a managed server the file's name where absent.")
    key: str | None = Field(None, description="NAME of the environment variable that holds the key, never the key.")
    system: str | None = Field(None, description="System text in place of the prompts' own.")
    pixels: PositiveInt = Field(description="Pixel budget: larger images are scaled down to it, once, for every use.")
    min_pixels: PositiveInt = Field(3136, description="Smaller images are scaled up to it.")
    max_new_tokens: PositiveInt | None = Field(None, description="Cap on a stage's own limit, for a model of short words.")
    limit_as: Literal["max_tokens", "max_completion_tokens"] = Field("max_tokens", description="What the limit is called there.")
    temperature: NonNegativeFloat | None = Field(0.0, description="0 is greedy; null: not sent, for models that take none.")
    seed: int | None = Field(None, description="Sent where given.")
    detail: Literal["auto", "low", "high"] | None = Field(None, description="How closely the endpoint looks (OpenAI).")
    body: dict[str, Any] = Field(default_factory=dict, description="Further fields of every request.")
    image_as: Literal["data", "path"] = Field("data", description="Images in the request, or as files that the server may read.")
    media: Path | None = Field(None, description="path: folder for these files, allowed on the server; not of a managed one.")
    concurrency: PositiveInt = Field(32, description="Requests at a time, at most; fewer as long as the endpoint is overloaded.")
    requests_per_minute: PositiveFloat | None = None
    tokens_per_minute: PositiveFloat | None = Field(None, description="Of prompts and completions together.")
    timeout: PositiveFloat = Field(120, description="Seconds for one answer.")
    attempts: PositiveInt = Field(8, description="How often a request is sent before it is an error.")
    price: Price | None = None
    budget: PositiveFloat | None = Field(
        None, description="Ceiling of what all jobs of this model together spend, in the currency of `price`; then it stops."
    )
    max_errors: float = Field(
        0.0, ge=0, le=1, description="Share of a job's requests that may end as errors; beyond it the job fails."
    )
    image_tokens: PositiveInt | None = Field(None, description="What an image counts, where that does not depend on its size.")
    threads: PositiveInt = Field(2, description="CPU cores of a job that asks it.")
    speed: Speed | None = Field(None, description="For `snakemake plan`, of a managed server, until answers are timed.")
    licence: str = Field(description="Terms of the model, or of the service.")

    shaping: ClassVar[frozenset[str]] = frozenset(
        {
            "engine",
            "model",
            "system",
            "pixels",
            "min_pixels",
            "max_new_tokens",
            "limit_as",
            "temperature",
            "seed",
            "detail",
            "body",
        }
    )

    @field_validator("key")
    @classmethod
    def _name_of_a_variable(cls, value: str | None) -> str | None:
        if value is not None and (not re.fullmatch(r"[A-Z][A-Z0-9_]{1,63}", value) or sum(c.isdigit() for c in value) > 4):
            raise ValueError("key: give the NAME of an environment variable (OPENAI_API_KEY), never the key itself")
        return value

    @field_validator("url")
    @classmethod
    def _plain_address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/\s@?#]+(/[^\s@?#]*)?", value):
            raise ValueError("url: give http(s)://HOST/PATH, without user, key or query")
        return value.rstrip("/") if value is not None else None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.url is None) == (self.managed is None):
            raise ValueError("needs one of url and managed")
        if self.url is not None and self.model is None:
            raise ValueError("model: the name that requests carry is missing")
        if self.managed is not None and (given := [key for key in ("key", "price", "budget") if getattr(self, key) is not None]):
            raise ValueError(f"{given[0]}: is for a url; a managed server is your own")
        if self.budget is not None and self.price is None:
            raise ValueError("budget: needs price")
        if self.url is not None and (self.image_as == "path") != (self.media is not None):
            raise ValueError("media: needed where image_as is path, and only there")
        if self.min_pixels > self.pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above pixels {self.pixels}")
        return self


class Clip(Closed):
    """A dual encoder of open_clip: mines distractors and answers zero-shot."""

    engine: Literal["zero_shot"]
    description: str = ""
    name: str = Field(description="open_clip name, hf-hub:OWNER/REPOSITORY or local-dir:FOLDER.")
    pretrained: str | None = Field(None, description="open_clip tag of the weights; none for hf-hub: and local-dir: names.")
    revision: Commit | None = Field(None, description="Commit of the hub repository; required for hf-hub: names, else none.")
    template: str = Field("a photo of a {}.", description="Text of a label; {} is the taxon.")
    case: Literal["keep", "lower"] = "keep"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: PositiveInt = 64
    threads: PositiveInt = Field(8, description="CPU cores of a job that embeds with it: images made ready at once.")
    memory: PositiveInt = Field(16, description="GB of main memory of a job that runs it, asked of a cluster.")
    licence: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.template.count("{}") != 1:
            raise ValueError('template: must hold "{}" once')
        if self.name.startswith("hf-hub:") and not self.revision:
            raise ValueError(f'"{self.name}" is a hub id, which needs a revision')
        if self.revision and not self.name.startswith("hf-hub:"):
            raise ValueError(f'revision: open_clip has none for "{self.name}", only for hf-hub:OWNER/REPOSITORY')
        if self.pretrained and self.name.startswith(("hf-hub:", "local-dir:")):
            raise ValueError(f'pretrained: "{self.name}" brings its own weights')
        return self


class Calibration(Closed):
    """The texts that may have mined the published similar choices, which the target `calibrate` compares."""

    templates: tuple[str, ...] = Field(default=("{}", "a photo of a {}.", "a photo of {}."), min_length=1)
    cases: tuple[Literal["keep", "lower"], ...] = Field(default=("keep", "lower"), min_length=1)

    @model_validator(mode="after")
    def _one_label(self) -> Self:
        if wrong := [template for template in self.templates if template.count("{}") != 1]:
            raise ValueError(f'templates: {wrong} must each hold "{{}}" once')
        return self


class Chance(Closed):
    """Answers at random, seeded: the floor of every table."""

    engine: Literal["chance"]
    description: str = ""
    licence: str = "none"


class Model(Closed):
    """A model file: what is loaded, and by which engine."""

    spec: Annotated[Vlm | Endpoint | Clip | Chance, Field(discriminator="engine")]


class Prompt(Closed):
    """A template of config/prompts. Placeholders: word, rank, ranks, question, options, leaf."""

    source: str = Field(description="Where the text comes from.")
    system: str | None = None
    text: str

    @model_validator(mode="after")
    def _known_fields(self) -> Self:
        if odd := prompts.fields(self.text) - prompts.FIELDS:
            raise ValueError(f"text: placeholder {sorted(odd)} is unknown; there are {sorted(prompts.FIELDS)}")
        return self


class Questions(Closed):
    """Wordings of the benchmark's question, by variant. Placeholders: word, rank."""

    source: str
    variants: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _known_fields(self) -> Self:
        for text in self.variants:
            if odd := prompts.fields(text) - {"word", "rank"}:
                raise ValueError(f"variants: placeholder {sorted(odd)} is unknown; there are ['rank', 'word']")
        return self


class Stage(Closed):
    """One thing that a system is asked."""

    name: Literal["leaf", "answer"] = Field(description="leaf: name the taxon, once an image; answer: each question.")
    by: Literal["model", "lookup", "similarity", "chance"] = Field("model", description="Who answers.")
    prompt: Name | None = Field(None, description="File in config/prompts; needed where the model answers.")
    condition: Literal["none", "leaf", "gold"] = Field(
        "none", description="The leaf that the prompt is given: none, the one that stage 1 named, or the true one (an oracle)."
    )
    form: Form = Field("tagged", description="How the answer is marked; listing (leaf): `Rank: taxon` for every rank, no tags.")
    read: Literal["text", "letters"] = Field(
        "text", description="answer: what the model writes; or, in one forward pass, which option's letter is the likeliest to."
    )
    constrained: bool = Field(False, description="leaf: only lineages of the taxonomy can be written, each to its end.")
    max_new_tokens: PositiveInt = 512
    repetition_penalty: PositiveFloat = Field(1.0, description="1 is plain greedy; the checkpoint's own value is not used.")
    samples: PositiveInt = Field(1, description="Completions drawn for each prompt; one of them counts, all are kept.")
    temperature: Annotated[float, Field(ge=0, le=10, description="0 is greedy; above, tokens are drawn.")] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1, description="Drawn from the likeliest tokens of this probability together.")] = 1.0
    choose: Literal["vote", "best"] = Field(
        "vote",
        description="Which of several samples counts: the first with the answer that most of them give; or (leaf) the first that "
        "names the most specific true taxon, and of these the one with most of the true lineage (an oracle).",
    )

    @model_validator(mode="after")
    def _drawn(self) -> Self:
        if (self.samples > 1 or self.top_p < 1) and not self.temperature:
            raise ValueError("samples and top_p are for a temperature above 0, where tokens are drawn")
        if self.temperature and (self.by != "model" or self.constrained or self.read == "letters"):
            raise ValueError("temperature: for stages in which the model writes freely")
        if self.choose == "best" and (self.name != "leaf" or self.samples == 1):
            raise ValueError("choose: best is for several samples of the leaf stage")
        return self

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.by == "model") != (self.prompt is not None):
            raise ValueError("prompt: needed where `by` is model, and only there")
        if self.name == "leaf" and (self.by != "model" or self.condition == "leaf"):
            raise ValueError("the leaf stage is answered by the model, and it is what names the leaf: no condition but gold")
        if self.name != "leaf" and (self.constrained or self.form == "listing"):
            raise ValueError("constrained and form listing are for the leaf stage")
        if self.read == "letters" and (self.name != "answer" or self.by != "model" or self.form != "bare"):
            raise ValueError("read: letters is for the answer stage, answered by the model in form bare")
        return self


class Protocol(Closed):
    """What a system is asked: a list of stages, in order."""

    description: str
    stages: tuple[Stage, ...] = Field(min_length=1, max_length=2)

    @model_validator(mode="after")
    def _order(self) -> Self:
        names = [stage.name for stage in self.stages]
        if names not in (["leaf"], ["answer"], ["leaf", "answer"]):
            raise ValueError(f"stages: {names}; legal are leaf, answer, or leaf then answer")
        for stage in self.stages:
            if stage.condition != "leaf" and stage.by != "lookup":
                continue
            if names[0] != "leaf":
                raise ValueError(f"stage {stage.name}: needs a leaf stage before it")
            if self.stages[0].choose == "best":
                raise ValueError(f"stage {stage.name}: choose: best is an oracle, from which no answers are made")
        return self

    def stage(self, name: str) -> Stage | None:
        """The stage of a name, None where the protocol has none."""
        return next((stage for stage in self.stages if stage.name == name), None)

    @property
    def engines(self) -> set[str]:
        """Engines whose models can follow this protocol."""
        generative = {"transformers", "server"}
        kinds = {"model": generative, "lookup": generative, "similarity": {"zero_shot"}, "chance": {"chance"}}
        local = [stage.constrained or stage.read == "letters" for stage in self.stages]  # which no endpoint offers
        can = [kinds[stage.by] - ({"server"} if own else set()) for stage, own in zip(self.stages, local, strict=True)]
        return set.intersection(*can)


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

    targets: Annotated[str, Field(description="Regex over module names.")] = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


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
    levels: Literal["all", "one"] = Field("all", description="answer: every scored level of an image, or one drawn at random.")
    turns: Literal["single", "multi"] = Field(
        "single", description="multi: one conversation asks all levels of an image in turn; loss on every answer (sft)."
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
            raise ValueError("condition: own and mixed are for the answer task; naming the leaf is what they come from")
        if self.task == "answer" and self.form == "listing":
            raise ValueError("form: listing is for the leaf task")
        if self.turns == "multi" and (self.task != "answer" or self.levels != "all" or self.condition != "none"):
            raise ValueError("turns: multi is for the answer task, with all levels and no condition")
        return self


class Step(Closed):
    """One training step: SFT or GRPO on a part of the species, from the step before it."""

    kind: Literal["sft", "grpo"]
    part: Literal["sft", "grpo", "all"] = Field(description="Species half; all is both halves, never the held-out species.")
    split: Literal["train"] = Field("train", description="Images of the training split only.")
    samples: tuple[Samples, ...] = Field(min_length=1)
    choices: Literal["similar", "random"] | None = Field(None, description="Options learnt from; the experiment's where absent.")
    lora: Lora = Lora()
    learning_rate: PositiveFloat
    epochs: PositiveFloat = 1.0
    batch_size: PositiveInt = Field(128, description="Samples (sft) or completions (grpo) of one optimiser step, all devices.")
    device_batch_size: PositiveInt = Field(8, description="Of these, how many at once on a device.")
    checkpoint_minutes: NonNegativeInt = Field(
        10, description="How often what a killed training goes on from is written; 0: after every optimiser step."
    )
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(0.03, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    group_size: PositiveInt = Field(8, description="grpo: completions per prompt.")
    kl: float = Field(0.4, ge=0, description="grpo: coefficient of the KL term.")
    temperature: PositiveFloat = 1.0
    clip: PositiveFloat = 0.2
    max_new_tokens: PositiveInt = 512
    zero_variance_limit: float = Field(0.95, gt=0, le=1, description="grpo: warn above this share of groups without variance.")
    generate: Literal["transformers", "vllm_colocate", "vllm_server"] = Field(
        "transformers",
        description="grpo: what writes the completions. vLLM, on the training devices or at the address in VLTAXON_VLLM_SERVER "
        "(`trl vllm-serve`), is faster and was not yet run by us.",
    )

    # How a step is run, not what it learns: a change of these retrains nothing, and a killed training goes on all the same.
    running: ClassVar[frozenset[str]] = frozenset({"device_batch_size", "checkpoint_minutes"})

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
        if self.own and len({(s.prompt, s.form) for s in self.samples if s.task == "leaf" and s.condition == "none"}) != 1:
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
    word: str | None = Field(None, description="What the prompts call the organism; the data set's word where absent.")
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
            raise ValueError("steps: continue one adapter, so give them the same `lora` rank, alpha and targets")
        return self


class System(Closed):
    """A row of the table: model, adapter or none, protocol."""

    model: Name
    recipe: Name | None = None
    protocol: Name
    label: str | None = Field(None, description="Name in tables and figures.")
    word: str | None = Field(
        None, description="What the prompts call the organism; where absent the recipe's word, then the data set's."
    )
    variant: NonNegativeInt | dict[Name, NonNegativeInt] | None = Field(
        None, description="Which wording of the question is asked, or which by data set; the data set's own where absent."
    )
    rotation: NonNegativeInt = Field(0, description="By how many places the options are rotated before they are shown.")
    repeat: NonNegativeInt = Field(0, description="Which run of the same this is; answers are kept apart by it, and asked anew.")

    def variant_for(self, dataset: str) -> int | None:
        """The wording asked about a data set, None for the data set's own."""
        return self.variant.get(dataset) if isinstance(self.variant, dict) else self.variant


class Sweep(Closed):
    """A system asked in every combination of question wordings and rotations of the options."""

    system: Name
    variants: tuple[NonNegativeInt, ...] = Field((0, 1, 2, 3, 4), min_length=1)
    rotations: tuple[NonNegativeInt, ...] = Field((0, 1, 2, 3), min_length=1)


class Repeats(Closed):
    """A system asked several times over, to see how many of its answers change from run to run."""

    system: Name
    times: int = Field(3, ge=2)


class Tables(Closed):
    """Which data sets of the experiment stand for those of the paper's tables and figures."""

    animal: Name
    plant: Name
    bird: Name
    choices: Choices = "similar"


class Partition(Closed):
    """How species are parted."""

    held_out: int = Field(ge=0, description="Species never trained on.")
    sft_share: float = Field(0.5, gt=0, lt=1, description="Share of the others that goes to the sft part.")


class Training(Closed):
    """What recipes learn from."""

    dataset: Name
    choices: Literal["similar", "random"] = "similar"
    partition: Partition
    settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Values of steps that this experiment replaces, by kind (sft, grpo), by recipe, or by step (vl_taxon/1-sft); "
        "the later wins, and recipes based on one take its values too.",
    )


class Report(Closed):
    """What the report page is about."""

    dataset: Name = Field(description="Data set of the headline and of the examples.")
    choices: Choices = "similar"
    system: Name = Field(description="System that the headline is about.")
    baseline: Name = Field(description="System that it is compared with.")
    examples: PositiveInt = Field(20, description="Images shown.")


class Demo(Closed):
    """Size of the embedded data: images drawn per species."""

    train: PositiveInt = 10
    test: PositiveInt = 5


class Config(Closed):
    """config.yaml: the experiment."""

    seed: int = Field(0, ge=0)
    datasets: tuple[Name, ...] = Field(min_length=1)
    choices: tuple[Choices, ...] = Field(
        ("similar",), min_length=1, description="Kinds of options; `published` are asked of the data sets that have them."
    )
    encoder: Name = Field(description="Model file (engine zero_shot) that mines the similar distractors.")
    calibration: Calibration = Calibration()
    training: Training
    systems: dict[Name, System] = Field(min_length=1)
    main: tuple[Name, ...] = Field(
        (),
        description="Systems of the main table, figures and report, in their order; all where empty. The others are run for "
        "the paper's tables.",
    )
    tables: Tables | None = Field(None, description="Data sets of the paper's tables and figures (targets table1 ... paper).")
    comparisons: dict[Name, Annotated[tuple[Name, ...], Field(min_length=1)]] = Field(
        default_factory=dict, description="Further tables like the main one, by name, each of some systems (target comparisons)."
    )
    sweeps: dict[Name, Sweep] = Field(default_factory=dict, description="Sweeps over wordings and rotations (target sweep).")
    repeats: dict[Name, Repeats] = Field(default_factory=dict, description="Systems asked several times (target repeats).")
    shards: Shards = Field(
        "auto",
        description="Jobs that each prediction is cut into, of equal expected cost; auto: as many as suit `devices` and the size "
        "that the data set's file says. Where the number changes, tables are written anew, from the journal.",
    )
    devices: PositiveInt = Field(
        1,
        description="Devices that the run may expect, for `shards: auto`. What it uses is said to Snakemake, --resources gpu=N.",
    )
    bootstrap: PositiveInt = Field(1000, description="Resamples for the intervals.")
    report: Report

    @model_validator(mode="after")
    def _no_doubles(self) -> Self:
        labels = [system.label or name for name, system in self.systems.items()]
        for key, names in (
            ("datasets", self.datasets),
            ("choices", self.choices),
            ("main", self.main),
            ("labels of systems", labels),
        ):
            if double := sorted({name for name in names if list(names).count(name) > 1}):
                raise ValueError(f"{key}: {', '.join(double)} stands twice")
        return self

    demo: Demo = Demo()

    @property
    def shown(self) -> dict[str, System]:
        """The systems of the main table, in its order."""
        return {name: self.systems[name] for name in self.main or self.systems}

    def swept(self, sweep: str) -> dict[str, System]:
        """The systems that a sweep consists of, by name."""
        given = self.sweeps[sweep]
        system = self.systems[given.system]
        return {
            f"{sweep}.v{variant}.r{rotation}": system.model_copy(
                update={"variant": variant, "rotation": rotation, "label": f"{sweep}, wording {variant}, rotation {rotation}"}
            )
            for variant in given.variants
            for rotation in given.rotations
        }

    def repeated(self, name: str) -> dict[str, System]:
        """The runs of a system that is asked several times, by name; the first is the same run as the system's own."""
        given = self.repeats[name]
        system = self.systems[given.system]
        return {
            f"{name}.n{run}": system.model_copy(update={"repeat": run, "label": f"{name}, run {run}"})
            for run in range(given.times)
        }

    @property
    def asked(self) -> dict[str, System]:
        """All systems: those of the config, and those of its sweeps and repeats."""
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
    models: dict[str, Vlm | Endpoint | Clip | Chance]
    questions: dict[str, Questions]
    prompts: dict[str, Prompt]
    protocols: dict[str, Protocol]
    recipes: dict[str, Recipe]

    def leaf_systems(self) -> dict[str, str]:
        """Whose stage 1 serves each system: of those alike in model, recipe, word, repeat and leaf stage the first by name.

        By name, so that their order in the config moves no table, and a variant `vl_taxon_open` does not take that of `vl_taxon`.
        Those of sweeps and repeats come last.
        """
        first: dict[tuple[Any, ...], str] = {}
        found: dict[str, str] = {}
        for name, system in sorted(self.config.asked.items(), key=lambda item: (item[0] not in self.config.systems, item[0])):
            stage = self.protocols[system.protocol].stage("leaf")
            found[name] = first.setdefault((system.model, system.recipe, system.word, system.repeat, stage), name)
        return found

    def step_recipe(self, recipe: str, step: str) -> str:
        """The recipe that trains a step: the furthest that `recipe` is based on with the same steps up to it, so it runs once."""
        mine = self.recipes[recipe]
        upto = mine.step_names.index(step) + 1
        if mine.based_on is None:
            return recipe
        base = self.recipes[mine.based_on]
        same = (base.word, base.steps[:upto]) == (mine.word, mine.steps[:upto])
        return self.step_recipe(mine.based_on, step) if same else recipe


_KINDS: dict[str, type[Closed]] = {
    "datasets": Dataset,
    "models": Model,
    "questions": Questions,
    "prompts": Prompt,
    "protocols": Protocol,
    "recipes": Recipe,
}


def _problems(error: ValidationError, model: type[BaseModel], where: str) -> list[str]:
    """Pydantic's errors as sentences: file, key, what is wrong, nearest legal name for an unknown key."""
    lines = []
    deeper = {item["loc"][:i] for item in error.errors() for i in range(1, len(item["loc"]))}
    for item in error.errors():
        if item["type"] == "too_short" and item["loc"] in deeper:
            continue  # a list is too short only because its items were refused
        path = [str(part) for part in item["loc"][2 * (model is Model) :] if part not in _TAGS]
        key = ".".join(path)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key; legal is {suggest(path[-1], _legal_keys(model, item['loc']))}"
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] == "literal_error":
            allowed = [part.strip(" '") for part in str(item["ctx"]["expected"]).replace(" or ", ", ").split(",")]
            message = f'"{item["input"]}" is not {suggest(str(item["input"]), allowed)}'
        elif item["type"] == "union_tag_invalid":
            given, allowed = item["ctx"]["tag"], [p.strip(" '") for p in str(item["ctx"]["expected_tags"]).split(",")]
            message, key = f'engine "{given}" is not {suggest(given, allowed)}', ""
        elif not message.startswith(("scored", "train", "device", "group")) and "input" in item and item["type"] != "value_error":
            message = f"{message} (given: {item['input']!r})"
        lines.append(f"{where}: {key}: {message}" if key else f"{where}: {message}")
    return lines


def _legal_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Keys allowed beside the unknown key at `loc`, found by walking the JSON schema."""
    schema = model.model_json_schema()
    node: Mapping[str, Any] = schema
    for part in loc[:-1]:
        node = _resolve(node, schema)
        if isinstance(part, int):
            node = node.get("items", node)
        elif part in node.get("properties", {}):
            node = node["properties"][part]
        elif "patternProperties" in node:
            node = next(iter(node["patternProperties"].values()))
        elif "oneOf" in node:
            mapping = node.get("discriminator", {}).get("mapping", {})
            node = {"$ref": mapping[part]} if part in mapping else node
    return list(_resolve(node, schema).get("properties", {}))


def _resolve(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references and alternatives to the object they mean."""
    while not node.get("properties"):
        options = node.get("anyOf") or (node.get("oneOf") if "discriminator" not in node else None)
        if options:
            node = next((option for option in options if "$ref" in option or "oneOf" in option), options[0])
        elif "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        else:
            break
    return node


class _Strict(yaml.SafeLoader):
    """Refuses a key that stands twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if double := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f'key "{double[0]}" stands twice', node.start_mark)
        return super().construct_mapping(node, deep)


def _yaml(path: Path, problems: list[str]) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Strict) or {}
    except FileNotFoundError:
        problems.append(f"{path}: no such file")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"{path}: not readable as YAML: {' '.join(str(error).split())}")
    return None


def read_model(path: Path) -> dict[str, Any]:
    """The content of a model's file, unchecked, as a job reads what it is not planned by.

    Raises:
        UserError: it is gone, or no YAML any more.
    """
    problems: list[str] = []
    content = _yaml(path, problems)
    if problems:
        raise UserError(problems[0])
    return dict(content)


def _checked(model: type[M], data: Any, where: str, problems: list[str]) -> M | None:
    if data is None:
        return None
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems.extend(_problems(error, model, where))
        return None


def load(config: Mapping[str, Any] | Path, folder: Path = Path("config"), files: Iterable[Path] = ()) -> Experiment:
    """Read and check an experiment.

    Args:
        config: content of config.yaml (as Snakemake merged it), or its path.
        folder: where the files beside it lie.
        files: the files that `config` was read from, to be looked at for what reading hides.

    Raises:
        UserError: with every problem found, one a line: file, key, what is wrong, what is allowed.
    """
    problems: list[str] = []
    where = str(config) if isinstance(config, Path) else "config.yaml"
    data = _yaml(config, problems) if isinstance(config, Path) else dict(config)
    for path in files:
        _yaml(path, problems)
    top = _checked(Config, data, where, problems)
    found: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
    settings = top.training.settings if top is not None else {}

    def fetch(kind: str, name: str, asked_by: str) -> Any:
        if name not in found[kind]:
            path = folder / kind / f"{name}.yaml"
            if not path.exists():
                known = [p.stem for p in (folder / kind).glob("*.yaml")]
                problems.append(f'{asked_by}: {kind.removesuffix("s")} "{name}" is not {suggest(name, known)}')
                return None
            content = _yaml(path, problems)
            if kind == "models" and content is not None:
                content = {"spec": content}
            at = str(path)
            if kind == "recipes" and isinstance(content, Mapping):
                found[kind][name] = None  # so that one that is based on itself finds nothing
                content = _whole_recipe(name, content, settings, fetch, at, problems)
                at += f" (with training.settings of {where})" if settings else ""
            item = _checked(_KINDS[kind], content, at, problems)
            found[kind][name] = item.spec if isinstance(item, Model) else item
        return found[kind][name]

    if top is not None:
        _gather(top, where, fetch, problems)
    else:  # look at what it names all the same, so that all errors come at once
        named = set(_strings(data))
        for kind in _KINDS:
            for path in sorted((folder / kind).glob("*.yaml")):
                if path.stem in named:
                    fetch(kind, path.stem, where)
        systems = data.get("systems") if isinstance(data, Mapping) else None
        for name, system in (systems if isinstance(systems, Mapping) else {}).items():
            if isinstance(system, Mapping) and _checked(System, system, where, []) is not None:
                _gather_system(f"{where}: systems.{name}", System.model_validate(system), fetch, problems)
    if problems or top is None:
        raise UserError("The config has errors:\n" + "\n".join(f"  {line}" for line in problems))
    return Experiment(config=top, **{kind: items for kind, items in found.items()})


def _whole_recipe(
    name: str, given: Mapping[str, Any], settings: Mapping[str, Any], fetch: Any, at: str, problems: list[str]
) -> Mapping[str, Any] | None:
    """A recipe with the steps of the one it is based on, its own changes, and the experiment's settings in place."""
    base_name, changes = given.get("based_on"), given.get("changes")
    if base_name is None:
        steps = given.get("steps")
        if not isinstance(steps, list) or not all(isinstance(step, Mapping) for step in steps):
            return given  # its own model says what is wrong
        named = {f"{i}-{step.get('kind')}": step for i, step in enumerate(steps, start=1)}
        named = {step: _merged(values, settings.get(str(values.get("kind")), {})) for step, values in named.items()}
    else:
        if "steps" in given or not isinstance(changes or {}, Mapping):
            problems.append(f"{at}: a recipe that is based on another gives `changes` by step, and no `steps`")
            return None
        base = fetch("recipes", str(base_name), f"{at}: based_on")
        if base is None:
            problems.append(f"{at}: based_on: {base_name} gives no steps: it is absent, wrong, or based on this one")
            return None
        named = dict(zip(base.step_names, (step.model_dump(mode="json") for step in base.steps), strict=True))
        for step, change in (changes or {}).items():
            if step not in named or not isinstance(change, Mapping):
                problems.append(f'{at}: changes: "{step}" is not {suggest(str(step), named)}, or is no mapping')
            else:
                named[step] = _merged(named[step], change)
        given = {"word": base.word} | {key: value for key, value in given.items() if key != "changes"}
    for step in named:
        named[step] = _merged(_merged(named[step], settings.get(name, {})), settings.get(f"{name}/{step}", {}))
    return {**given, "steps": list(named.values())}


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with the values of `new`; mappings in both are merged in turn."""
    both = {key: _merged(old[key], value) for key, value in new.items() if _mappings(old.get(key), value)}
    return {**old, **new, **both}


def _mappings(*values: Any) -> bool:
    return all(isinstance(value, Mapping) for value in values)


def _strings(data: Any) -> Iterator[str]:
    """Every text in nested data."""
    if isinstance(data, Mapping):
        data = list(data.values())
    if isinstance(data, str):
        yield data
    elif isinstance(data, Iterable):
        for item in data:
            yield from _strings(item)


def _gather(top: Config, where: str, fetch: Any, problems: list[str]) -> None:
    """Fetch every file that config.yaml names and check the pieces against each other."""
    files: dict[str, tuple[RawFile, str]] = {}
    for name in dict.fromkeys((*top.datasets, top.training.dataset)):
        dataset = fetch("datasets", name, f"{where}: datasets")
        if dataset is None:
            continue
        wordings = fetch("questions", dataset.questions, f"config/datasets/{name}.yaml: questions")
        if wordings is not None and dataset.variant >= len(wordings.variants):
            count = len(wordings.variants)
            problems.append(f"config/datasets/{name}.yaml: variant: {dataset.variant} is out of range, there are {count}")
        _same_files(dataset, f"config/datasets/{name}.yaml", files, problems)
        if name == top.training.dataset and dataset.train is None:
            problems.append(f"{where}: training.dataset: {name} has no train split, and a test split is never trained on")
    about, shown = top.report, top.shown if set(top.main) <= set(top.systems) else top.systems
    named: list[tuple[str, str, Iterable[str]]] = [
        ("report.dataset", about.dataset, top.datasets),
        ("report.choices", about.choices, top.choices),
        ("report.system", about.system, shown),
        ("report.baseline", about.baseline, shown),
        *(("main", name, top.systems) for name in top.main),
        *((f"comparisons.{key}", name, top.systems) for key, names in top.comparisons.items() for name in names),
        *((f"sweeps.{name}.system", sweep.system, top.systems) for name, sweep in top.sweeps.items()),
        *((f"repeats.{name}.system", repeats.system, top.systems) for name, repeats in top.repeats.items()),
    ]
    if top.tables is not None:
        named += [(f"tables.{key}", getattr(top.tables, key), top.datasets) for key in ("animal", "plant", "bird")]
        named.append(("tables.choices", top.tables.choices, top.choices))
    problems += [f'{where}: {key}: "{name}" is not {suggest(name, known)}' for key, name, known in named if name not in known]
    for key, name in (("system", about.system), ("baseline", about.baseline)):
        protocol = fetch("protocols", top.systems[name].protocol, f"{where}: report.{key}") if name in top.systems else None
        if protocol is not None and protocol.stage("answer") is None:
            problems.append(f"{where}: report.{key}: {name} answers no questions (protocol {top.systems[name].protocol})")
    encoder = fetch("models", top.encoder, f"{where}: encoder")
    if encoder is not None and not isinstance(encoder, Clip):
        problems.append(f"{where}: encoder: {top.encoder} is of engine {encoder.engine}, needed is zero_shot")
    for name, system in top.systems.items():
        _gather_system(f"{where}: systems.{name}", system, fetch, problems)
    _wordings(top, where, fetch, problems)
    for name, repeats in top.repeats.items():
        given = top.systems.get(repeats.system)
        protocol = fetch("protocols", given.protocol, f"{where}: repeats.{name}") if given is not None else None
        if given is not None and protocol is not None and all(stage.by != "model" for stage in protocol.stages):
            problems.append(f"{where}: repeats.{name}: protocol {given.protocol} asks no model, so nothing can change")
    _settings(top, where, fetch, problems)
    if "published" in top.choices:
        have = [name for name in top.datasets if (given := fetch("datasets", name, where)) is None or given.published]
        if not have:
            problems.append(f"{where}: choices: published, but no data set's file has `published`, the benchmark's annotations")
        elif about.choices == "published" and about.dataset in top.datasets and about.dataset not in have:
            problems.append(f"{where}: report.choices: published, but config/datasets/{about.dataset}.yaml has no `published`")


def _wordings(top: Config, where: str, fetch: Any, problems: list[str]) -> None:
    """Variants exist in every data set's wordings, and wordings and rotations are asked of models alone."""
    items = [(f"systems.{name}.variant", system) for name, system in top.systems.items()]
    items += [
        (f"sweeps.{name}.variants", member)
        for name, sweep in top.sweeps.items()
        if sweep.system in top.systems
        for member in top.swept(name).values()
    ]
    found: list[str] = []
    for key, system in items:
        if system.variant is None and not system.rotation:
            continue
        protocol = fetch("protocols", system.protocol, f"{where}: {key}")
        if protocol is not None and ((stage := protocol.stage("answer")) is None or stage.by != "model"):
            found.append(f"{key}: protocol {system.protocol} has no question that a model answers, so none to vary")
        if isinstance(system.variant, dict):
            odd = sorted(system.variant.keys() - set(top.datasets))
            found += [f'{key}: "{name}" is not {suggest(name, top.datasets)}' for name in odd]
        for name in top.datasets:
            dataset, asked = fetch("datasets", name, where), system.variant_for(name)
            words = fetch("questions", dataset.questions, where) if dataset is not None else None
            if words is not None and asked is not None and asked >= len(words.variants):
                found.append(f"{key}: {asked} is out of range, {dataset.questions} has {len(words.variants)} wordings")
    problems += [f"{where}: {line}" for line in dict.fromkeys(found)]


def _settings(top: Config, where: str, fetch: Any, problems: list[str]) -> None:
    """Settings of steps are for a kind, a recipe or a step that there is."""
    for key in top.training.settings:
        recipe, _, step = key.partition("/")
        if key in ("sft", "grpo"):
            continue
        found = fetch("recipes", recipe, f"{where}: training.settings")
        if found is not None and step and step not in found.step_names:
            problems.append(f'{where}: training.settings: "{key}": {recipe} has no step {suggest(step, found.step_names)}')


def _same_files(dataset: Dataset, where: str, files: dict[str, tuple[RawFile, str]], problems: list[str]) -> None:
    """Data sets may share a file: one name, one source, one checksum."""
    for split, key, file in ((split, key, file) for split, part in dataset.splits.items() for key, file in part.raw.items()):
        other, place = files.setdefault(file.name, (file, f"{where}: {split}.{key}"))
        if file != other:
            problems.append(
                f"{where}: {split}.{key}: {file.name} from {file.source} ({file.checksum}) is not the file of {place}, from "
                f"{other.source} ({other.checksum}); share one source and checksum, or name one of them otherwise by `file`"
            )


def _gather_system(at: str, system: System, fetch: Any, problems: list[str]) -> None:
    model = fetch("models", system.model, f"{at}.model")
    protocol = fetch("protocols", system.protocol, f"{at}.protocol")
    name, trained = system.model, model
    if isinstance(model, Endpoint) and model.managed is not None:
        where, name = f"config/models/{system.model}.yaml: managed.model", model.managed.model
        trained = fetch("models", name, where)
        if trained is not None and not isinstance(trained, Vlm):
            problems.append(f"{where}: {name} is of engine {trained.engine}, needed is transformers")
    if protocol is not None:
        _prompts(protocol.stages, f"config/protocols/{system.protocol}.yaml: stages", fetch, problems)
        if model is not None and model.engine not in protocol.engines:
            wanted = " and ".join(sorted(protocol.engines))
            problems.append(f"{at}: protocol {system.protocol} is for {wanted}, not for engine {model.engine}")
        if isinstance(model, Endpoint) and model.url and any(stage.repetition_penalty != 1 for stage in protocol.stages):
            problems.append(f"{at}: protocol {system.protocol} has a repetition_penalty, which an endpoint may not know")
        if isinstance(model, Endpoint) and any(stage.temperature for stage in protocol.stages):
            fixed = {"temperature", "top_p", "top_k", "seed", "n"} & set(model.body)
            if model.temperature is None or fixed:
                what = f"body sets {', '.join(sorted(fixed))}" if fixed else "temperature is null"
                problems.append(f"{at}: protocol {system.protocol} draws samples, and config/models/{system.model}.yaml: {what}")
    if system.recipe is not None:
        recipe = fetch("recipes", system.recipe, f"{at}.recipe")
        if isinstance(model, Endpoint) and model.managed is None:
            problems.append(f"{at}: recipe: a model behind a url is not trained; name one with `managed`, which serves adapters")
        elif isinstance(model, Clip | Chance):
            problems.append(f"{at}: recipe: engine {model.engine} is not trained")
        for number, step in enumerate(recipe.steps if recipe else (), start=1):
            _prompts(step.samples, f"config/recipes/{system.recipe}.yaml: steps.{number}.samples", fetch, problems)
            if isinstance(trained, Vlm):
                problems += [line for line in _shares(trained, name, step, f"{system.recipe}/{number}") if line not in problems]


def _shares(model: Vlm, name: str, step: Step, called: str) -> Iterator[str]:
    """What is wrong with a step on as many devices as the model is trained on."""
    try:
        step.accumulation(model.processes)
    except UserError as error:
        yield f"config/models/{name}.yaml: train_gpus: step {called}: {error}"


def _prompts(items: Iterable[Stage | Samples], at: str, fetch: Any, problems: list[str]) -> None:
    """Fetch the prompts that stages or samples name, and check that each can carry what it is used for."""
    for item in items:
        prompt = fetch("prompts", item.prompt, f"{at}.prompt") if item.prompt is not None else None
        if prompt is None:
            continue
        there, task = prompts.fields(prompt.text), item.name if isinstance(item, Stage) else item.task
        needed = ({"question", "options"} if task == "answer" else set()) | ({"leaf"} if item.condition != "none" else set())
        unfit = {"question", "options", "leaf"} & there - needed
        if lacking := sorted(needed - there):
            problems.append(f"{at}.prompt: {item.prompt} lacks the placeholder {lacking} that a {task} prompt here needs")
        if unfit:
            problems.append(
                f"{at}.prompt: {item.prompt} has the placeholder {sorted(unfit)}, for which a {task} prompt here has no value"
            )


def json_schema() -> str:
    """JSON schema of config.yaml and of the files beside it, for editors; kept as config/schema.json by a test."""
    kinds: dict[str, type[Closed]] = {"config": Config, **_KINDS}
    definitions = {kind: model.model_json_schema() for kind, model in kinds.items()}
    return json.dumps(definitions, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path("config/schema.json").write_text(json_schema(), encoding="utf-8")
