"""What runs a generative model: the requests it takes and the responses it gives."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Request:
    """One prompt about one image. `system` may be None; the image stands before the text. `options`: how many it shows."""

    image_id: str
    text: str
    system: str | None = None
    options: int = 0


@dataclass(frozen=True)
class Response:
    """One completion. `finish_reason` is `stop` or `length`; tokens exclude padding and the end marker; seconds are a share.

    `letters`: log-probability of each option's letter as the first token, where that was asked for.
    `error`: why there is no completion, None where there is one.
    """

    completion: str
    finish_reason: str
    prompt_tokens: int
    image_tokens: int
    completion_tokens: int
    seconds: float
    letters: tuple[float, ...] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Decoding:
    """How completions are written: greedily, up to a limit.

    `only`: where there are any, every completion is one of these texts, chosen token by token. `stop`: a completion that holds
    this text is whole. `letters`: nothing is written; the completion is the option's letter that is the likeliest first token.
    """

    max_new_tokens: int
    repetition_penalty: float = 1.0
    only: tuple[str, ...] = ()
    stop: str = ""
    letters: bool = False


class Engine(Protocol):
    """Anything that completes requests greedily."""

    @property
    def digest(self) -> str:
        """Identity of weights and adapter, for provenance."""
        ...

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        """Yield (position in `requests`, response) as they come, in any order, each once."""
        ...
