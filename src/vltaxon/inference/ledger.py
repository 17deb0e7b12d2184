"""What an endpoint was asked for: tokens, and money where it has a price, within a ceiling for all jobs.

Where there is a price, what is spent is written to a file of the results as it is spent, so that a ceiling
holds over jobs and restarts. What a request may cost is written before it is sent, and taken back when it is
known what it did cost: one in flight when its job is killed, or when the disk is full, may have been billed,
and counts. The file is locked: the jobs of an endpoint go one after another, so that its
limits are kept by all of them together.
"""

import fcntl
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from vltaxon.config.models import Price
from vltaxon.errors import UserError
from vltaxon.inference.completions_api import Usage
from vltaxon.provenance import fits


class Ledger:
    """Tokens of this job, and money of all jobs. A context: the file is locked in it."""

    def __init__(self, file: Path, price: Price | None = None, budget: float | None = None) -> None:
        """Open nothing yet.

        Args:
            file: of what all jobs have spent.
            price: of the endpoint, None where nothing is paid.
            budget: ceiling of what all jobs spend.
        """
        self.file, self._price, self._budget = file, price, budget
        self.exchanges = self.prompt = self.cached = self.completion = self.untold = self._requests = 0
        self.spent = self._before = self._reserved = 0.0
        self._open: IO[str] | None = None

    def __enter__(self) -> Self:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._open = self.file.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._open, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another job is asking this endpoint; waiting until it has done", flush=True)
            fcntl.flock(self._open, fcntl.LOCK_EX)
        self._open.seek(0)
        lines = self._open.readlines()
        if lines and not lines[-1].endswith("\n"):  # of a job that was killed while it wrote
            self._open.write("\n")
        self._before = math.fsum(_number(line, "cost") for line in lines)
        if (lost := math.fsum(_number(line, "reserved") for line in lines)) > 0:
            words = "requests that were on their way when their jobs ended count for what they may have cost"
            print(f"{self.file}: {words}, {lost:.4f}", flush=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            with fits(self.file):
                self._open.close()

    def cost(self, prompt: float, completion: float, cached: float = 0) -> float:
        """Return the money for so many tokens; nothing where there is no price.

        Args:
            prompt: tokens of prompts.
            completion: tokens of completions.
            cached: tokens of the prompts that were found in a cache.
        """
        if self._price is None:
            return 0.0
        of_cached = self._price.input if self._price.cached is None else self._price.cached
        return (
            (prompt - cached) * self._price.input + cached * of_cached + completion * self._price.output
        ) / 1e6

    def reserve(self, cost: float) -> bool:
        """Set aside what a request may cost at most; False where that has to wait for others to be settled.

        Raises:
            UserError: it would go beyond the ceiling, whatever the others cost, or the disk is full.
        """
        total = self._before + self.spent
        if self._budget is not None and total + self._reserved + cost > self._budget:
            if self._requests:
                return False
            raise UserError(
                f"the budget of {self._budget:g} ends here: {total:.4f} were spent on this model, "
                f"{self.spent:.4f} of it by this job. What was answered is kept; raise `budget` in the "
                f"model's file and run again to go on ({self.file} has the sums)"
            )
        self._write({"reserved": cost, "cost": cost})
        self._reserved += cost
        self._requests += 1
        return True

    def settle(self, cost: float, usages: list[Usage]) -> None:
        """Give back what was reserved, and count what was used: all that was reserved where that is not told.

        Args:
            cost: that was reserved.
            usages: tokens of all attempts.

        Raises:
            UserError: the disk is full.
        """
        self._requests -= 1
        self._reserved = self._reserved - cost if self._requests else 0.0
        for usage in usages:
            prompt, cached, completion = usage.prompt or 0, usage.cached or 0, usage.completion or 0
            money = self.cost(prompt, completion, cached)
            if not usage.known:
                money = max(money, cost)
                self.untold += 1
            self.exchanges += 1
            self.prompt += prompt
            self.cached += cached
            self.completion += completion
            self.spent += money
            self._write({"tokens": [usage.prompt, usage.cached, usage.completion], "cost": money})
        self._write({"reserved": -cost, "cost": -cost})

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._price is not None and self._open is not None:
            with fits(self.file):
                self._open.write(json.dumps(line) + "\n")
                self._open.flush()

    @property
    def facts(self) -> dict[str, Any]:
        """Return the totals of this job."""
        tokens = {"prompt": self.prompt, "cached": self.cached, "completion": self.completion}
        facts: dict[str, Any] = {"tokens": tokens} | ({"untold": self.untold} if self.untold else {})
        return facts | ({"cost": round(self.spent, 6)} if self._price is not None else {})

    def __str__(self) -> str:
        share = f", {self.cached / self.prompt:.0%} of them cached" if self.cached else ""
        words = f"{self.exchanges:,} exchanges: {self.prompt:,} prompt tokens{share}"
        words += f", {self.completion:,} completion tokens"
        words += f"; {self.untold:,} did not tell what they cost" if self.untold else ""
        if self._price is None:
            return words
        limit = f" of a budget of {self._budget:g}" if self._budget is not None else ""
        total = self._before + self.spent
        return f"{words}; cost {self.spent:.4f}; all jobs of this model so far {total:.4f}{limit}"


def _number(line: str, name: str) -> float:
    """Return a number of a line; nothing of one that lacks it, or that a killed job left cut short."""
    try:
        return float(json.loads(line)[name])
    except (ValueError, KeyError, TypeError):
        return 0.0
