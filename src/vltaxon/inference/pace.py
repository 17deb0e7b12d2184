"""How fast to ask an endpoint: as many requests at a time as it bears, within a bound, and no more a minute than it allows.

The number begins low, doubles a round until the endpoint is first overloaded, is halved then, and rises by one a round after
that: additive increase, multiplicative decrease (Chiu and Jain 1989), as TCP has it.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_FIRST = 8


class Pace:
    """Slots for requests. A request that waits to be sent again holds none."""

    def __init__(self, most: int, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self.limit, self._most, self._active = float(min(most, _FIRST)), most, 0
        self._apart = 60 / requests_per_minute if requests_per_minute else 0.0
        self._per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._next_request = self._next_token = self._held_until = 0.0
        self._cut: float | None = None  # when the limit was last halved
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def slot(self, tokens: float) -> AsyncIterator[float]:
        """Hold a slot for a request of about `tokens`; yields the moment at which it was given."""
        while (wait := await self._entered(tokens)) > 0:
            await asyncio.sleep(wait)
        try:
            yield time.monotonic()
        finally:
            async with self._changed:
                self._active -= 1
                self._changed.notify_all()

    async def _entered(self, tokens: float) -> float:
        """Take a slot, or say in how many seconds to try again."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._active < int(self.limit))
            now = time.monotonic()
            wait = max(self._next_request, self._next_token, self._held_until) - now
            if wait <= 0:
                self._active += 1
                self._next_request = now + self._apart
                self._next_token = max(now, self._next_token) + tokens * self._per_token
            return wait

    def answered(self, tokens: float, expected: float) -> None:
        """A request went well; it had `tokens` where so many were `expected`."""
        self._next_token += (tokens - expected) * self._per_token
        self.limit = min(self._most, self.limit + (1.0 if self._cut is None else 1 / self.limit))

    def overloaded(self, began: float, wait: float | None) -> None:
        """A request that began then met an overloaded endpoint, which may ask all to wait for some seconds."""
        now = time.monotonic()
        if self._cut is None or began >= self._cut:  # requests sent before the last cut tell nothing about it
            self.limit, self._cut = max(1.0, self.limit / 2), now
        if wait is not None:
            self._held_until = max(self._held_until, now + wait)
