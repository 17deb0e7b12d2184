"""Generation by an OpenAI-compatible endpoint: many requests at a time, each of which ends answered or as a recorded error.

Requests go in the order of their images, the image before the text, so that the questions of an image meet a warm cache. Images
are sent without loss, as every other engine sees them.
"""

import asyncio
import base64
import io
import json
import os
import random
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from vltaxon import prompts, provenance
from vltaxon.config import Endpoint
from vltaxon.data.images import ImageStore
from vltaxon.errors import UserError
from vltaxon.inference import chat
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.ledger import Ledger
from vltaxon.inference.pace import Pace, Stopped

_IN_A_ROW = 50  # different requests that end as errors, none answered between them: then the endpoint is given up
_PIXELS = 28 * 28  # of an image token, for what a first request may cost
_LETTERS = 3  # of a token of text, likewise: rather too few than too many


@dataclass(frozen=True)
class Patience:
    """How long to wait before a request is sent again, in seconds: doubled each time, with jitter."""

    first: float = 1.0
    longest: float = 60.0
    longest_asked: float = 600.0  # of what an endpoint may ask for by Retry-After


@dataclass(frozen=True)
class Served:
    """Where a model is served: addresses that share the work, what the weights are, and whether the servers still run."""

    urls: Sequence[str]
    model: str
    digest: str
    key: str | None = field(default=None, repr=False)
    media: Path | None = None
    check: Callable[[], None] = lambda: None


def remote(spec: Endpoint) -> Served:
    """The endpoint at a url, with its key from the environment.

    Raises:
        UserError: the key's variable is not set.
    """
    assert spec.url is not None and spec.model is not None
    key = os.environ.get(spec.key, "").strip() if spec.key is not None else None
    if key == "":
        raise UserError(f"{spec.url}: its key belongs in the environment variable {spec.key}, which is not set")
    return Served((spec.url,), spec.model, f"{spec.model}@{urlsplit(spec.url).netloc}", key, spec.media)


def digest(spec: Endpoint, weights: str | None) -> str:
    """Identity of what answers: the weights that are served, or name and host where they are not ours; and how it is asked."""
    served = f"{spec.model}@{urlsplit(str(spec.url)).netloc}" if weights is None else weights
    return f"{served}?{provenance.digest_text(json.dumps(spec.asking(), sort_keys=True))}"


class ServerEngine:
    """A model behind one or more addresses."""

    def __init__(
        self, spec: Endpoint, served: Served, images: ImageStore, ledger: Ledger, patience: Patience | None = None
    ) -> None:
        self._spec, self._served, self._images, self._ledger = spec, served, images, ledger
        self._patience = patience or Patience()
        self.digest = digest(spec, served.digest)

    @property
    def facts(self) -> dict[str, Any]:
        """Tokens and cost of what this engine was asked; what the journal had was not."""
        return {"usage": self._ledger.facts}

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[tuple[int, Response]]:
        """Ask, and yield what comes as it comes: a completion, or an error for a request that failed for good.

        Raises:
            UserError: nothing more will be answered: no access, the budget is spent, or every request fails. What was answered
                has been yielded. Also where completions would have to be of given texts: no endpoint is asked for that.
        """
        if decoding.only:
            raise UserError(f"{self._spec.model}: engine server cannot be held to given texts; take engine transformers")
        with asyncio.Runner() as runner:
            asking = _Asking(self, requests, decoding)
            try:
                runner.run(asking.start())
                while some := runner.run(asking.ready()):
                    yield from some
            finally:
                runner.run(asking.close())
                print(f"{self._served.model}: {self._ledger}", flush=True)

    def body(self, request: Request, image: str, decoding: Decoding) -> bytes:
        """A request in JSON; `image` is its address."""
        spec = self._spec
        shown = {"url": image} | ({"detail": spec.detail} if spec.detail is not None else {})
        messages = prompts.conversation(request.text, request.system)
        for message in messages:
            if message["role"] == "system":
                message["content"] = message["content"][0]["text"]  # which every server takes
                continue
            message["content"] = [
                {"type": "image_url", "image_url": shown} if part["type"] == "image" else part for part in message["content"]
            ]
        settings: dict[str, Any] = {spec.limit_as: decoding.max_new_tokens, "temperature": spec.temperature, "seed": spec.seed}
        if decoding.temperature:
            settings |= {"temperature": decoding.temperature, "top_p": decoding.top_p}
            if spec.managed is not None:
                settings |= {"top_k": -1, "min_p": 0.0}  # else vLLM takes the checkpoint's
            if spec.managed is not None or spec.seed is not None:
                mixed = provenance.digest_text(str(spec.seed), str(decoding.seed), str(request.sample))
                settings["seed"] = int(mixed[:7], 16)
        if spec.managed is not None:
            settings["repetition_penalty"] = decoding.repetition_penalty  # else vLLM takes the checkpoint's
        elif decoding.repetition_penalty != 1:
            settings["repetition_penalty"] = decoding.repetition_penalty
        given = {key: value for key, value in settings.items() if value is not None}
        return json.dumps({"model": self._served.model, "messages": messages, **given, **spec.body}).encode()

    def png(self, image_id: str) -> bytes:
        """An image within the pixel budget, encoded without loss."""
        buffer = io.BytesIO()
        self._images.resized(image_id, self._spec.pixels, self._spec.min_pixels).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


class _Asking:
    """One call of `generate`: workers that take requests in turn, and what they have got."""

    def __init__(self, engine: ServerEngine, requests: Sequence[Request], decoding: Decoding) -> None:
        self._engine, self._requests, self._decoding = engine, requests, decoding
        self._spec, self._served, self._ledger = engine._spec, engine._served, engine._ledger
        self._order = iter(sorted(range(len(requests)), key=lambda i: (requests[i].image_id, i)))
        self._uses = Counter(request.image_id for request in requests)
        self._pictures: dict[str, asyncio.Task[str]] = {}
        self._got: asyncio.Queue[tuple[int, Response] | None] = asyncio.Queue()
        self._stop: BaseException | None = None
        self._settled = asyncio.Event()
        self._failing: set[tuple[str, str]] = set()
        self._most_prompt = 0
        self._last = time.perf_counter()

    async def start(self) -> None:
        spec = self._spec
        most = spec.concurrency * len(self._served.urls)
        self._pace = Pace(most, spec.requests_per_minute, spec.tokens_per_minute)
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(None, connect=min(20.0, spec.timeout)),  # the whole exchange has one of its own
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
            trust_env=spec.managed is None,  # no proxy between us and our own servers
        )
        # Twice as many workers as slots: some wait to send again, and hold none.
        workers = [asyncio.create_task(self._work()) for _ in range(min(2 * most, len(self._requests)))]
        self._all = asyncio.create_task(self._finish(workers))

    async def close(self) -> None:
        if hasattr(self, "_client"):
            await self._client.aclose()
        if self._served.media is not None:
            for picture in self._pictures.values():
                if picture.done() and not picture.cancelled() and picture.exception() is None:
                    Path(urlsplit(picture.result()).path).unlink(missing_ok=True)

    async def ready(self) -> list[tuple[int, Response]]:
        """What has come since the last call, at least one; none at the end.

        Raises:
            UserError: it was the end because nothing more will be answered.
        """
        some = [await self._got.get()]
        while not self._got.empty():
            some.append(self._got.get_nowait())
        answers = [item for item in some if item is not None]
        if not answers and self._stop is not None:
            raise self._stop
        if answers and some[-1] is None:
            self._got.put_nowait(None)
        return answers

    async def _finish(self, workers: Sequence[asyncio.Task[None]]) -> None:
        await asyncio.gather(*workers)
        self._got.put_nowait(None)

    async def _work(self) -> None:
        try:
            for at in self._order:
                if self._stop is not None:
                    return
                response = await self._answer(self._requests[at])
                await self._done_with(self._requests[at].image_id)
                self._got.put_nowait((at, response))
        except Stopped:
            pass
        except Exception as error:
            await self._halt(error)

    async def _halt(self, error: BaseException) -> None:
        """Send nothing more; what is on its way is waited for."""
        self._stop = self._stop or (UserError(self._plain(str(error))) if isinstance(error, UserError) else error)
        self._settled.set()
        await self._pace.stop()

    async def _answer(self, request: Request) -> Response:
        """The response to a request, however many attempts it takes.

        Raises:
            Stopped: before there was one.
        """
        image = await self._picture(request.image_id)
        body = self._engine.body(request, image, self._decoding)
        for attempt in range(1, self._spec.attempts + 1):
            try:
                return self._response(await self._attempt(request, body))
            except chat.Refused as error:
                return await self._error(request, str(error))
            except chat.Passing as error:
                self._served.check()
                if attempt == self._spec.attempts:
                    return await self._error(request, f"{attempt} attempts; the last: {error}")
                await self._pace.rest(self._pause(attempt, error))
        raise AssertionError("no attempt at all")

    async def _attempt(self, request: Request, body: bytes) -> chat.Answer:
        """Send a request once, in a slot of its own and within the budget."""
        expected = self._expected(request)
        used: list[chat.Usage] = []
        most = self._ledger.cost(expected, self._decoding.max_new_tokens)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self._served.key is not None:
            headers["Authorization"] = f"Bearer {self._served.key}"
        url = self._served.urls[zlib.crc32(request.image_id.encode()) % len(self._served.urls)] + "/chat/completions"
        async with self._pace.slot(expected) as began:
            while self._stop is None and not self._ledger.reserve(most):  # what is on its way may cost less than was set aside
                self._settled.clear()
                await self._settled.wait()
            if self._stop is not None:
                raise Stopped
            try:
                answer = await chat.ask(self._client, url, body, headers, self._spec.timeout, used)
            except chat.Passing as error:
                if error.overloaded:
                    self._pace.overloaded(began, error.wait)
                raise
            finally:
                self._ledger.settle(most, used)
                self._settled.set()
        self._pace.answered(sum(u.prompt + u.completion for u in used) or expected, expected)
        return answer

    def _expected(self, request: Request) -> float:
        """Prompt tokens that a request may have: as many as any had so far, and before that a guess."""
        image = self._spec.image_tokens or self._spec.pixels / _PIXELS
        guess = image + (len(request.text) + len(request.system or "")) / _LETTERS
        return float(self._most_prompt or guess)

    def _pause(self, attempt: int, error: chat.Passing) -> float:
        """Seconds until a request is sent again.

        Raises:
            UserError: the endpoint asks for more than anybody would wait.
        """
        patience = self._engine._patience
        if error.wait is not None and error.wait > patience.longest_asked:
            raise UserError(
                f"{self._served.urls[0]}: asks to wait {error.wait:.0f} s ({self._plain(str(error))}); run again then"
            )
        doubled: float = min(patience.first * 2 ** (attempt - 1), patience.longest)
        return max(doubled * random.uniform(0.5, 1), error.wait or 0.0)

    def _response(self, answer: chat.Answer) -> Response:
        if answer.usage is None and self._spec.price is not None:
            raise UserError(f"{self._served.urls[0]}: does not tell what it bills (usage), as a `price` needs; drop that")
        self._failing.clear()
        self._most_prompt = max(self._most_prompt, answer.usage.prompt if answer.usage else 0)
        counts = chat.fields(answer) | {"image_tokens": None, "seconds": self._share(), "origin": answer.origin}
        return Response(answer.text, answer.finish_reason, **counts)

    async def _error(self, request: Request, words: str) -> Response:
        self._failing.add((request.image_id, request.text))
        words = self._plain(words)
        if len(self._failing) >= _IN_A_ROW:
            await self._halt(
                UserError(f"{self._served.urls[0]}: {_IN_A_ROW} requests in a row failed for good; the last: {words}")
            )
        return Response("", "error", None, None, None, self._share(), error=words)

    def _plain(self, words: str) -> str:
        """Words that may be written down: endpoints quote keys."""
        return words.replace(self._served.key, "***") if self._served.key else words

    def _share(self) -> float:
        """Seconds since the last response: together they are the time that all of them took."""
        now = time.perf_counter()
        share, self._last = now - self._last, now
        return share

    async def _picture(self, image_id: str) -> str:
        """Address of an image, encoded once for all its requests."""
        if image_id not in self._pictures:
            self._pictures[image_id] = asyncio.create_task(asyncio.to_thread(self._encoded, image_id))
        return await self._pictures[image_id]

    def _encoded(self, image_id: str) -> str:
        data = self._engine.png(image_id)
        if self._served.media is None:
            return f"data:image/png;base64,{base64.b64encode(data).decode()}"
        path = self._served.media.resolve() / f"{provenance.digest_text(image_id)}.png"
        with provenance.atomic(path) as part:
            part.write_bytes(data)
        return path.as_uri()

    async def _done_with(self, image_id: str) -> None:
        """Forget an image after the last of its requests."""
        self._uses[image_id] -= 1
        if self._uses[image_id] == 0:
            address = await self._pictures.pop(image_id)
            if self._served.media is not None:
                Path(urlsplit(address).path).unlink(missing_ok=True)
