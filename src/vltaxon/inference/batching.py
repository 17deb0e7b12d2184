"""Which requests are computed together: those about one image, in batches, the longest first."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from vltaxon.errors import UserError
from vltaxon.inference.engine import Request

_LETTERS = 3  # of a token, at least, for a first guess of a prompt's length


@dataclass(frozen=True)
class Job:
    """Requests that are asked together, about one image or about none.

    Attributes:
        places: of the requests.
        tokens: a guess of those of a row.
        image_id: None where they are about no image.
    """

    places: tuple[int, ...]
    tokens: float
    image_id: str | None


class Batching:
    """How many rows and tokens a batch may have: halved each time that one did not fit the device."""

    def __init__(self, rows: int, tokens: float) -> None:
        """Begin with what the model's file says.

        Args:
            rows: of a batch, at most.
            tokens: of these together, at most.
        """
        self.rows, self.tokens = rows, tokens

    def jobs(self, requests: Sequence[Request], texts: Sequence[str], image: float, new: int) -> deque[Job]:
        """Return requests by image and system text, the longest first; those without image at the end.

        Args:
            requests: to be answered.
            texts: of each, as the model reads it.
            image: tokens of an image.
            new: tokens that an answer may have.
        """
        together: dict[tuple[str | int, str | None], list[int]] = {}
        for place, request in enumerate(requests):
            about = (
                place if request.image_id is None else request.image_id
            )  # what shares nothing is a job by itself
            together.setdefault((about, request.system), []).append(place)
        jobs = []
        for places in together.values():
            image_id = requests[places[0]].image_id
            for start in range(0, len(places), self.rows):
                some = tuple(places[start : start + self.rows])
                longest = max(len(texts[place]) for place in some) / _LETTERS
                jobs.append(Job(some, (image if image_id is not None else 0) + longest + new, image_id))
        return deque(sorted(jobs, key=lambda job: (job.image_id is None, -job.tokens, job.places)))

    def next_batch(self, waiting: deque[Job]) -> list[Job]:
        """Take the jobs of the next batch: as many of a kind as fit, one at least."""
        batch: list[Job] = []
        rows, longest = 0, 0.0
        while waiting and (not batch or (waiting[0].image_id is None) == (batch[0].image_id is None)):
            rows, longest = rows + len(waiting[0].places), max(longest, waiting[0].tokens)
            if batch and (rows > self.rows or rows * longest > self.tokens):
                break
            batch.append(waiting.popleft())
        return batch

    def smaller(self, batch: Sequence[Job], error: Exception) -> list[Job]:
        """Return the same work in smaller jobs, after it did not fit; later batches hold half as much, too.

        Args:
            batch: what did not fit.
            error: what the device said.

        Raises:
            UserError: it was a single request.
        """
        rows = sum(len(job.places) for job in batch)
        if rows == 1:
            advice = " Lower `pixels` of the model." if batch[0].image_id is not None else ""
            raise UserError(f"one request alone is too large for the device: {error}.{advice}") from error
        self.rows, self.tokens = max(1, rows // 2), max(1, self.tokens // 2)
        print(f"out of memory with {rows} rows; going on with {self.rows}")
        return [
            Job(job.places[start : start + self.rows], job.tokens, job.image_id)
            for job in batch
            for start in range(0, len(job.places), self.rows)
        ]
