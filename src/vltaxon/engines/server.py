"""Engine server: an OpenAI-compatible endpoint that is there, or vLLM, started by the job that asks it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from vltaxon.config.base import HOW, Closed, Name
from vltaxon.config.models import MEMORY_MB, GenerativeSpec, Price
from vltaxon.credentials import Header, Variable

if TYPE_CHECKING:
    from vltaxon.config.protocols import Protocol

_DRAWING = frozenset(
    {"temperature", "top_p", "top_k", "seed", "n"}
)  # fields of a request that a stage may set
_SECRET = re.compile(  # a word of a name in a query; words are parted by signs, or begin with a capital
    r"(^|[-_.])(key|apikey|token|sig|signature|secret|pass|password|auth|authorization|cred|credential"
    r"|credentials|code)($|[-_.])",
    re.IGNORECASE,
)
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_LONGEST = 32  # characters of a value in a query; a longer one is taken for a secret, as is one without name
_ADDRESS = re.compile(r"https?://([^/\s@?#:\[\]]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[^\s@?#]*)?(\?[^\s#]*)?")


class Managed(Closed):
    """vLLM, started by the job that asks it and ended with it."""

    model: Annotated[Name, HOW] = Field(
        description="File in config/models, of engine transformers: whose weights and adapters are served.",
        examples=["qwen2_5_vl_7b"],
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


class Endpoint(GenerativeSpec):
    """A generative model behind an OpenAI-compatible endpoint: one that is there, or vLLM of the job.

    Fields that are marked HOW say where and how to ask; they are read from the file when the job starts.
    """

    source: ClassVar[str] = "vltaxon.inference.endpoint"
    engine: Literal["server"]
    url: Annotated[str | None, HOW] = Field(
        None,
        description="Base address, to which /chat/completions is added: https://HOST/v1; a query, as "
        "?api-version=2024-10-21, stays at its end.",
    )
    managed: Managed | None = Field(None, description="In place of an address: what to serve.")
    model: str | None = Field(
        None, description="Name that requests carry; for a managed server the file's name where absent."
    )
    key: Annotated[Variable | None, HOW] = Field(
        None, description="NAME of the environment variable that holds the key, never the key."
    )
    headers: Annotated[dict[Header, Variable], HOW] = Field(
        default_factory=dict,
        description="Further headers, each with the NAME of the environment variable that holds its value.",
    )
    server: Literal["vllm", "sglang"] | None = Field(
        None,
        description="What answers at url, where it takes from the checkpoint how tokens are drawn unless a "
        "request says so: then each request does.",
    )
    probe: Annotated[bool, HOW] = Field(
        True,
        description="Send the first prompt with and without its image before all others, and stop where the "
        "endpoint counts as many tokens for both.",
    )
    system: str | None = Field(None, description="System text in place of the prompts' own.")
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
        description="Ceiling of what all jobs of this model together spend, in the currency of `price`; then "
        "it stops.",
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
    licence: Annotated[str, HOW] = Field(
        description="Terms of the model, or of the service.", examples=["the provider's terms"]
    )

    @property
    def serves(self) -> str | None:
        """Return the model whose weights a server of ours serves."""
        return self.managed.model if self.managed is not None else None

    @property
    def serves_merged(self) -> bool:
        """Return whether an adapter is served merged into the weights, and not beside them."""
        return self.managed is not None and not self.managed.lora

    @property
    def untrained(self) -> str | None:
        """Return why a system of it can have no recipe, None where it can."""
        if self.managed is not None:
            return None
        return "a model behind a url is not trained; name one with `managed`, which serves adapters"

    @property
    def copies(self) -> int:
        """Return how many servers a job starts."""
        return self.managed.replicas if self.managed is not None else 1

    @property
    def devices(self) -> int:
        """Return 0: what a server of ours needs, the model says that it serves."""
        return 0

    @property
    def memory_mb(self) -> int:
        """Return the MB of main memory of a job that asks an address."""
        return MEMORY_MB

    @property
    def asking_threads(self) -> int:
        """Return the CPU cores of a job that asks it."""
        return self.threads

    @property
    def own_system(self) -> str | None:
        """Return the system text that it is given in place of the prompts' own."""
        return self.system

    @property
    def remote(self) -> bool:
        """Return whether it runs elsewhere."""
        return self.url is not None

    def visual_tokens(self, pixels: int | None = None) -> float:
        """Return the tokens of an image: as many as the file says, where it does."""
        return float(self.image_tokens) if self.image_tokens is not None else super().visual_tokens(pixels)

    def money(self, prompt: float, new: float) -> float | None:
        """Return what so many tokens cost; None where the file has no price.

        Args:
            prompt: tokens of prompts.
            new: tokens that are written.
        """
        return None if self.price is None else (prompt * self.price.input + new * self.price.output) / 1e6

    def lacks(self, protocol: "Protocol", file: str) -> Iterator[str]:
        """Yield what a protocol asks that it cannot give: see `ModelSpec.lacks`.

        Args:
            protocol: what a system of it is to be asked.
            file: its own file, to be named.
        """
        if self.url and not self.server and any(stage.repetition_penalty != 1 for stage in protocol.stages):
            yield "has a repetition_penalty, which an endpoint may not know; `server` says which one it is"
        fixed = sorted(_DRAWING & set(self.body))
        if any(stage.temperature for stage in protocol.stages) and (self.temperature is None or fixed):
            what = f"body sets {', '.join(fixed)}" if fixed else "temperature is null"
            yield f"draws samples, and {file}: {what}"

    def asking(self) -> dict[str, Any]:
        """Return how it is asked, where that shapes what it answers: part of the identity of its answers."""
        asking = {"pixels", "min_pixels", "limit_as", "temperature", "seed", "detail", "body"}
        if self.server is not None:  # as before there was the field
            asking.add("server")
        return self.model_dump(mode="json", include=asking)

    @field_validator("body")
    @classmethod
    def _can_be_sent(cls, body: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"body: cannot be sent as JSON: {error}") from error
        return body

    @field_validator("url")
    @classmethod
    def _plain_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not _ADDRESS.fullmatch(value):
            raise ValueError("give http(s)://HOST/PATH, without user and key")
        address, _, query = value.partition("?")
        said = [(_CAPITAL.sub("-", name), text) for name, text in parse_qsl(query, keep_blank_values=True)]
        if any(_SECRET.search(name) or not text or len(text) > _LONGEST for name, text in said):
            raise ValueError(
                "its query seems to hold a key; put that into an environment variable, and name this in "
                "`key` or `headers`"
            )
        address = address.rstrip("/")
        if urlsplit(address).path.endswith("/chat/completions"):
            raise ValueError("give the base address, without /chat/completions, which is added")
        return f"{address}?{query}" if query else address

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.url is None) == (self.managed is None):
            raise ValueError("needs one of url and managed")
        if self.url is not None and self.model is None:
            raise ValueError("model: the name that requests carry is missing")
        if self.managed is not None and (
            given := [key for key in ("key", "headers", "server", "price", "budget") if getattr(self, key)]
        ):
            raise ValueError(f"{given[0]}: is for a url; a managed server is your own")
        if any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("headers: Authorization is sent of what `key` names")
        if self.budget is not None and self.price is None:
            raise ValueError("budget: needs price")
        if self.url is not None and (self.image_as == "path") != (self.media is not None):
            raise ValueError("media: needed where image_as is path, and only there")
        return self
