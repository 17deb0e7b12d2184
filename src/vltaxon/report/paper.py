"""A paper's tables beside ours: its rows and columns, each cell published and measured."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vltaxon import papers
from vltaxon.metrics import heads
from vltaxon.metrics.heads import OPEN, Column, Metrics
from vltaxon.papers import Cell
from vltaxon.provenance import write_text
from vltaxon.report.estimates import Estimate, Scores
from vltaxon.report.forms import as_csv, as_latex, as_markdown, comments, plain
from vltaxon.report.tables import INTERVALS, meanings, written
from vltaxon.tasks.scoring import PaperTableTask, Setting

POINT = 1.0  # ours within this many points of the published number counts as reproduced
ABSENT = "not in this experiment"
_SIGNS = (
    "✓: ours lies within one point of the published number; ✗: it does not. In parentheses where the data set"
    " is not the paper's."
)
FIELDS = (
    "table", "row", "system", "dataset", "metric", "published", "ours", "low", "high", "n",
    "within_one_point", "comparable", "note", "source",
)  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """A cell with our estimate; None where there is none, and then `note` says why."""

    cell: Cell
    column: Column
    ours: Estimate | None
    note: str = ""

    @property
    def value(self) -> float | None:
        """Return our number as the paper writes it: percent, or tokens."""
        return None if self.ours is None else self.ours.value * self.column.scale

    @property
    def difference(self) -> float | None:
        """Return our number less the published one."""
        return None if self.value is None or self.cell.value is None else self.value - self.cell.value

    @property
    def within(self) -> bool | None:
        """Return whether ours lies within one point; None for an amount, and where one of the two lacks."""
        if self.difference is None or not self.column.metric.share:
            return None
        return abs(self.difference) <= POINT + 1e-9

    @property
    def published(self) -> str:
        """Return the published number in words."""
        return "-" if self.cell.value is None else f"{self.cell.value:.2f}"


def column(paper: str, metric: str, metrics: Metrics) -> Column:
    """Return how the numbers of a column of a paper are called and written.

    Args:
        paper: its name.
        metric: as its cells name it.
        metrics: those that there are.
    """
    own = papers.papers()[paper].columns.get(metric)
    if own is not None:
        return Column(own.title, metrics[own.metric], own.stage == 1)
    return Column(metrics[metric].title, metrics[metric], metrics[metric].stage1)


def compare(table: str, scores: Scores, setting: Setting, metrics: Metrics) -> list[Compared]:
    """Return each cell of a table with our estimate or the reason why there is none.

    Args:
        table: of the setting's paper.
        scores: of its systems.
        setting: data sets, choices and systems of the experiment.
        metrics: those that there are.
    """
    out = []
    for cell in papers.cells(setting.paper, table):
        shown = column(setting.paper, cell.metric, metrics)
        choices = OPEN if shown.stage1 else setting.choices
        ours = scores.get(setting.datasets[cell.dataset], choices, cell.system, shown.metric.name)
        note = ""
        if cell.system not in setting.systems:
            ours, note = None, ABSENT
        elif ours is None:
            note = shown.metric.none or "not measured"
        out.append(Compared(cell, shown, ours, note))
    return out


def tabulate(task: PaperTableTask) -> None:
    """Write a table of a paper: a line per cell in the CSV, the paper's rows and columns for readers."""
    setting, metrics = task.setting, heads.read(task.metrics)
    paper = papers.papers()[setting.paper]
    about = paper.tables[task.table]
    scores = Scores({}) if task.scores is None else Scores.read(task.scores)
    compared = compare(task.table, scores, setting, metrics)
    title = f"{about.label} of {paper.source}, published and ours. {about.title}"
    header, rows = _layout(compared, setting)
    notes = caption(task.table, compared, scores, setting)
    write_text(task.csv, as_csv([_line(one, setting) for one in compared], FIELDS))
    listed, table = "\n".join(f"- {plain(note)}" for note in notes), as_markdown(rows, header, left=2)
    write_text(task.md, f"# {plain(title)}\n\n{table}\n\n# How to read this\n\n{listed}\n")
    head = ["% Needs booktabs, graphicx and amssymb.", *comments(notes)]
    short = f"{title}. {_comparability(compared, setting)}"
    label = f"{setting.paper}-{task.table}"
    write_text(task.tex, "\n".join([*head, as_latex(rows, header, short, label, left=2)]) + "\n")


def _line(one: Compared, setting: Setting) -> dict[str, object]:
    """Return a cell as a line of the CSV."""
    cell, scale = one.cell, one.column.scale
    bounds = [] if one.ours is None else [round(scale * number, 4) for number in one.ours[:3]]
    line: dict[str, object] = {
        **cell._asdict(),
        "dataset": setting.datasets[cell.dataset],
        "published": "" if cell.value is None else f"{cell.value:.2f}",
        "n": "" if one.ours is None else one.ours.n,
        "within_one_point": "" if one.within is None else str(one.within).lower(),
        "comparable": str(setting.comparable[cell.dataset]).lower(),
        "note": one.note,
        **dict(zip(("ours", "low", "high"), bounds, strict=False)),
    }
    return {name: line.get(name, "") for name in FIELDS}


def _layout(compared: Sequence[Compared], setting: Setting) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: for a system two lines, published and ours, or one where we lack it."""
    titles = {(one.cell.dataset, one.cell.metric): one.column.title for one in compared}
    header = ["System", "", *(f"{role}: {title}" for (role, _), title in titles.items())]
    rows = []
    for row in dict.fromkeys(one.cell.row for one in compared):
        cells = {(one.cell.dataset, one.cell.metric): one for one in compared if one.cell.row == row}
        line = [cells[place] for place in titles]
        absent = all(one.note == ABSENT for one in line)
        rows.append(
            [row, f"published; {ABSENT}" if absent else "published", *(one.published for one in line)]
        )
        if not absent:
            rows.append(["", "ours", *(_ours(one, setting.comparable[one.cell.dataset]) for one in line)])
    return header, rows


def _ours(one: Compared, comparable: bool) -> str:
    """Return our number with its interval and sign, for a count the difference; or why there is none."""
    if one.ours is None:
        return one.note
    text = written(one.ours, one.column, 2)
    if one.within is not None:
        sign = "✓" if one.within else "✗"
        return f"{text} {sign if comparable else f'({sign})'}"
    return text if one.difference is None else f"{text} {one.difference:+.2f}"


def _roles(compared: Sequence[Compared]) -> list[str]:
    return list(dict.fromkeys(one.cell.dataset for one in compared))


def _comparability(compared: Sequence[Compared], setting: Setting) -> str:
    """Return, in words, which data sets are not the paper's."""
    other = [role for role in _roles(compared) if not setting.comparable[role]]
    if not other:
        return "The data sets are the paper's."
    own = papers.papers()[setting.paper].roles
    names = ", ".join(f"{setting.datasets[role]} for {own[role]}" for role in other)
    return f"Not the paper's data sets ({names}): there, ours are not comparable with the published numbers."


def _gaps(compared: Sequence[Compared]) -> str:
    """Return what stands in the place of numbers that there are not."""
    notes = {one.note for one in compared}
    lacking = dict.fromkeys(one.column.metric.none for one in compared if one.note == one.column.metric.none)
    sentences = {
        "-: nothing was published.": any(one.cell.value is None for one in compared),
        f"{ABSENT.capitalize()}: the config has no such system.": ABSENT in notes,
        **{f"{str(note).capitalize()}: there is no image to take the share of.": True for note in lacking},
    }
    return " ".join(sentence for sentence, needed in sentences.items() if needed)


def caption(table: str, compared: Sequence[Compared], scores: Scores, setting: Setting) -> list[str]:
    """Return what a table shows, a line each: data sets, numbers, signs, metrics, sources.

    Args:
        table: of the setting's paper.
        compared: its cells.
        scores: of its systems.
        setting: data sets, choices and systems of the experiment.
    """
    described = []
    for role in _roles(compared):
        name = setting.datasets[role]
        images = scores.images(name)
        lost, every = scores.lacking(name, setting.choices)
        lacking = f" ({lost} of {every} have no scored question)" if lost else ""
        described.append(f"{role}: {name}" + (f", n = {images} images{lacking}" if images else ""))
    shares = any(one.column.metric.share for one in compared)
    counts = any(not one.column.metric.share for one in compared)
    mine = {
        one.cell.row: setting.systems[one.cell.system]
        for one in compared
        if one.cell.system in setting.systems
    }
    note = papers.papers()[setting.paper].tables[table].note
    return [
        f"Data sets: {'; '.join(described)}. {_comparability(compared, setting)}",
        f"Ours: {'; '.join(f'{row}: {what}' for row, what in mine.items()) or 'none'}.",
        f"Percent of the test images, {setting.choices} choices; in brackets {INTERVALS}.",
        *([_SIGNS] if shares else []),
        *(["Tokens are counts; after them, the difference to the published number."] if counts else []),
        *([gaps] if (gaps := _gaps(compared)) else []),
        *([note] if note is not None else []),
        *meanings(one.column.metric for one in compared),
        *_sources(compared),
    ]


def _sources(compared: Sequence[Compared]) -> Iterable[str]:
    """Yield a line for each source of published numbers, with its rows where not all are from there."""
    rows: dict[str, dict[str, None]] = {}
    for one in compared:
        if one.cell.source:
            rows.setdefault(one.cell.source, {})[one.cell.row] = None
    every = len({one.cell.row for one in compared})
    for source, some in rows.items():
        yield f"Published: {source}" + ("." if len(some) == every else f" ({'; '.join(some)}).")
