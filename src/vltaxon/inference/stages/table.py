"""Tables of predictions: their rows, and the file that they are written to."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vltaxon import parsing, provenance, schemas
from vltaxon.inference.engine import Request, Response
from vltaxon.inference.stages.failures import FailedRequests

if TYPE_CHECKING:
    from tqdm import tqdm

Row = dict[str, Any]
Write = Callable[[pa.Table], None]

_MOST = 2**31 - 1  # of a column of tokens


@dataclass(frozen=True)
class Progress:
    """What counts the responses of a job: those that failed, and a bar that shows how far it is.

    `alike`: whether samples of a prompt that were drawn are all the same, of those that there were.
    """

    failures: FailedRequests
    bar: "tqdm[Any]"
    alike: set[bool] = field(default_factory=set)

    def count(self, request: Request, response: Response) -> None:
        """Count a response.

        Args:
            request: that was asked.
            response: to it.
        """
        self.failures.note(request, response)
        self.bar.update()

    def compare(self, samples: Sequence[Response]) -> None:
        """See whether the drawn samples of a prompt differ."""
        texts = [response.completion for response in samples if response.error is None]
        if len(texts) > 1:
            self.alike.add(len(set(texts)) == 1)

    def warnings(self) -> list[str]:
        """Return what readers of the table should know of its answers."""
        if self.alike != {True}:
            return []
        return [
            "the samples of every prompt are all the same, though they were to be drawn: what answers seems "
            "to ignore the temperature"
        ]

    def skip(self, number: int) -> None:
        """Count requests that are not asked."""
        self.bar.update(number)


@contextmanager
def written(
    output: Path, failures: FailedRequests, responses: int, late: Callable[[], Any], **facts: Any
) -> Iterator[tuple[Write, Progress]]:
    """Write a table of what a model answers; yield what adds rows to it, and what counts the responses.

    Args:
        output: the file, schema `PREDICTIONS`.
        failures: of the job.
        responses: how many there will be.
        late: gives what the file is stamped with at the end.
        facts: what else it is stamped with.

    Raises:
        UserError: more requests failed for good than a table may hold.
    """
    from tqdm import tqdm

    def ended() -> dict[str, Any]:
        if warnings := progress.warnings():
            print(*(f"warning: {words}" for words in warnings), sep="\n", flush=True)
        return dict(late()) | ({"warnings": warnings} if warnings else {})

    with (
        provenance.parquet_writer(output, schemas.PREDICTIONS, late=ended, **facts) as write,
        failures.watched(),
        tqdm(total=responses, desc=facts["stage"]["name"], mininterval=1) as bar,
    ):
        progress = Progress(failures, bar)
        yield write, progress


def table(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table of schema `PREDICTIONS`."""
    return pa.Table.from_pylist(list(rows), schemas.PREDICTIONS)


def row(stage: str, prompt_id: str, image_id: str, reading: parsing.Reading, **more: Any) -> Row:
    """Return a row of what was read of one response.

    Args:
        stage: leaf or answer.
        prompt_id: of the prompt that was asked.
        image_id: whose row it is.
        reading: what the response says.
        more: further columns; all others are null.
    """
    read = {
        "reasoning": reading.reasoning,
        "answer": reading.answer,
        "answer_index": reading.index,
        "outcome": reading.outcome,
    }
    ids = {"stage": stage, "prompt_id": prompt_id, "image_id": image_id}
    return dict.fromkeys(schemas.PREDICTIONS.names) | ids | read | more


def counts(response: Response) -> Row:
    """Return the columns of a row that tell what a response was and what it took."""
    return {
        "completion": response.completion if response.error is None else None,
        "finish_reason": response.finish_reason,
        "prompt_tokens": _counted(response.prompt_tokens),
        "image_tokens": _counted(response.image_tokens),
        "completion_tokens": _counted(response.completion_tokens),
        "cached_tokens": _counted(response.cached_tokens),
        "seconds": response.seconds,
    }


def _counted(tokens: int | None) -> int | None:
    """Return a number of tokens, None of one that cannot be: journals of before keep what endpoints said."""
    return tokens if tokens is not None and 0 <= tokens <= _MOST else None


def unreadable(response: Response) -> parsing.Reading | None:
    """Return the reading of a response that holds no completion to read; None where it holds one."""
    if response.error is not None:
        return parsing.Reading("error")
    return parsing.Reading("refused") if response.finish_reason in ("content_filter", "refusal") else None


def unasked(questions: pa.Table, outcome: Any, answer: Any, index: Any) -> pa.Table:
    """Return rows of answers that no model wrote.

    Args:
        questions: what they answer.
        outcome: one for all, or an array.
        answer: array of texts.
        index: array of the answers' places among the options, int8.
    """
    columns = {name: questions[name] for name in ("question_id", "image_id", "level")}
    columns |= {"outcome": outcome, "answer": answer, "answer_index": index}
    constant = {"stage": "answer", "prompt_id": ""}
    return pa.table(
        [
            columns[field.name]
            if field.name in columns
            else pa.repeat(pa.scalar(constant.get(field.name), field.type), len(questions))
            for field in schemas.PREDICTIONS
        ],
        names=schemas.PREDICTIONS.names,
    )


def option_at(questions: pa.Table, places: NDArray[np.int64]) -> pa.Array:
    """Return one option of each question.

    Args:
        questions: with their options.
        places: of the options, counted from 0, shape (questions,).
    """
    options = questions["options"].combine_chunks()
    return options.values.take(pa.array(options.offsets.to_numpy()[:-1] + places))
