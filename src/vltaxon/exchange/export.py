"""Export questions and answers in the benchmark's formats."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from vltaxon import schemas
from vltaxon.errors import UserError
from vltaxon.parsing import LETTERS
from vltaxon.provenance import atomic, read_frame
from vltaxon.tasks.questions import ExportAnswersTask, ExportTask
from vltaxon.taxonomy import Taxonomy

UNKNOWN = "Unknown"  # what the benchmark writes where it reads no answer
Row = dict[str, Any]


def export_questions(task: ExportTask) -> None:
    """Write the test questions of a data set as the benchmark's JSON lines.

    Published ones come back as they came. Ours come in the order of image_id, and `image` is an image's path
    in its archive.
    """
    with atomic(task.output) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        for image, rest, asked in _entries(task):
            levels: Row = {}
            for level, question in asked.items():
                levels[f"level{level}"] = question["options"][question["answer_index"]]
                levels[f"choices_level{level}"] = question["options"]
            file.write(json.dumps({"image": image} | rest | levels | rest) + "\n")


def export_predictions(task: ExportAnswersTask) -> None:
    """Write a system's answers as the benchmark's JSON, for its metric script.

    That script stops at the first level that an entry lacks, and drops a null prediction, which shifts those
    below. So every level has both keys: what is no answer is "Unknown", and a level that is not asked is null
    on both sides. The script scores every level that is asked, from the second or (flag `--cub`) the first:
    it agrees with our metrics where these are the scored ones, so not where a level below has one option
    only, which we ask and do not score.

    Raises:
        UserError: a question has no answer, or two.
    """
    columns = ["question_id", "answer_index", "outcome", "completion"]
    answers = pl.concat([read_frame(path, schemas.PREDICTIONS, columns) for path in task.answers])
    if twice := len(answers) - answers["question_id"].n_unique():
        raise UserError(
            f"{task.output}: {twice} questions were answered twice; delete the answers and run again"
        )
    given: dict[str, Row] = answers.rows_by_key("question_id", named=True, unique=True)

    def entry(image: str, rest: Row, asked: Mapping[int, Row]) -> Row:
        found = {"image": image, "label": rest["label"]}
        for level in range(1, max(asked) + 1):
            if level in asked:
                if (answer := given.get(asked[level]["question_id"])) is None:
                    raise UserError(
                        f"{asked[level]['question_id']}: has no answer in {task.answers[0].parent}; delete "
                        "it and run again"
                    )
                found |= _answered(level, asked[level], answer)
            else:
                found |= {f"ground_truth_level{level}": None, f"predicted_level{level}": None}
        return found

    with atomic(task.output) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        for number, item in enumerate(_entries(task)):
            file.write((",\n" if number else "[\n") + json.dumps(entry(*item)))
        file.write("\n]\n")


def _answered(level: int, question: Row, answer: Row) -> Row:
    options = question["options"]
    index = answer["answer_index"] if answer["outcome"] == "answered" else None
    taken = any(
        option.lower() == UNKNOWN.lower() for option in options
    )  # a taxon of that name: no answer must not be right
    return {
        f"ground_truth_level{level}": options[question["answer_index"]],
        f"prediction_level{level}": answer["completion"],
        f"predicted_level{level}_letter": UNKNOWN if index is None else LETTERS[index],
        f"predicted_level{level}": options[index] if index is not None else "" if taken else UNKNOWN,
        f"choices_level{level}": dict(zip(LETTERS, options, strict=False)),
    }


def _entries(task: ExportTask) -> Iterator[tuple[str, Row, dict[int, Row]]]:
    """Yield the path of each image, what of its record no question holds, and its test questions by level."""
    asked = _asked(task)
    if task.records is not None:
        records = read_frame(task.records, schemas.PUBLISHED).filter(pl.col("image_id").is_not_null())
        for image, image_id, rest in records.select("image", "image_id", "rest").iter_rows():
            yield image, json.loads(rest), asked.get(image_id, {})
        return
    tree = Taxonomy.read(task.taxa)
    images = read_frame(task.images, schemas.IMAGES, ["image_id", "leaf", "member"])
    images = images.filter(pl.col("image_id").is_in(list(asked))).sort("image_id")
    for image_id, leaf, member in images.iter_rows():
        levels = asked[image_id]
        nulls: Row = {}
        for level in range(1, max(levels)):
            if level not in levels:
                nulls |= {f"level{level}": None, f"choices_level{level}": []}
        yield member, {"label": tree.name(leaf), "split": "test"} | nulls, levels


def _asked(task: ExportTask) -> dict[str, dict[int, Row]]:
    """Return the test questions by image and level, root first; our options in lower case."""
    columns = ["question_id", "image_id", "split", "level", "options", "answer_index", "source"]
    questions = read_frame(task.questions, schemas.QUESTIONS, columns).filter(pl.col("split") == "test")
    lower = pl.col("options").list.eval(pl.element().str.to_lowercase())
    shown = pl.when(pl.col("source") == "published").then("options").otherwise(lower)
    rows = questions.with_columns(options=shown).sort("level", maintain_order=True)
    return {
        image_id: {row["level"]: row for row in levels}
        for image_id, levels in rows.rows_by_key("image_id", named=True).items()
    }
