"""Models: what is loaded or asked, by which engine, and how it is run."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from vltaxon.config.base import HOW, MOVING, Closed, Commit, Name


class Speed(Closed):
    """What one device does with a model, for the estimate of costs before any answer was timed."""

    prompt: PositiveFloat = Field(description="Prompt tokens a second, image tokens among them.")
    new: PositiveFloat = Field(description="New tokens a second, all requests of a batch together.")
    train: PositiveFloat = Field(description="Tokens a second, forward and backward.")
    source: str = Field(description="Where the figures come from.")


class Vlm(Closed):
    """A generative model, loaded by `from_pretrained`."""

    engine: Literal["transformers"]
    description: Annotated[str, HOW] = ""
    checkpoint: str = Field(description="Local folder, or hub id.")
    revision: str | None = Field(
        None,
        description="Commit of the hub repository, 40 hex digits; required for a hub id. `main`, where no commit is known, is "
        "looked up when the model is loaded, and its commit of that moment is stamped on all that comes of it.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    pixels: PositiveInt = Field(
        description="Pixel budget: larger images are scaled down to it, once, for every use."
    )
    min_pixels: PositiveInt = Field(3136, description="Smaller images are scaled up to it.")
    batch_size: Annotated[PositiveInt, HOW] = Field(32, description="Requests generated together, at most.")
    batch_tokens: Annotated[PositiveInt, HOW] = Field(
        65_536, description="Tokens of these together, at most; prompts, images and new ones."
    )
    max_new_tokens: PositiveInt | None = Field(
        None, description="Cap on a stage's own limit, for a model of short words."
    )
    speed: Annotated[Speed | None, HOW] = Field(
        None, description="For `snakemake plan`, as long as no answer of the model was timed."
    )
    threads: Annotated[PositiveInt, HOW] = Field(
        8, description="CPU cores of a job that runs or trains it, at most those of Snakemake."
    )
    gpus: Annotated[PositiveInt, HOW] = Field(1, description="Devices that hold its weights.")
    train_gpus: Annotated[PositiveInt | None, HOW] = Field(
        None,
        description="Devices that train it, a process on each, where several share the work; else one process on `gpus`.",
    )
    distributed: Annotated[Literal["ddp", "fsdp"], HOW] = Field(
        "ddp",
        description="What these processes hold: all weights each, or a share. Its file is in config/accelerate.",
    )
    memory: Annotated[PositiveInt, HOW] = Field(
        32, description="GB of main memory of a job that runs or trains it, asked of a cluster."
    )
    licence: Annotated[str, HOW]

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
    cached: NonNegativeFloat | None = Field(
        None, description="Prompt tokens found in a cache; as input where absent."
    )


class Managed(Closed):
    """vLLM, started by the job that asks it and ended with it."""

    model: Annotated[Name, HOW] = Field(
        description="File in config/models, of engine transformers: whose weights and adapters are served."
    )
    environment: Annotated[Path | None, HOW] = Field(
        None, description="Virtual environment that has vLLM; where absent, `vllm` on the PATH."
    )
    arguments: tuple[str, ...] = Field((), description="Further arguments of `vllm serve`.")
    lora: bool = Field(
        False, description="Serve a recipe's adapter beside the base; else merged into the weights."
    )
    replicas: Annotated[PositiveInt, HOW] = Field(
        1, description="Servers of a job, each on devices of its own."
    )
    startup: Annotated[PositiveInt, HOW] = Field(
        1800, description="Seconds that it may take until it answers."
    )


class Endpoint(Closed):
    """A generative model behind an OpenAI-compatible endpoint: one that is there, or vLLM started for the job.

    Fields that are marked HOW say where and how to ask; they are read from the file when the job starts.
    """

    engine: Literal["server"]
    description: Annotated[str, HOW] = ""
    url: Annotated[str | None, HOW] = Field(
        None, description="Base address, to which /chat/completions is added: https://HOST/v1."
    )
    managed: Managed | None = Field(None, description="In place of an address: what to serve.")
    model: str | None = Field(
        None, description="Name that requests carry; for a managed server the file's name where absent."
    )
    key: Annotated[str | None, HOW] = Field(
        None, description="NAME of the environment variable that holds the key, never the key."
    )
    system: str | None = Field(None, description="System text in place of the prompts' own.")
    pixels: PositiveInt = Field(
        description="Pixel budget: larger images are scaled down to it, once, for every use."
    )
    min_pixels: PositiveInt = Field(3136, description="Smaller images are scaled up to it.")
    max_new_tokens: PositiveInt | None = Field(
        None, description="Cap on a stage's own limit, for a model of short words."
    )
    limit_as: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What the limit is called there."
    )
    temperature: NonNegativeFloat | None = Field(
        0.0, description="0 is greedy; null: not sent, for models that take none."
    )
    seed: int | None = Field(None, description="Sent where given.")
    detail: Literal["auto", "low", "high"] | None = Field(
        None, description="How closely the endpoint looks (OpenAI)."
    )
    body: dict[str, Any] = Field(default_factory=dict, description="Further fields of every request.")
    image_as: Annotated[Literal["data", "path"], HOW] = Field(
        "data", description="Images in the request, or as files that the server may read."
    )
    media: Annotated[Path | None, HOW] = Field(
        None, description="path: folder for these files, allowed on the server; not of a managed one."
    )
    concurrency: Annotated[PositiveInt, HOW] = Field(
        32, description="Requests at a time, at most; fewer as long as the endpoint is overloaded."
    )
    requests_per_minute: Annotated[PositiveFloat | None, HOW] = None
    tokens_per_minute: Annotated[PositiveFloat | None, HOW] = Field(
        None, description="Of prompts and completions together."
    )
    timeout: Annotated[PositiveFloat, HOW] = Field(120, description="Seconds for one answer.")
    attempts: Annotated[PositiveInt, HOW] = Field(
        8, description="How often a request is sent before it is an error."
    )
    price: Annotated[Price | None, HOW] = None
    budget: Annotated[PositiveFloat | None, HOW] = Field(
        None,
        description="Ceiling of what all jobs of this model together spend, in the currency of `price`; then it stops.",
    )
    max_errors: Annotated[float, HOW] = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of a job's requests that may end as errors; beyond it the job fails.",
    )
    image_tokens: Annotated[PositiveInt | None, HOW] = Field(
        None, description="What an image counts, where that does not depend on its size."
    )
    threads: Annotated[PositiveInt, HOW] = Field(2, description="CPU cores of a job that asks it.")
    speed: Annotated[Speed | None, HOW] = Field(
        None, description="For `snakemake plan`, of a managed server, until answers are timed."
    )
    licence: Annotated[str, HOW] = Field(description="Terms of the model, or of the service.")

    def asking(self) -> dict[str, Any]:
        """Return how it is asked, where that shapes what it answers: part of the identity of its answers."""
        return self.model_dump(
            mode="json", include={"pixels", "min_pixels", "limit_as", "temperature", "seed", "detail", "body"}
        )

    @field_validator("key")
    @classmethod
    def _name_of_a_variable(cls, value: str | None) -> str | None:
        if value is not None and (
            not re.fullmatch(r"[A-Z][A-Z0-9_]{1,63}", value) or sum(c.isdigit() for c in value) > 4
        ):
            raise ValueError(
                "key: give the NAME of an environment variable (OPENAI_API_KEY), never the key itself"
            )
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
        if self.managed is not None and (
            given := [key for key in ("key", "price", "budget") if getattr(self, key) is not None]
        ):
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
    description: Annotated[str, HOW] = ""
    name: str = Field(description="open_clip name, hf-hub:OWNER/REPOSITORY or local-dir:FOLDER.")
    pretrained: str | None = Field(
        None, description="open_clip tag of the weights; none for hf-hub: and local-dir: names."
    )
    revision: Commit | None = Field(
        None, description="Commit of the hub repository; required for hf-hub: names, else none."
    )
    template: str = Field("a photo of a {}.", description="Text of a label; {} is the taxon.")
    case: Literal["keep", "lower"] = "keep"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: Annotated[PositiveInt, HOW] = 64
    threads: Annotated[PositiveInt, HOW] = Field(
        8, description="CPU cores of a job that embeds with it: images made ready at once."
    )
    memory: Annotated[PositiveInt, HOW] = Field(
        16, description="GB of main memory of a job that runs it, asked of a cluster."
    )
    licence: Annotated[str, HOW]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.template.count("{}") != 1:
            raise ValueError('template: must hold "{}" once')
        if self.name.startswith("hf-hub:") and not self.revision:
            raise ValueError(f'"{self.name}" is a hub id, which needs a revision')
        if self.revision and not self.name.startswith("hf-hub:"):
            raise ValueError(
                f'revision: open_clip has none for "{self.name}", only for hf-hub:OWNER/REPOSITORY'
            )
        if self.pretrained and self.name.startswith(("hf-hub:", "local-dir:")):
            raise ValueError(f'pretrained: "{self.name}" brings its own weights')
        return self


class Chance(Closed):
    """Answers at random, seeded: the floor of every table."""

    engine: Literal["chance"]
    description: Annotated[str, HOW] = ""
    licence: Annotated[str, HOW] = "none"


class Model(Closed):
    """A model file: what is loaded, and by which engine."""

    spec: Annotated[Vlm | Endpoint | Clip | Chance, Field(discriminator="engine")]
