"""What the files of metrics say of themselves.

A metric is a file `per_image/NAME.sql`. Its head is the comment lines that it begins with, each
`-- KEY: VALUE`:

    title      name for readers
    meaning    what it is, in a sentence without a full stop
    unit       share (a number from 0 to 1, shown in percent) or count
    stage      1, where it is about stage 1 alone; 2, the questions, where absent
    aggregate  how the values of images become one number: see `aggregate`; mean where absent
    group      a table that it stands in, and its place there: `main 10`, with `, stage 1` for a column of
               stage 1 and `, as TITLE` where the column has another title
    interval   hidden, where tables show the number alone
    zeros      hidden, where readers are spared a column that is 0 for every row
    warn       `SHARE WORDS`: above this share, a line below the table warns with these words, a sentence
    none       why a system may have no value, in words

A query that gives several metrics has a line `-- metric: NAME` for each; what follows it is about that one
alone.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vltaxon.errors import UserError, suggest
from vltaxon.metrics.aggregate import MEAN, Aggregate

FOLDER = Path(__file__).parent
OPEN = "open_set"  # in place of choices: stage 1, as the views call it
_KEYS = (
    "title",
    "meaning",
    "unit",
    "stage",
    "aggregate",
    "group",
    "interval",
    "zeros",
    "warn",
    "none",
    "metric",
)
_PLACE = re.compile(r"(?P<group>\w+) (?P<order>\d+)(?P<first>, stage 1)?(, as (?P<title>.+))?")


class Place(NamedTuple):
    """A column of a group: `order` is its place there, `stage1` whether it is about stage 1."""

    group: str
    order: int
    stage1: bool
    title: str


class Limit(NamedTuple):
    """What a table warns of where a share is above a limit."""

    above: float
    words: str


@dataclass(frozen=True)
class Metric:
    """A metric, as the head of its file has it."""

    name: str
    file: Path
    title: str
    meaning: str
    share: bool
    stage1: bool
    aggregate: Aggregate
    places: tuple[Place, ...]
    interval: bool
    zeros: bool
    limit: Limit | None
    none: str | None


class Column(NamedTuple):
    """A column of a table: its metric, whether of stage 1 and with intervals, and of which species."""

    title: str
    metric: Metric
    stage1: bool = False
    interval: bool = True
    subset: str = "all"

    @property
    def name(self) -> str:
        """Return its name for machines."""
        stage = ["stage1"] if self.stage1 and not self.metric.stage1 else []
        return "_".join([*stage, self.metric.name, *([self.subset] if self.subset != "all" else [])])

    @property
    def scale(self) -> int:
        """Return what the numbers are multiplied with: shares are shown in percent."""
        return 100 if self.metric.share else 1


Metrics = Mapping[str, Metric]


def files(folder: Path = FOLDER) -> list[Path]:
    """Return the files of the metrics that a folder has, in order."""
    return sorted((folder / "per_image").glob("*.sql"))


def read(paths: Iterable[Path]) -> Metrics:
    """Read the heads of some files.

    Returns:
        the metrics by name, in the order of the files.

    Raises:
        UserError: a head lacks something, or says what it cannot; with all that is wrong, a line each.
    """
    found: dict[str, Metric] = {}
    problems: list[str] = []
    for path in paths:
        for section in _sections(path, problems):
            metric = _metric(path, section, problems)
            if metric is not None and metric.name in found:
                problems.append(f"{path}: {metric.name} is a metric of {found[metric.name].file}, too")
            elif metric is not None:
                found[metric.name] = metric
    for metric in found.values():
        alike = [other for other in found.values() if other.file == metric.file]
        if any(other.aggregate.columns != metric.aggregate.columns for other in alike):
            problems.append(f"{metric.file}: its metrics differ in the columns they need; give each a file")
        problems += [
            f'{metric.file}: aggregate: "{name}" is not {suggest(name, found)}'
            for name in metric.aggregate.metrics
            if name not in found or found[name].aggregate != MEAN
        ]
    if problems:
        lines = "\n".join(f"  {line}" for line in dict.fromkeys(problems))
        raise UserError(f"The heads of metrics have errors:\n{lines}")
    return found


def columns(metrics: Metrics, group: str) -> list[Column]:
    """Return the columns of a group in their order, those of equal order by name.

    Args:
        metrics: those that there are.
        group: as heads name it.
    """
    some = [(place, metric) for metric in metrics.values() for place in metric.places if place.group == group]
    some.sort(key=lambda one: (one[0].order, one[1].name))
    return [Column(place.title, metric, place.stage1, metric.interval) for place, metric in some]


def query(path: Path) -> str:
    """Return the SQL below the head of a file; empty where the metric is made of others."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("--")).strip()


def _sections(path: Path, problems: list[str]) -> list[dict[str, list[str]]]:
    """Return the values of a head by key for each metric; what comes before the first is said of all."""
    common: dict[str, list[str]] = {}
    sections: list[dict[str, list[str]]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("--"):
            break
        key, colon, value = line.removeprefix("--").strip().partition(": ")
        if not colon or key not in _KEYS:
            problems.append(
                f'{path}: "{line}": the head has lines `-- KEY: VALUE`, and "{key}" is not'
                f" {suggest(key, _KEYS)}"
            )
        elif key == "metric":
            sections.append({"metric": [value.strip()]})
        else:
            values = (sections[-1] if sections else common).setdefault(key, [])
            values.append(value.strip())
            if len(values) > 1 and key != "group":
                problems.append(f"{path}: {key} stands twice")
    return [common | section for section in sections or [{"metric": [path.stem]}]]


def _metric(path: Path, given: Mapping[str, list[str]], problems: list[str]) -> Metric | None:
    """Return the metric that a section is about, None where something is wrong with it."""
    name = given["metric"][0]
    one = {key: values[-1] for key, values in given.items()}
    wrong = [
        f"{path}: {name} has no line `-- {key}: ...`"
        for key in ("title", "meaning", "unit")
        if key not in one
    ]
    legal = {"unit": ("share", "count"), "stage": ("1", "2"), "interval": ("hidden",), "zeros": ("hidden",)}
    wrong += [
        f'{path}: {key}: "{one[key]}" is not {suggest(one[key], allowed)}'
        for key, allowed in legal.items()
        if key in one and one[key] not in allowed
    ]
    places = [_PLACE.fullmatch(value) for value in given.get("group", ())]
    wrong += [
        f"{path}: group: not of the form `main 10, stage 1, as TITLE`" for place in places if place is None
    ]
    warning = re.fullmatch(r"(0?\.\d+) (.+)", one["warn"]) if "warn" in one else None
    if "warn" in one and warning is None:
        wrong.append(f"{path}: warn: not of the form `0.01 WORDS`")
    try:
        aggregate = Aggregate.parse(one.get("aggregate", "mean"))
    except UserError as error:
        aggregate = None
        wrong.append(f"{path}: aggregate: {error}")
    problems += wrong
    if wrong or aggregate is None:
        return None
    stage1 = one.get("stage") == "1"
    return Metric(
        name=name,
        file=path,
        title=one["title"],
        meaning=one["meaning"],
        share=one["unit"] == "share",
        stage1=stage1,
        aggregate=aggregate,
        places=tuple(
            Place(
                place["group"],
                int(place["order"]),
                stage1 or bool(place["first"]),
                place["title"] or one["title"],
            )
            for place in places
            if place is not None
        ),
        interval="interval" not in one,
        zeros="zeros" not in one,
        limit=None if warning is None else Limit(float(warning[1]), warning[2]),
        none=one.get("none"),
    )
