"""One exchange with an OpenAI-compatible endpoint: ask for a completion, and check what comes back.

What may come is bounded in size and checked for its form. A failure is one of three: it may pass (`Passing`),
this request is refused (`Refused`), or no request of this kind will ever be answered (`UserError`).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import urllib3
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from vltaxon.errors import UserError
from vltaxon.parsing import restore

LARGEST = 4 << 20  # bytes of an answer; 100,000 tokens are a tenth of it
_PASSING = frozenset({408, 409, 425, 429})  # and 5xx
_OVERLOADED = frozenset({408, 429, 502, 503, 504, 529})
_FOR_GOOD = {
    401: "wants a valid key: see `key` in the model's file",
    402: "wants to be paid first",
    403: "refuses access",
    404: "knows no such model, or no such address",
    405: "takes no chat completions at this address",
}
_REASONS = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "end_turn"), "stop"),
    **dict.fromkeys(("length", "max_tokens"), "length"),
    "content_filter": "content_filter",
}


class Passing(Exception):
    """A failure that another attempt may not have.

    `wait`: what the endpoint asks for, in seconds. `overloaded`: fewer requests at a time may help.
    """

    def __init__(self, words: str, wait: float | None = None, overloaded: bool = False) -> None:
        """Say what failed.

        Args:
            words: what it was.
            wait: seconds that the endpoint asks for.
            overloaded: whether fewer requests at a time may help.
        """
        super().__init__(words)
        self.wait, self.overloaded = wait, overloaded


class Refused(Exception):
    """This request will not be answered, however often it is sent."""


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None
    reasoning: Any = None  # apart from the content, by either name
    reasoning_content: Any = None

    @property
    def thought(self) -> str | None:
        return next((s for s in (self.reasoning_content, self.reasoning) if isinstance(s, str) and s), None)


class _Choice(BaseModel):
    message: _Message
    finish_reason: str


class _Details(BaseModel):
    cached_tokens: NonNegativeInt | None = None


class _Usage(BaseModel):
    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt
    prompt_tokens_details: _Details | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


class _Frame(BaseModel):
    model: str | None = None
    system_fingerprint: str | None = None
    usage: _Usage | None = None


@dataclass(frozen=True)
class Usage:
    """Tokens of an exchange, as billed.

    Attributes:
        prompt: tokens of the prompt.
        completion: tokens of the completion.
        cached: tokens of the prompt that were found in a cache, None where that is not told.
    """

    prompt: int
    completion: int
    cached: int | None


@dataclass(frozen=True)
class Answer:
    """A completion.

    Attributes:
        text: as it was written.
        finish_reason: stop, length, content_filter or refusal.
        usage: tokens, None where they are not told.
        origin: model and fingerprint that the endpoint names.
    """

    text: str
    finish_reason: str
    usage: Usage | None
    origin: str


async def ask(
    client: httpx2.AsyncClient,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    timeout: float,
    spent: list[Usage],
) -> Answer:
    """Send one request and read its answer, all within `timeout` seconds.

    Tokens that are billed are appended to `spent` even where the answer is of no use.

    Args:
        client: of all exchanges.
        url: address.
        body: of the request, JSON.
        headers: of the request.
        timeout: seconds.
        spent: gets the tokens that are billed.

    Raises:
        Passing: to be sent again.
        Refused: not to be sent again.
        UserError: nothing will be answered here.
    """
    try:
        async with (
            asyncio.timeout(timeout),
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            content = await _bounded(response)
    except TimeoutError as error:
        raise Passing(f"no answer within {timeout:g} s", overloaded=True) from error
    except httpx2.TransportError as error:
        words = f"{type(error).__name__}: {error}".rstrip(": ")
        if "CERTIFICATE_VERIFY_FAILED" in words:
            raise UserError(f"{url}: its certificate is not trusted: {words}") from error
        raise Passing(words) from error
    except (httpx2.InvalidURL, httpx2.DecodingError) as error:
        raise Passing(f"{type(error).__name__}: {error}") from error
    if response.status_code != 200:
        raise _failure(response, content, url)
    return _read(response.headers.get("Content-Type", ""), content, spent)


async def _bounded(response: httpx2.Response) -> bytes:
    content = bytearray()
    async for block in response.aiter_bytes():
        content += block
        if len(content) > LARGEST:
            raise Passing(f"an answer of more than {LARGEST:,} bytes")
    return bytes(content)


def _failure(response: httpx2.Response, content: bytes, url: str) -> Exception:
    """Return what a status other than 200 means."""
    status, words = (
        response.status_code,
        f"{response.status_code} {response.reason_phrase}: {_excerpt(content)}".rstrip(": "),
    )
    if 300 <= status < 400:
        return UserError(
            f"{url}: redirects to {response.headers.get('Location')}; give that address as `url`"
        )
    if status == 429 and b"insufficient_quota" in content:
        return UserError(f"{url}: the account's quota is used up ({words})")
    if status in _FOR_GOOD:
        return UserError(f"{url}: {_FOR_GOOD[status]} ({words})")
    if status in _PASSING or status >= 500:
        return Passing(words, _retry_after(response.headers.get("Retry-After")), status in _OVERLOADED)
    return Refused(words)


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, by number or date; None where it is neither."""
    try:
        return None if value is None else float(urllib3.Retry().parse_retry_after(value))
    except urllib3.exceptions.InvalidHeader:
        return None


def _excerpt(content: bytes) -> str:
    return " ".join(content[:300].decode(errors="replace").split())


def _read(kind: str, content: bytes, spent: list[Usage]) -> Answer:
    try:
        frame = _Frame.model_validate_json(content)
    except ValidationError as error:
        raise Passing(
            f"no JSON of a completion, but {kind or 'bytes of no type'}: {_excerpt(content)}"
        ) from error
    usage = None
    if frame.usage is not None:
        details = frame.usage.prompt_tokens_details
        cached = details.cached_tokens if details is not None else None
        usage = Usage(frame.usage.prompt_tokens, frame.usage.completion_tokens, cached)
        spent.append(usage)
    try:
        choice = _Completion.model_validate_json(content).choices[0]
    except ValidationError as error:
        raise Passing(f"no completion in the answer: {_excerpt(content)}") from error
    if choice.finish_reason not in _REASONS:
        raise Refused(f'finish_reason "{choice.finish_reason}" is none that we know')
    origin = " ".join(filter(None, (frame.model, frame.system_fingerprint)))
    said, refusal = choice.message.content, choice.message.refusal
    if refusal and not said:
        return Answer(refusal, "refusal", usage, origin)
    return Answer(
        restore(said or "", reasoning=choice.message.thought), _REASONS[choice.finish_reason], usage, origin
    )


def fields(answer: Answer) -> dict[str, Any]:
    """Return the token counts of an answer, as a response has them."""
    usage = answer.usage
    return {
        "prompt_tokens": usage.prompt if usage else None,
        "completion_tokens": usage.completion if usage else None,
        "cached_tokens": usage.cached if usage else None,
    }
