"""Many requests to an endpoint at a time, each of which ends answered or as a recorded error."""

import asyncio
import random
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx2

from vltaxon.engines.server import Endpoint
from vltaxon.errors import UserError
from vltaxon.inference import completions_api
from vltaxon.inference.completions_api import Answer, Malformed, Passing, Refused, Usage
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.ledger import Ledger
from vltaxon.inference.rate_limit import RateLimit, Stopped
from vltaxon.inference.served import Patience, Served, completions
from vltaxon.inference.server_requests import SentImages, request_body

_IN_A_ROW = (
    50  # different requests that end as errors, none answered between them: then the endpoint is given up
)
_LETTERS = 3  # of a token of text, for what a first request may cost: rather too few than too many


@dataclass(frozen=True)
class Asked:
    """What is asked of whom."""

    spec: Endpoint
    served: Served
    requests: Sequence[Request]
    decoding: Decoding


@dataclass
class Experience:
    """What all requests to an endpoint so far have told.

    Attributes:
        prompt: most tokens of a prompt, with an image (True) and without.
        completion: most tokens of a completion, which may be beyond the limit where some are not shown.
        answered: whether there was a completion at all.
        warned: what has been warned of.
    """

    prompt: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    completion: int = 0
    answered: bool = False
    warned: set[str] = field(default_factory=set)

    def learn(self, shown: bool, usage: Usage) -> None:
        """Take in the tokens of an exchange.

        Args:
            shown: whether there was an image.
            usage: the tokens.
        """
        self.answered = True
        self.prompt[shown] = max(self.prompt[shown], usage.prompt or 0)
        self.completion = max(self.completion, usage.completion or 0)

    def warn(self, words: str) -> None:
        """Say something once."""
        if words not in self.warned:
            print(f"warning: {words}", flush=True)
            self.warned.add(words)


class RequestQueue:
    """Workers that take requests in the order of their images, and the responses that they have got."""

    def __init__(
        self, asked: Asked, images: SentImages, ledger: Ledger, patience: Patience, experience: Experience
    ) -> None:
        """Send nothing yet.

        Args:
            asked: requests, and whom they go to.
            images: of the requests.
            ledger: counts tokens and money.
            patience: how long to wait before a request is sent again.
            experience: with the endpoint, which grows.
        """
        self._spec, self._served, self._ledger, self._patience = asked.spec, asked.served, ledger, patience
        self._experience = experience
        self._requests, self._decoding, self._images = asked.requests, asked.decoding, images
        places = sorted(range(len(asked.requests)), key=lambda i: (asked.requests[i].image_id or "", i))
        self._order = iter(places)
        self._got: asyncio.Queue[tuple[int, Response] | None] = asyncio.Queue()
        self._stop: BaseException | None = None
        self._settled = asyncio.Event()
        self._failing: set[tuple[str | None, str]] = set()
        self._last = time.perf_counter()

    async def start(self) -> None:
        """Begin to send."""
        spec = self._spec
        most = spec.concurrency * len(self._served.urls)
        self._rate = RateLimit(most, spec.requests_per_minute, spec.tokens_per_minute)
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(
                None, connect=min(20.0, spec.timeout)
            ),  # the whole exchange has one of its own
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
            trust_env=spec.managed is None,  # no proxy between us and our own servers
        )
        # Twice as many workers as slots: some wait to send again, and hold none.
        workers = [asyncio.create_task(self._work()) for _ in range(min(2 * most, len(self._requests)))]
        self._all = asyncio.create_task(self._finish(workers))

    async def close(self) -> None:
        """End all exchanges."""
        if hasattr(self, "_client"):
            await self._client.aclose()

    async def ready(self) -> list[tuple[int, Response]]:
        """Return what has come since the last call, at least one; none at the end.

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
                await self._images.done_with(self._requests[at].image_id)
                self._got.put_nowait((at, response))
        except Stopped:
            pass
        except Exception as error:
            await self._halt(error)

    async def _halt(self, error: BaseException) -> None:
        """Send nothing more; what is on its way is waited for."""
        plain = UserError(self._served.plain(str(error))) if isinstance(error, UserError) else error
        self._stop = self._stop or plain
        self._settled.set()
        await self._rate.stop()

    async def _answer(self, request: Request) -> Response:
        """Return the response to a request, however many attempts it takes.

        Raises:
            Stopped: before there was one.
        """
        image = await self._images.address(request.image_id)
        body = request_body(self._spec, self._served.model, request, image, self._decoding)
        shapes = set[str]()  # once anything was answered, what cannot be read may pass as all else may
        for attempt in range(1, self._spec.attempts + 1):
            try:
                return self._response(request, await self._attempt(request, body))
            except Refused as error:
                return await self._error(request, str(error))
            except Passing as error:
                self._served.check()
                if isinstance(error, Malformed) and error.shape in shapes and not self._experience.answered:
                    raise UserError(
                        f"{self._served.urls[0]}: what it answers cannot be read, twice in the same way: "
                        f"{error}. Is `url` the base address of an OpenAI-compatible endpoint?"
                    ) from error
                if attempt == self._spec.attempts:
                    return await self._error(request, f"{attempt} attempts; the last: {error}")
                if isinstance(error, Malformed):
                    shapes.add(error.shape)
                await self._rate.rest(self._pause(attempt, error))
        raise AssertionError("no attempt at all")

    async def _attempt(self, request: Request, body: bytes) -> Answer:
        """Send a request once, in a slot of its own and within the budget."""
        expected = self._expected(request)
        used: list[Usage] = []
        new = max(self._decoding.max_new_tokens, self._experience.completion)
        most, url = self._ledger.cost(expected, new), completions(self._address(request))
        async with self._rate.slot(expected) as began:
            # what is on its way may cost less than was set aside
            while self._stop is None and not self._ledger.reserve(most):
                self._settled.clear()
                await self._settled.wait()
            if self._stop is not None:
                raise Stopped
            try:
                answer = await completions_api.ask(
                    self._client, self._served, url, body, self._spec.timeout, used
                )
            except Passing as error:
                if error.overloaded:
                    self._rate.overloaded(began, error.wait)
                raise
            finally:
                self._ledger.settle(most, used)
                self._settled.set()
        counted = sum((usage.prompt or 0) + (usage.completion or 0) for usage in used)
        self._rate.answered(counted or expected, expected)
        return answer

    def _address(self, request: Request) -> str:
        """Return the address that gets a request: all about an image go to one, whose cache is warm then."""
        about = request.image_id if request.image_id is not None else request.text
        return self._served.urls[zlib.crc32(about.encode()) % len(self._served.urls)]

    def _expected(self, request: Request) -> float:
        """Return the prompt tokens that a request may have: as many as any had so far, at first a guess."""
        shown = request.image_id is not None
        image = self._spec.visual_tokens() if shown else 0
        guess = image + (len(request.text) + len(request.system or "")) / _LETTERS
        return float(self._experience.prompt[shown] or guess)

    def _pause(self, attempt: int, error: Passing) -> float:
        """Return seconds until a request is sent again.

        Raises:
            UserError: the endpoint asks for more than anybody would wait.
        """
        patience = self._patience
        if error.wait is not None and error.wait > patience.longest_asked:
            raise UserError(
                f"{self._served.urls[0]}: asks to wait {error.wait:.0f} s ({error}); run again then"
            )
        doubled: float = min(patience.first * 2 ** (attempt - 1), patience.longest)
        return max(doubled * random.uniform(0.5, 1), error.wait or 0.0)

    def _response(self, request: Request, answer: Answer) -> Response:
        usage, shown, reason = answer.usage, request.image_id is not None, answer.finish_reason
        if not usage.known and self._spec.price is not None:
            self._experience.warn(
                f"{self._served.urls[0]} does not tell what it bills (usage); each such request is counted "
                "as the most that it may cost"
            )
        self._failing.clear()
        self._experience.learn(shown, usage)
        limit = self._spec.body.get(self._spec.limit_as)
        limit = limit if isinstance(limit, int) else self._decoding.max_new_tokens
        honest = self._spec.managed is not None or self._spec.server is not None  # and counts the end token
        if reason == "stop" and not honest and usage.written is not None and usage.written >= limit:
            reason = "length"
        counts = completions_api.fields(answer) | {"image_tokens": None if shown else 0}
        return Response(answer.text, reason, **counts, seconds=self._share(), origin=answer.origin)

    async def _error(self, request: Request, words: str) -> Response:
        self._failing.add((request.image_id, request.text))
        words = self._served.plain(words)
        if len(self._failing) >= _IN_A_ROW:
            failed = f"{_IN_A_ROW} requests in a row failed for good; the last: {words}"
            await self._halt(UserError(f"{self._served.urls[0]}: {failed}"))
        return Response("", "error", None, None, None, self._share(), error=words)

    def _share(self) -> float:
        """Return seconds since the last response: together they are the time that all of them took."""
        now = time.perf_counter()
        share, self._last = now - self._last, now
        return share
