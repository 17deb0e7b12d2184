"""How fast to ask an endpoint: as many requests at a time as it bears, and no more a minute than allowed.

The number begins low, doubles a round until the endpoint is first overloaded, is halved then, and rises by
one a round after that: additive increase, multiplicative decrease (Chiu and Jain 1989), as TCP has it.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_FIRST = 8


class Stopped(Exception):
    """Nothing more is to be sent."""


class RateLimit:
    """Slots for requests. A request that waits to be sent again holds none."""

    def __init__(
        self, most: int, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        """Begin with few slots.

        Args:
            most: slots there may ever be.
            requests_per_minute: that may begin.
            tokens_per_minute: that these may have together.
        """
        self.limit, self._most, self._active = float(min(most, _FIRST)), most, 0
        self._apart = 60 / requests_per_minute if requests_per_minute else 0.0
        self._per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._next_request = self._next_token = self._held_until = 0.0
        self._cut: float | None = None  # when the limit was last halved
        self._turn, self._changed, self._stop = asyncio.Lock(), asyncio.Condition(), asyncio.Event()

    async def stop(self) -> None:
        """Give no slot from now on, also to those who wait for one."""
        self._stop.set()
        async with self._changed:
            self._changed.notify_all()

    async def rest(self, seconds: float) -> None:
        """Wait.

        Raises:
            Stopped: meanwhile.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
            raise Stopped

    @asynccontextmanager
    async def slot(self, tokens: float) -> AsyncIterator[float]:
        """Hold a slot for a request of about `tokens`; yields the moment at which it was given.

        Raises:
            Stopped: before there was one.
        """
        async with self._turn:  # first come, first served
            await self._enter(tokens)
        try:
            yield time.monotonic()
        finally:
            async with self._changed:
                self._active -= 1
                self._changed.notify_all()

    async def _enter(self, tokens: float) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._active < int(self.limit) or self._stop.is_set())
            if self._stop.is_set():
                raise Stopped
            now = time.monotonic()
            if (wait := max(self._next_request, self._next_token, self._held_until) - now) <= 0:
                break
            await self.rest(wait)  # and look again: meanwhile others may have been told to wait longer
        self._active += 1
        self._next_request = now + self._apart
        self._next_token = max(now, self._next_token) + tokens * self._per_token

    def answered(self, tokens: float, expected: float) -> None:
        """Ask more at a time, after a request went well.

        Args:
            tokens: that it had.
            expected: that were counted for it.
        """
        self._next_token += (tokens - expected) * self._per_token
        self.limit = min(self._most, self.limit + (1.0 if self._cut is None else 1 / self.limit))

    def overloaded(self, began: float, wait: float | None) -> None:
        """Ask less at a time, after a request met an overloaded endpoint.

        Args:
            began: when it was sent.
            wait: seconds that the endpoint asks all to wait, None where it does not.
        """
        now = time.monotonic()
        if self._cut is None or began >= self._cut:  # requests sent before the last cut tell nothing about it
            self.limit, self._cut = max(1.0, self.limit / 2), now
        if wait is not None:
            self._held_until = max(self._held_until, now + wait)
