"""Many requests to an endpoint at a time, each of which ends answered or as a recorded error."""

import asyncio
import random
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import httpx2

from vltaxon.engines.server import Endpoint
from vltaxon.errors import UserError
from vltaxon.inference import completions_api
from vltaxon.inference.completions_api import Answer, Passing, Refused, Usage
from vltaxon.inference.engine import Decoding, Request, Response
from vltaxon.inference.ledger import Ledger
from vltaxon.inference.rate_limit import RateLimit, Stopped
from vltaxon.inference.served import Patience, Served
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


class RequestQueue:
    """Workers that take requests in the order of their images, and the responses that they have got."""

    def __init__(self, asked: Asked, images: SentImages, ledger: Ledger, patience: Patience) -> None:
        """Send nothing yet.

        Args:
            asked: requests, and whom they go to.
            images: of the requests.
            ledger: counts tokens and money.
            patience: how long to wait before a request is sent again.
        """
        self._spec, self._served, self._ledger, self._patience = asked.spec, asked.served, ledger, patience
        self._requests, self._decoding, self._images = asked.requests, asked.decoding, images
        places = sorted(range(len(asked.requests)), key=lambda i: (asked.requests[i].image_id or "", i))
        self._order = iter(places)
        self._got: asyncio.Queue[tuple[int, Response] | None] = asyncio.Queue()
        self._stop: BaseException | None = None
        self._settled = asyncio.Event()
        self._failing: set[tuple[str | None, str]] = set()
        self._most_prompt = {True: 0, False: 0}  # tokens of a prompt so far, with an image and without
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
        self._images.close()

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
        plain = UserError(self._plain(str(error))) if isinstance(error, UserError) else error
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
        for attempt in range(1, self._spec.attempts + 1):
            try:
                return self._response(request, await self._attempt(request, body))
            except Refused as error:
                return await self._error(request, str(error))
            except Passing as error:
                self._served.check()
                if attempt == self._spec.attempts:
                    return await self._error(request, f"{attempt} attempts; the last: {error}")
                await self._rate.rest(self._pause(attempt, error))
        raise AssertionError("no attempt at all")

    async def _attempt(self, request: Request, body: bytes) -> Answer:
        """Send a request once, in a slot of its own and within the budget."""
        expected = self._expected(request)
        used: list[Usage] = []
        most = self._ledger.cost(expected, self._decoding.max_new_tokens)
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        if self._served.key is not None:
            headers["Authorization"] = f"Bearer {self._served.key}"
        url = f"{self._address(request)}/chat/completions"
        async with self._rate.slot(expected) as began:
            # what is on its way may cost less than was set aside
            while self._stop is None and not self._ledger.reserve(most):
                self._settled.clear()
                await self._settled.wait()
            if self._stop is not None:
                raise Stopped
            try:
                answer = await completions_api.ask(self._client, url, body, headers, self._spec.timeout, used)
            except Passing as error:
                if error.overloaded:
                    self._rate.overloaded(began, error.wait)
                raise
            finally:
                self._ledger.settle(most, used)
                self._settled.set()
        self._rate.answered(sum(u.prompt + u.completion for u in used) or expected, expected)
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
        return float(self._most_prompt[shown] or guess)

    def _pause(self, attempt: int, error: Passing) -> float:
        """Return seconds until a request is sent again.

        Raises:
            UserError: the endpoint asks for more than anybody would wait.
        """
        patience = self._patience
        if error.wait is not None and error.wait > patience.longest_asked:
            raise UserError(
                f"{self._served.urls[0]}: asks to wait {error.wait:.0f} s ({self._plain(str(error))}); "
                "run again then"
            )
        doubled: float = min(patience.first * 2 ** (attempt - 1), patience.longest)
        return max(doubled * random.uniform(0.5, 1), error.wait or 0.0)

    def _response(self, request: Request, answer: Answer) -> Response:
        if answer.usage is None and self._spec.price is not None:
            raise UserError(
                f"{self._served.urls[0]}: does not tell what it bills (usage), as a `price` needs; drop that"
            )
        self._failing.clear()
        shown = request.image_id is not None
        prompt = answer.usage.prompt if answer.usage else 0
        self._most_prompt[shown] = max(self._most_prompt[shown], prompt)
        counts = completions_api.fields(answer) | {"image_tokens": None if shown else 0}
        return Response(
            answer.text, answer.finish_reason, **counts, seconds=self._share(), origin=answer.origin
        )

    async def _error(self, request: Request, words: str) -> Response:
        self._failing.add((request.image_id, request.text))
        words = self._plain(words)
        if len(self._failing) >= _IN_A_ROW:
            failed = f"{_IN_A_ROW} requests in a row failed for good; the last: {words}"
            await self._halt(UserError(f"{self._served.urls[0]}: {failed}"))
        return Response("", "error", None, None, None, self._share(), error=words)

    def _plain(self, words: str) -> str:
        """Return words that may be written down: endpoints quote keys."""
        return words.replace(self._served.key, "***") if self._served.key else words

    def _share(self) -> float:
        """Return seconds since the last response: together they are the time that all of them took."""
        now = time.perf_counter()
        share, self._last = now - self._last, now
        return share
