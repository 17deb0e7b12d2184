"""Stage 2, answered by a model: every question about the images, given the leaf of stage 1 or none."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import pyarrow as pa

from vltaxon import parsing
from vltaxon.config.protocols import Stage
from vltaxon.inference.engine import Engine, Request, Response
from vltaxon.inference.leaves import listed, read_leaves
from vltaxon.inference.stages import table
from vltaxon.inference.stages.failures import FailedRequests
from vltaxon.inference.stages.images import true_leaves
from vltaxon.inference.stages.questions import count_questions, question_windows
from vltaxon.inference.stages.requests import (
    complete,
    decoding,
    limited,
    prompt_id,
    render,
    system_text,
    window_size,
)
from vltaxon.inference.stages.samples import chosen
from vltaxon.inference.stages.table import Row
from vltaxon.tasks.asking import Asking
from vltaxon.tasks.prediction import AnswerTask

T = TypeVar("T")
Names = Mapping[str, parsing.Reading]  # of the leaf that each image's questions are conditioned on


def ask_questions(
    task: AnswerTask, engine: Engine, ids: Sequence[str], failures: FailedRequests | None = None
) -> None:
    """Ask a model every question of the images.

    Where stage 1 gave no name there is nothing to condition on: its outcome is recorded for the image's
    questions, and none is asked. Options are shown rotated; the indexes that are written are those of the
    question, unrotated.

    Args:
        task: what is asked, and where the table goes.
        engine: who answers.
        ids: images.
        failures: where requests that failed for good are recorded.

    Raises:
        UserError: more requests failed for good than a table may hold.
    """
    asking = task.asking
    assert isinstance(asking, Asking), "a model is asked"
    stage, names = limited(asking), _names(task, ids)
    facts = {
        "rule": "answer_questions",
        "seed": asking.seed,
        "weights": engine.digest,
        "prompt": prompt_id(asking),
        "stage": stage.model_dump(),
        "rotation": asking.rotation,
    }
    failures, responses = failures or FailedRequests(), count_questions(task.questions, ids) * stage.samples
    with table.written(task.predictions, failures, responses, lambda: engine.facts, **facts) as (
        write,
        progress,
    ):
        for window in question_windows(task.questions, ids, window_size(stage)):
            questions = window.to_pylist()
            requests = _requests(questions, names, asking)
            samples = complete(engine, list(requests.values()), decoding(asking), stage.samples, progress)
            progress.skip((len(questions) - len(requests)) * stage.samples)
            write(_answers(questions, dict(zip(requests, samples, strict=True)), names, asking))


def _names(task: AnswerTask, ids: Sequence[str]) -> Names:
    """Return the leaf that each image's questions are conditioned on: of stage 1, the true one, or none."""
    condition = task.asking.stage.condition
    if condition == "leaf":
        return read_leaves(listed(task.leaves), ids)
    if condition == "gold":
        assert task.taxa is not None, "the truth is in the taxonomy"
        gold = true_leaves(task.images, task.taxa, ids)
        return {image_id: parsing.Reading("answered", name) for image_id, name in gold.items()}
    return dict.fromkeys(ids, parsing.Reading("answered", ""))


def _requests(questions: Sequence[Row], names: Names, asking: Asking) -> dict[str, Request]:
    """Return the requests of a window by question, without those that have no leaf to be conditioned on."""
    requests: dict[str, Request] = {}
    for question in questions:
        image_id, options = question["image_id"], question["options"]
        if (leaf := names[image_id].answer) is not None:
            text = render(asking, question["rank"], rotated(options, asking.rotation), leaf)
            request = Request(image_id, text, system_text(asking), len(options))
            requests[question["question_id"]] = request
    return requests


def _answers(
    questions: Sequence[Row], samples: Mapping[str, Sequence[Response]], names: Names, asking: Asking
) -> pa.Table:
    """Return the rows of a window, in the order of its questions."""
    rows, stage, asked = [], limited(asking), prompt_id(asking)
    for question in questions:
        if (responses := samples.get(question["question_id"])) is None:
            reading = parsing.Reading(names[question["image_id"]].outcome)
            columns = {"question_id": question["question_id"], "level": question["level"]}
            columns["finish_reason"] = "not asked"
            rows.append(table.row("answer", asked, question["image_id"], reading, **columns))
        else:
            rows.append(chosen([_answered(question, response, stage, asking) for response in responses]))
    return table.table(rows)


def _answered(question: Row, response: Response, stage: Stage, asking: Asking) -> Row:
    """Return a row of stage 2: the option that was chosen, by both readings."""
    options, rotation = question["options"], asking.rotation
    shown, place = rotated(options, rotation), rotated(range(len(options)), rotation)
    reading = table.unreadable(response) or parsing.read_choice(
        response.completion, shown, stage.form, response.finish_reason
    )
    if reading.index is not None:
        reading = replace(reading, index=place[reading.index])
    published = parsing.published_index(response.completion, shown)
    letters = response.letters
    columns = table.counts(response) | {
        "question_id": question["question_id"],
        "level": question["level"],
        "published_index": None if published is None else place[published],
        "letters": None if letters is None else [letters[place.index(i)] for i in range(len(place))],
    }
    return table.row("answer", prompt_id(asking), question["image_id"], reading, **columns)


def rotated(options: Sequence[T], places: int) -> list[T]:
    """Return the options moved forward by `places`: the first comes to stand at that place.

    Args:
        options: in their order.
        places: by how many.
    """
    cut = -places % len(options)
    return [*options[cut:], *options[:cut]]
