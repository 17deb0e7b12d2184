"""Exchange with the benchmark (Tan et al., arXiv 2505.24840): its questions in, our questions and answers out, in its formats.

Questions are JSON lines, a record an image: `image` (a path), `label`, `split`, and for k = 1, 2, ... from the root
`level{k}` (the taxon, lower case) and `choices_level{k}` (the options, truth included, in the order shown). A null level is not
asked and leaves no gap. Answers are one JSON list, an entry an image: per level asked `ground_truth_level{k}`,
`prediction_level{k}` (the completion), `predicted_level{k}_letter`, `predicted_level{k}`, `choices_level{k}` (letter -> option).
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vltaxon import schemas
from vltaxon.data.taxa import is_name
from vltaxon.errors import UserError
from vltaxon.parsing import LETTERS
from vltaxon.provenance import atomic, read_parquet, write_parquet
from vltaxon.tasks.questions import ExportAnswersTask, ExportTask, ImportTask
from vltaxon.taxonomy import Taxonomy, normalise

Row = dict[str, Any]

UNKNOWN = "Unknown"  # what the benchmark writes where it reads no answer
_LEVEL = re.compile(r"(?:choices_)?level\d+")


@dataclass(frozen=True)
class Record:
    """A line of an annotation file.

    Attributes:
        line: 1-based.
        image: the path as written.
        asked: options and the index of the right one, by level.
        rest: the keys that these do not hold: label, split, null levels, and any that the format does not know.
    """

    line: int
    image: str
    asked: Mapping[int, tuple[list[str], int]]
    rest: Row

    def taxon(self, level: int) -> str:
        """The right option of a level that is asked."""
        options, right = self.asked[level]
        return options[right]


def git_blob(data: bytes) -> str:
    """The digest by which git knows a file: `git hash-object FILE`."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def read_annotations(path: Path, blob: str | None = None) -> list[Record]:
    """Read an annotation file of the benchmark.

    Args:
        path: JSON lines in UTF-8.
        blob: git blob digest that the file must have.

    Raises:
        UserError: no such file, another digest, no record at all, or a line that is no sound record; its number is given.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; is the path of the annotations right?") from error
    if blob is not None and (found := git_blob(data)) != blob:
        raise UserError(
            f"{path}: its git blob digest is {found}, but the data set's file expects {blob}; "
            "get the file again, as it was published"
        )
    lines = enumerate(data.split(b"\n"), start=1)
    records = [_record(raw, number, f"{path}, line {number}") for number, raw in lines if raw.strip()]
    if not records:
        raise UserError(f"{path}: is empty; it must hold a JSON record a line")
    return records


def _once(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f'key "{Counter(key for key, _ in pairs).most_common(1)[0][0]}" stands twice')
    return found


def _record(raw: bytes, number: int, where: str) -> Record:
    try:
        rest = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not readable as JSON in UTF-8: {error}") from error
    if not isinstance(rest, dict):
        raise UserError(f"{where}: is no JSON object")
    for key in ("image", "label", "level1"):
        if key not in rest:
            raise UserError(
                f"{where}: has no {key}; a record has image, label, and level1, choices_level1, level2, ..."
            )
    for key in ("image", "label"):
        if not is_name(rest[key]):
            raise UserError(f"{where}: {key} is no text")
    asked: dict[int, tuple[list[str], int]] = {}
    level = 1
    while (key := f"level{level}") in rest:
        name: object = rest[key]
        options: Any = rest.get(f"choices_{key}")
        if name is not None:
            right = _right(name, options, f"{where}: {key}")
            asked[level] = options, right
            del rest[f"choices_{key}"]
            if options[right] == name:  # else spelt otherwise, which is to be given back
                del rest[key]
        elif options:
            raise UserError(f"{where}: {key} is null, but choices_{key} has options")
        level += 1
    known = {f"{prefix}level{number}" for number in range(1, level) for prefix in ("", "choices_")}
    if odd := [key for key in rest if _LEVEL.fullmatch(key) and key not in known]:
        raise UserError(
            f"{where}: has {odd[0]} but no level{level}; levels are counted without gaps, null where there is none"
        )
    return Record(number, rest.pop("image"), asked, rest)


def _right(name: object, options: Any, where: str) -> int:
    """Check the options of a level, and find the right one."""
    if not is_name(name):
        raise UserError(f"{where}: is neither text nor null")
    if not isinstance(options, list) or not options or not all(map(is_name, options)):
        raise UserError(f"{where}: its choices are no list of names")
    if len(options) > len(LETTERS):
        raise UserError(f"{where}: has {len(options)} choices, but there are {len(LETTERS)} letters")
    keys = [normalise(option) for option in options]
    if len(set(keys)) < len(keys):
        raise UserError(f'{where}: choice "{Counter(keys).most_common(1)[0][0]}" stands twice')
    if normalise(name) not in keys:
        raise UserError(f'{where}: "{name}" is not among its choices {", ".join(options)}')
    return keys.index(normalise(name))


def import_published(task: ImportTask) -> None:
    """Write the benchmark's questions about the test images of a data set, options and order as published.

    Records about images that the data set lacks are kept in `records` (schema `PUBLISHED`, in the order of the file) with the
    reason, counted in the log, and not asked. The questions have the schema `QUESTIONS` and the source `published`; one with one
    option is never scored.

    Raises:
        UserError: the file is not sound (`read_annotations`), two records or two images are one by their paths, no image is in
            the data set, one is in its train split, or a record contradicts the taxa or the taxonomy.
    """
    annotations, taxa, parts = task.annotations, task.taxa, task.parts
    found, tree = read_annotations(annotations, task.blob), Taxonomy.read(taxa)
    if task.taxonomy is not None:
        _demand_known(found, Taxonomy.read(task.taxonomy), annotations)
    reasons = _reasons(task.index, task.rejected, task.drawn, parts)
    unknown = "not in the archive" if task.index is not None else "not among the images"
    asked: list[Row] = []
    kept: list[Row] = []
    for record, image in _placed(found, read_parquet(task.images, schemas.IMAGES), annotations, parts):
        reason = "all levels are null" if not record.asked else None
        if image is None:
            reason = reasons.get(_tail(record.image, parts), unknown)
        image_id = image["image_id"] if image is not None and reason is None else None
        rest = json.dumps(record.rest)
        kept.append(
            {"line": record.line, "image": record.image, "image_id": image_id, "reason": reason, "rest": rest}
        )
        if image is not None and image_id is not None:
            _demand_lineage(record, tree, image["leaf"], f"{annotations}, line {record.line}", taxa)
            asked += _questions(record, image_id, tree.ranks, task.scored_levels)
    if not asked:
        raise UserError(
            f"{annotations}: none of its {len(found)} images is a test image of the data set; the first is "
            f"{found[0].image}: {kept[0]['reason']}. Images are compared by the last {parts} parts of their paths (`parts`). "
            "Are these the annotations of this data set?"
        )
    print(_summary(annotations, kept, len(asked)))
    stamp = {
        "rule": "import_published",
        "annotations": annotations.name,
        "blob": git_blob(annotations.read_bytes()),
    }
    table = pa.Table.from_pylist(asked, schemas.QUESTIONS).sort_by(
        [("image_id", "ascending"), ("level", "ascending")]
    )
    write_parquet(table, task.questions, schemas.QUESTIONS, **stamp)
    write_parquet(pa.Table.from_pylist(kept, schemas.PUBLISHED), task.records, schemas.PUBLISHED, **stamp)


def _tail(path: str, parts: int) -> str:
    return "/".join([part for part in path.split("/") if part][-parts:])


def _reasons(index: Path | None, rejected: Path, drawn: bool, parts: int) -> dict[str, str]:
    """Why a member of the archive may be none of the data set's images, by the tail of its path."""
    left = "not drawn (images_per_leaf)" if drawn else "not of this data set"
    members = (
        read_parquet(index, schemas.ARCHIVE, ["member"])["member"].to_pylist() if index is not None else []
    )
    refused = read_parquet(rejected, schemas.REJECTED).to_pylist()
    return {_tail(member, parts): left for member in members} | {
        _tail(row["member"], parts): f"rejected: {row['reason']}" for row in refused
    }


def _placed(
    records: Sequence[Record], images: pa.Table, where: Path, parts: int
) -> Iterator[tuple[Record, Row | None]]:
    """Each record with the row of its image, None where there is none."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in images.select(["image_id", "split", "leaf", "member"]).to_pylist():
        rows[_tail(row["member"], parts)].append(row)
    first: dict[str, int] = {}
    for record in records:
        tail = _tail(record.image, parts)
        if (line := first.setdefault(tail, record.line)) != record.line:
            raise UserError(
                f"{where}, lines {line} and {record.line}: both are about {tail}; raise `parts` if these are two images"
            )
        mine = rows.get(tail, [])
        if len(mine) > 1:
            raise UserError(
                f"{where}, line {record.line}: {tail} is {mine[0]['member']} as well as {mine[1]['member']}; raise `parts`, "
                "the number of last parts of a path that tell an image"
            )
        if mine and mine[0]["split"] != "test":
            raise UserError(
                f"{where}, line {record.line}: {tail} is in the {mine[0]['split']} split, and cannot be scored on"
            )
        yield record, mine[0] if mine else None


def _demand_lineage(record: Record, tree: Taxonomy, leaf: str, where: str, taxa: Path) -> None:
    """Refuse a record whose taxa are not those of its image's leaf; it would be scored against another truth."""
    for level in record.asked:
        if level > len(tree.ranks):
            raise UserError(
                f"{where}: has level{level}, but the data set has {len(tree.ranks)} ranks: {', '.join(tree.ranks)}"
            )
        taxon = tree.taxon(leaf, level)
        if taxon is None or normalise(taxon) != normalise(record.taxon(level)):
            known = "none" if taxon is None else f'"{taxon}"'
            raise UserError(
                f'{where}: level{level} is "{record.taxon(level)}", but {taxa} says of {leaf}: {tree.ranks[level - 1]} {known}'
            )


def _demand_known(records: Sequence[Record], tree: Taxonomy, where: Path) -> None:
    """Refuse a record that is no path of the benchmark's taxonomy, or whose options are no labels of their level."""
    labels = [{normalise(label) for label in tree.labels(level)} for level in range(1, len(tree.ranks) + 1)]
    paths: dict[tuple[int, str], set[tuple[str | None, ...]]] = defaultdict(set)
    for lineage in tree.lineages.values():
        keys = tuple(None if taxon is None else normalise(taxon) for taxon in lineage)
        for level, key in enumerate(keys, start=1):
            if key is not None:
                paths[level, key].add(keys[:level])
    for record in records:
        names = {level: normalise(record.taxon(level)) for level in record.asked}
        deepest = max(names, default=0)
        if names and not any(
            all(path[level - 1] == name for level, name in names.items())
            for path in paths[deepest, names[deepest]]
        ):
            raise UserError(
                f"{where}, line {record.line}: {' > '.join(names.values())} is no path of the taxonomy"
            )
        for level, (options, _) in record.asked.items():
            if odd := [option for option in options if normalise(option) not in labels[level - 1]]:
                raise UserError(
                    f'{where}, line {record.line}: choice "{odd[0]}" is no {tree.ranks[level - 1]} of the taxonomy'
                )


def _questions(
    record: Record, image_id: str, ranks: Sequence[str], scored_levels: Sequence[int]
) -> Iterator[Row]:
    for level, (options, right) in record.asked.items():
        yield dict.fromkeys(schemas.QUESTIONS.names) | {
            "question_id": f"{image_id}:{level}",
            "image_id": image_id,
            "split": "test",
            "level": level,
            "rank": ranks[level - 1],
            "options": options,
            "answer_index": right,
            "scored": level in scored_levels and len(options) > 1,
            "source": "published",
        }


def _summary(annotations: Path, kept: Sequence[Row], questions: int) -> str:
    """What was asked and what was not, with the first images of each reason."""
    left: dict[str, list[str]] = defaultdict(list)
    for row in kept:
        if row["reason"] is not None:
            left[row["reason"]].append(row["image"])
    lines = [
        f"{annotations}: {len(kept)} records, {sum(row['reason'] is None for row in kept)} asked in {questions} questions"
    ]
    return "\n".join(
        lines + [f"  {len(names)} {reason}: {', '.join(names[:3])}" for reason, names in sorted(left.items())]
    )


def export_questions(task: ExportTask) -> None:
    """Write the test questions of a data set as the benchmark's JSON lines; published ones come back as they came.

    Ours come in the order of image_id, and `image` is an image's path in its archive.
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

    That script stops at the first level that an entry lacks, and drops a null prediction, which shifts those below. So every
    level has both keys: what is no answer is "Unknown", and a level that is not asked is null on both sides. The script scores
    every level that is asked, from the second or (flag `--cub`) the first: it agrees with our metrics where these are the scored
    ones, so not where a level below has one option only, which we ask and do not score.

    Raises:
        UserError: a question has no answer, or two.
    """
    columns = ["question_id", "answer_index", "outcome", "completion"]
    rows = [
        row for path in task.answers for row in read_parquet(path, schemas.PREDICTIONS, columns).to_pylist()
    ]
    given = {row["question_id"]: row for row in rows}
    if len(given) < len(rows):
        raise UserError(
            f"{task.output}: {len(rows) - len(given)} questions were answered twice; delete the answers and run again"
        )

    def entry(image: str, rest: Row, asked: Mapping[int, Row]) -> Row:
        found = {"image": image, "label": rest["label"]}
        for level in range(1, max(asked) + 1):
            if level in asked:
                if (answer := given.get(asked[level]["question_id"])) is None:
                    raise UserError(
                        f"{asked[level]['question_id']}: has no answer in {task.answers[0].parent}; delete it and run again"
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
    """Per image its path, the keys of its record that no question holds, and its test questions by level, root first."""
    table = read_parquet(
        task.questions,
        schemas.QUESTIONS,
        ["question_id", "image_id", "split", "level", "options", "answer_index", "source"],
    )
    asked: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in table.filter(pc.equal(table["split"], "test")).sort_by("level").to_pylist():
        shown = (
            row["options"] if row["source"] == "published" else [option.lower() for option in row["options"]]
        )
        asked[row["image_id"]][row["level"]] = row | {"options": shown}
    if task.records is not None:
        for row in read_parquet(task.records, schemas.PUBLISHED).to_pylist():
            if row["image_id"] is not None:
                yield row["image"], json.loads(row["rest"]), asked[row["image_id"]]
        return
    tree, table = (
        Taxonomy.read(task.taxa),
        read_parquet(task.images, schemas.IMAGES, ["image_id", "leaf", "member"]),
    )
    places = {row["image_id"]: row for row in table.to_pylist()}
    for image_id, levels in sorted(asked.items()):
        lineage = tree.lineages[places[image_id]["leaf"]]
        label = next(taxon for taxon in reversed(lineage) if taxon is not None)
        gaps = [level for level in range(1, max(levels)) if level not in levels]
        nulls: Row = {
            key: value
            for level in gaps
            for key, value in ((f"level{level}", None), (f"choices_level{level}", []))
        }
        yield places[image_id]["member"], {"label": label, "split": "test"} | nulls, levels
