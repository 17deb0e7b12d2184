"""What runs a generative model: the requests it takes and the responses it gives."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Request:
    """One prompt, about one image or, where `image_id` is None, about none; the image stands before the text.

    `system` may be None. `options`: how many it shows.

    `sample`: which of several completions of the same prompt is wanted, where they are drawn.
    """

    image_id: str | None
    text: str
    system: str | None = None
    options: int = 0
    sample: int = 0


@dataclass(frozen=True)
class Response:
    """One completion, or the error in its place.

    `finish_reason` is `stop` or `length`, of an endpoint that would not answer `content_filter` or `refusal`,
    and `error` where `error` says why there is no completion. Tokens exclude padding and, but for those that
    an endpoint counts, the end marker; None is what is not known. Seconds are a share.

    `letters`: log-probability of each option's letter as the first token, where that was asked for.

    `origin`: the model that an endpoint said has answered.
    """

    completion: str
    finish_reason: str
    prompt_tokens: int | None
    image_tokens: int | None
    completion_tokens: int | None
    seconds: float
    letters: tuple[float, ...] | None = None
    cached_tokens: int | None = None
    error: str | None = None
    origin: str | None = None


@dataclass(frozen=True)
class Decoding:
    """How completions are written: greedily or drawn, up to a limit.

    `only`: where there are any, every completion is one of these texts, chosen token by token. `stop`: a
    completion that holds this text is whole. `letters`: nothing is written; the completion is the option's
    letter that is the likeliest first token.

    `temperature`: above 0, tokens are drawn: of those likeliest that together have a probability of `top_p`,
    from a stream of random numbers that hangs on `seed`, the request and its `sample`, whatever else is in
    the batch.
    """

    max_new_tokens: int
    repetition_penalty: float = 1.0
    only: tuple[str, ...] = ()
    stop: str = ""
    letters: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class Engine(Protocol):
    """Anything that completes requests."""

    @property
    def digest(self) -> str:
        """Return the digest of weights and adapter, for provenance."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return what else a table is stamped with once all is answered: tokens and cost of an endpoint."""
        ...

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        """Yield (position in `requests`, response) as they come, in any order, each once.

        Args:
            requests: prompts, each about an image or none.
            decoding: how completions are written.
        """
        ...
