"""One exchange with an OpenAI-compatible endpoint: ask for a completion, and check what comes back.

What may come is bounded in size and checked for its form. A failure is one of three: it may pass (`Passing`),
this request is refused (`Refused`), or no request of this kind will ever be answered (`UserError`).
"""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import urllib3
from pydantic import BaseModel, Field, ValidationError

from vltaxon.errors import UserError, flat
from vltaxon.inference.served import Served
from vltaxon.parsing import restore
from vltaxon.provenance import writable

LARGEST = 4 << 20  # bytes of an answer; 100,000 tokens are a tenth of it
_MOST_TOKENS = 1 << 24  # more than any model takes or writes; what says more counts something else
_DIGITS = 30  # of a number, which Python refuses to read where there are thousands
_QUOTED = 300  # characters of an answer in an error
_PASSING = frozenset({408, 409, 425, 429})  # and 5xx
_OVERLOADED = frozenset({408, 429, 502, 503, 504, 529})
_FOR_GOOD = {
    401: "wants a valid key: see `key` in the model's file",
    402: "wants to be paid first",
    403: "refuses access",
    404: "knows no such model, or no such address",
    405: "takes no chat completions at this address",
}
_FILTERS = (  # by OpenAI and Azure, Gemini, Anthropic, Bedrock, Zhipu, Alibaba
    *("content_filter", "content_filtered", "content_policy_violation", "responsibleaipolicyviolation"),
    *("safety", "image_safety", "recitation", "blocklist", "prohibited_content", "spii"),
    *("guardrail_intervened", "sensitive", "data_inspection_failed", "moderation_blocked"),
)
_PASSES = "passes"
_REASONS = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_length", "max_output_tokens", "model_length"), "length"),
    **dict.fromkeys(_FILTERS, "content_filter"),
    "refusal": "refusal",
    **dict.fromkeys(("error", "abort", "aborted", "cancelled", "timeout", "network_error"), _PASSES),
    "insufficient_system_resource": _PASSES,  # DeepSeek
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


class Malformed(Passing):
    """An answer of status 200 that is no completion; `shape` is the same of answers that are built alike."""

    def __init__(self, words: str, shape: str) -> None:
        """Say what it was.

        Args:
            words: what it was.
            shape: how it is built.
        """
        super().__init__(words)
        self.shape = shape


class Refused(Exception):
    """This request will not be answered, however often it is sent."""


class _Part(BaseModel):
    type: str = "text"
    text: str | None = None
    refusal: str | None = None
    thinking: "str | list[_Part] | None" = None  # Mistral's are parts again

    @property
    def words(self) -> str:
        """Return what it says of the answer; what is of a kind that we do not know is none of it."""
        return self.text or "" if self.type in ("text", "output_text") else ""

    @property
    def thought(self) -> str:
        """Return what it says of the reasoning."""
        if self.type not in ("reasoning", "thinking"):
            return ""
        if isinstance(self.thinking, list):
            return "".join(part.words for part in self.thinking)
        return self.thinking or self.text or ""


class _Message(BaseModel):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning: Any = None  # apart from the content, by either name
    reasoning_content: Any = None

    @property
    def thought(self) -> str | None:
        """Return the reasoning that came apart from the content, or as parts of their own."""
        apart = (self.reasoning_content, self.reasoning, "".join(part.thought for part in self.parts))
        return next((said for said in apart if isinstance(said, str) and said), None)

    @property
    def parts(self) -> list[_Part]:
        """Return the content as a list of parts, as some servers send it."""
        return self.content if isinstance(self.content, list) else [_Part(text=self.content)]


class _Choice(BaseModel):
    message: _Message
    finish_reason: str


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


@dataclass(frozen=True)
class Usage:
    """Tokens of an exchange, as billed; None where that is not told, or cannot be true.

    Attributes:
        prompt: tokens of the prompt.
        completion: tokens of the completion, with those of reasoning that is not shown.
        cached: tokens of the prompt that were found in a cache.
        written: tokens that count against the limit of the completion.
    """

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    written: int | None = None

    @property
    def known(self) -> bool:
        """Return whether it says what the exchange costs."""
        return self.prompt is not None and self.completion is not None


@dataclass(frozen=True)
class Answer:
    """A completion.

    Attributes:
        text: as it was written.
        finish_reason: stop, length, content_filter or refusal.
        usage: tokens.
        origin: model that the endpoint names, without spaces and `?` where it names none, and the
            fingerprint behind a space; None where it names neither.
    """

    text: str
    finish_reason: str
    usage: Usage
    origin: str | None


async def ask(
    client: httpx2.AsyncClient, served: Served, url: str, body: bytes, timeout: float, spent: list[Usage]
) -> Answer:
    """Send one request and read its answer, all within `timeout` seconds.

    What is billed is appended to `spent` even where the answer is of no use; unknown where it may be billed
    and nothing tells, as of a request that was sent and never answered, or is not waited for any more.

    Args:
        client: of all exchanges.
        served: who is asked.
        url: address.
        body: of the request, JSON.
        timeout: seconds.
        spent: gets the tokens that are billed.

    Raises:
        Passing: to be sent again.
        Refused: not to be sent again.
        UserError: nothing will be answered here.
    """
    sent = False

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        nonlocal sent  # not by what asks a proxy for a tunnel
        sent |= event.endswith("send_request_headers.started") and info["request"].method == b"POST"

    send = client.stream("POST", url, content=body, headers=served.headers, extensions={"trace": trace})
    try:
        async with asyncio.timeout(timeout), send as response:
            content = await _bounded(response)
    except asyncio.CancelledError:
        spent += [Usage()] * sent
        raise
    except TimeoutError as error:
        spent += [Usage()] * sent
        raise Passing(f"no answer within {timeout:g} s", overloaded=True) from error
    except (httpx2.TransportError, httpx2.InvalidURL, httpx2.DecodingError, Passing) as error:
        spent += [Usage()] * sent
        if isinstance(error, Passing):
            raise
        words = f"{type(error).__name__}: {error}".rstrip(": ")
        if "CERTIFICATE_VERIFY_FAILED" in words:
            raise UserError(f"{url}: its certificate is not trusted: {words}") from error
        raise Passing(words) from error
    return _answer(served, url, response, content, spent)


def _answer(
    served: Served, url: str, response: httpx2.Response, content: bytes, spent: list[Usage]
) -> Answer:
    """Return the completion that an endpoint has sent, or raise what it has sent in its place: see `ask`."""
    said, status = _json(content), response.status_code
    told, usage = said.get("error"), _usage(said.get("usage"))
    in_place = status == 200 and bool(told) and not said.get("choices")  # OpenRouter: of whom it asks itself
    if (status in (400, 403) or in_place) and _filtered(told):
        spent.append(usage)
        return Answer("", "content_filter", usage, None)
    if status == 200 and not in_place:
        spent.append(usage)
        try:
            return _read(said, usage)
        except ValidationError as error:
            kind = response.headers.get("Content-Type", "") or "bytes of no type"
            words = f"no completion, but {kind}: {_excerpt(served, content)}"
            raise Malformed(words, _shape(content, said, kind)) from error
    if usage.known:
        spent.append(usage)
    if in_place:
        code = _count(told, "code") or 0
        status = code if 400 <= code < 600 else 500
    words = "an error in place of a completion" if in_place else f"{status} {response.reason_phrase}"
    words = f"{words}: {_excerpt(served, content)}".rstrip(": ")
    raise _failure(status, words, response.headers, content, url)


async def _bounded(response: httpx2.Response) -> bytes:
    content = bytearray()
    async for block in response.aiter_bytes():
        content += block
        if len(content) > LARGEST:
            raise Passing(f"an answer of more than {LARGEST:,} bytes")
    return bytes(content)


def _json(content: bytes) -> dict[str, Any]:
    """Return the object that an answer is, of texts that can be written; empty where it is none."""
    try:
        said = writable(json.loads(content, parse_int=lambda digits: int(digits[:_DIGITS])))
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _failure(status: int, words: str, headers: Mapping[str, str], content: bytes, url: str) -> Exception:
    """Return what a status other than 200 means."""
    if 300 <= status < 400:
        return UserError(f"{url}: redirects to {headers.get('Location')}; give that address as `url`")
    if status == 429 and b"insufficient_quota" in content:
        return UserError(f"{url}: the account's quota is used up ({words})")
    if status in _FOR_GOOD:
        return UserError(f"{url}: {_FOR_GOOD[status]} ({words})")
    if status in _PASSING or status >= 500:
        return Passing(words, _retry_after(headers.get("Retry-After")), status in _OVERLOADED)
    return Refused(words)


def _filtered(error: object, depth: int = 4) -> bool:
    """Return whether an error says that a filter has stopped the prompt, itself or in what it passes on."""
    if not isinstance(error, dict) or not depth:
        return False
    codes = [error.get(name) for name in ("code", "type")]
    return (
        any(isinstance(code, str) and _word(code) in _FILTERS for code in codes)
        or "flagged_input" in error  # OpenRouter
        or any(_filtered(inner, depth - 1) for inner in error.values())
    )


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, by number or date; None where it is neither."""
    try:
        return None if value is None else float(urllib3.Retry().parse_retry_after(value))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


def _excerpt(served: Served, content: bytes) -> str:
    """Return how an answer begins, without the keys that it may quote: these are hidden before it is cut."""
    plain = served.plain(content[: 16 * _QUOTED].decode(errors="replace"))
    return flat(plain[:_QUOTED])


def _shape(content: bytes, said: dict[str, Any], kind: str) -> str:
    """Return how an answer is built: its keys and kinds of values, or how it begins where it is no object."""
    return f"{kind} {_kinds(said, 4) if said else content[:16]!r}"


def _kinds(value: object, depth: int) -> object:
    if isinstance(value, dict) and depth:
        return sorted((name, str(_kinds(item, depth - 1))) for name, item in value.items())
    if isinstance(value, list) and value and depth:
        return [_kinds(value[0], depth - 1)]
    return type(value).__name__


def _word(reason: str) -> str:
    """Return a reason in one writing: `FinishReason.SAFETY` and `content_filter: OTHER` are known words."""
    word = re.sub(r"[^a-z]+", "_", reason.partition(":")[0].rpartition(".")[2].lower()).strip("_")
    return word.removeprefix("finish_reason_")


def _read(said: dict[str, Any], usage: Usage) -> Answer:
    """Return the completion that an answer holds.

    Args:
        said: the answer.
        usage: of the exchange.

    Raises:
        ValidationError: it holds none.
    """
    choice = _Completion.model_validate(said).choices[0]
    reason = _REASONS.get(_word(choice.finish_reason)) if choice.finish_reason.strip() else _PASSES
    if reason is None:
        raise Refused(f'finish_reason "{choice.finish_reason[:80]}" is none that we know')
    if reason == _PASSES:
        raise Passing(f'finish_reason "{choice.finish_reason}"')
    model, of = (said.get(name) for name in ("model", "system_fingerprint"))
    named = ["_".join(model.split()) if isinstance(model, str) else "", of if isinstance(of, str) else ""]
    origin = f"{named[0] or '?'} {named[1]}".rstrip() if any(named) else None
    text = "".join(part.words for part in choice.message.parts)
    refusal = choice.message.refusal or "".join(part.refusal or "" for part in choice.message.parts)
    if refusal and not text:
        return Answer(refusal, "refusal", usage, origin)
    return Answer(restore(text, reasoning=choice.message.thought), reason, usage, origin)


def _usage(told: object) -> Usage:
    """Return the tokens of an exchange: of numbers that do not agree, the larger.

    Reasoning that is not shown is part of `completion_tokens` at OpenAI; at others it is in `total_tokens`
    or in the details alone. Tokens from a cache are part of `prompt_tokens`, or beside them.
    """
    prompt, total = _count(told, "prompt_tokens") or None, _count(told, "total_tokens")
    cached = _count(told, "prompt_tokens_details", "cached_tokens") if prompt is not None else None
    written = _count(told, "completion_tokens")
    reasoned = _count(told, "completion_tokens_details", "reasoning_tokens") or 0
    if prompt is not None and (cached or 0) > prompt:
        prompt += cached or 0
    rest = total - prompt if total is not None and prompt is not None else -1
    apart = (written or 0) + reasoned if reasoned > (written or 0) else -1
    most = max(-1 if written is None else written, rest, apart)
    return Usage(prompt, None if most < 0 else most, cached, written)


def _count(told: object, *path: str) -> int | None:
    """Return a number of tokens, None where there is none that can be true."""
    for name in path:
        told = told.get(name) if isinstance(told, dict) else None
    if isinstance(told, bool) or not isinstance(told, int | float) or not 0 <= told <= _MOST_TOKENS:
        return None
    return int(told)


def fields(answer: Answer) -> dict[str, Any]:
    """Return the token counts of an answer, as a response has them."""
    usage = answer.usage
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "cached_tokens": usage.cached,
    }
