"""Requests that failed for good: none becomes an answer, and too many of them end a job."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vltaxon import provenance
from vltaxon.errors import UserError
from vltaxon.inference.engine import Request, Response


@dataclass
class FailedRequests:
    """Requests that failed for good: where they are recorded, and which share of all a table may hold."""

    path: Path | None = None
    limit: float = 0.0
    failed: list[tuple[Request, str]] = field(default_factory=list)
    asked: int = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Record what failed in the block, whatever ended it.

        Raises:
            UserError: more failed than a table may hold.
        """
        try:
            yield
        finally:
            self._record()
        if len(self.failed) > self.limit * self.asked:
            raise UserError(self._summary())

    def note(self, request: Request, response: Response) -> None:
        """Count a response.

        Args:
            request: that was asked.
            response: to it.
        """
        self.asked += 1
        if response.error is not None:
            self.failed.append((request, response.error))

    def _record(self) -> None:
        """Write a line for each, in place of those of an earlier run."""
        if self.path is None:
            return
        if not self.failed:
            self.path.unlink(missing_ok=True)
            return
        lines = [
            json.dumps({"image_id": request.image_id, "text": request.text, "error": words})
            for request, words in self.failed
        ]
        with provenance.atomic(self.path) as part:
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _summary(self) -> str:
        """Return what went wrong, the most frequent first."""
        kinds = Counter(words[:160] for _, words in self.failed).most_common(5)
        where = f"{self.path} has them all; " if self.path is not None else ""
        listed = "".join(f"\n  {count:,} x {words}" for words, count in kinds)
        return (
            f"{len(self.failed):,} of {self.asked:,} requests ended as errors, so no table is written. "
            f"{where}run again to ask them again, or let the model's file allow a share of them "
            f"(max_errors). The most frequent:{listed}"
        )
