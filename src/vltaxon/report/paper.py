"""The paper's tables (VL-Taxon, arXiv 2601.14610) beside ours: its rows and columns, each cell published and measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vltaxon.metrics.run import definitions
from vltaxon.report.cells import ROLES, TITLES, Cell, of_table
from vltaxon.report.estimates import OPEN, Estimate, Scores
from vltaxon.report.tables import INTERVALS, Column, as_csv, as_latex, as_markdown, meanings, write, written

POINT = 1.0  # ours within this many points of the published number counts as reproduced
ABSENT = "not in this experiment"
NO_LEAF = "no leaf right"
NOTES = {
    "table2": "The second row is given the true leaf: an oracle, never a result.",
    "table3": "The quoted numbers come from wordings of the question that differ by model; ours, from those that the config"
    " gives the systems (`variant`) or the data sets.",
    "table6": "Which stage's tokens the paper counts is not said: its numbers stand beside those of stage 2 (per answer); ours of"
    " stage 1 (per image) have a column of their own, without published numbers.",
}
_SIGNS = (
    "✓: ours lies within one point of the published number; ✗: it does not. In parentheses where the data set is not the paper's."
)
FIELDS = (
    "table", "row", "system", "dataset", "metric", "published", "ours", "low", "high", "n", "within_one_point", "comparable",
    "note", "source",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What the tables are made of: data sets by role, whether each is the paper's, the choices, and what each system is."""

    datasets: Mapping[str, str]
    comparable: Mapping[str, bool]
    choices: str
    systems: Mapping[str, str]


@dataclass(frozen=True)
class Compared:
    """A cell with our estimate; None where there is none, and then `note` says why."""

    cell: Cell
    ours: Estimate | None
    note: str = ""

    @property
    def column(self) -> Column:
        """How its number is written."""
        return Column(_title(self.cell.metric), self.cell.scored, self.cell.stage1)

    @property
    def value(self) -> float | None:
        """Ours as the paper writes it: percent, or tokens."""
        return None if self.ours is None else self.ours.value * (1 if self.column.amount else 100)

    @property
    def difference(self) -> float | None:
        """Ours less the published number."""
        return None if self.value is None or self.cell.value is None else self.value - self.cell.value

    @property
    def within(self) -> bool | None:
        """Whether ours lies within one point; None for an amount, and where one of the two is lacking."""
        if self.difference is None or self.column.amount:
            return None
        return abs(self.difference) <= POINT + 1e-9

    @property
    def published(self) -> str:
        """The published number in words."""
        return "-" if self.cell.value is None else f"{self.cell.value:.2f}"


def _title(metric: str) -> str:
    return "Stage 1 tokens" if metric == "stage1_tokens" else definitions()[metric].title


def compare(table: str, scores: Scores, setting: Setting) -> list[Compared]:
    """Each cell of a table with our estimate or the reason why there is none."""
    out = []
    for cell in of_table(table):
        choices = OPEN if cell.stage1 else setting.choices
        ours = scores.get(setting.datasets[cell.dataset], choices, cell.system, cell.scored)
        note = ""
        if cell.system not in setting.systems:
            ours, note = None, ABSENT
        elif ours is None:
            note = NO_LEAF if cell.metric.endswith("_given_leaf") else "not measured"
        out.append(Compared(cell, ours, note))
    return out


def tabulate_paper(table: str, scores: Path | None, setting: Setting, csv: Path, md: Path, tex: Path) -> None:
    """Write a table of the paper.

    Args:
        table: `table1` ... `table7`.
        scores: scores.parquet of the table's systems; None where the experiment has none of them.
        setting: data sets, choices and systems of the experiment.
        csv: a line per cell; numbers in percent or tokens.
        md: the paper's rows and columns for readers, with a caption.
        tex: the same as a booktabs table.
    """
    found = Scores({}) if scores is None else Scores.read(scores)
    compared = compare(table, found, setting)
    number = table.removeprefix("table")
    title = f"Table {number} of arXiv 2601.14610, published and ours. {TITLES[table]}"
    header, rows = _layout(compared, setting)
    notes = caption(compared, found, setting)
    write(csv, as_csv([_line(one, setting) for one in compared], FIELDS))
    listed = "\n".join(f"- {note}" for note in notes)
    write(md, f"# {title}\n\n{as_markdown(rows, header, left=2)}\n\n# How to read this\n\n{listed}\n")
    head = ["% Needs booktabs, graphicx and amssymb.", *(f"% {note}" for note in notes)]
    label = f"paper-{table}"
    short = f"{title}. {_comparability(compared, setting)}"
    write(tex, "\n".join([*head, as_latex(rows, header, short, label, left=2)]) + "\n")


def _line(one: Compared, setting: Setting) -> dict[str, object]:
    """A cell as a line of the CSV."""
    cell, scale = one.cell, 1 if one.column.amount else 100
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
    """Header and rows: two lines for a system, published and ours; one for a system that is not in the experiment."""
    columns = list(dict.fromkeys((one.cell.dataset, one.cell.metric) for one in compared))
    header = ["System", "", *(f"{role}: {_title(metric)}" for role, metric in columns)]
    rows = []
    for row in dict.fromkeys(one.cell.row for one in compared):
        cells = {(one.cell.dataset, one.cell.metric): one for one in compared if one.cell.row == row}
        line = [cells[column] for column in columns]
        absent = all(one.note == ABSENT for one in line)
        rows.append([row, f"published; {ABSENT}" if absent else "published", *(one.published for one in line)])
        if not absent:
            rows.append(["", "ours", *(_ours(one, setting.comparable[one.cell.dataset]) for one in line)])
    return header, rows


def _ours(one: Compared, comparable: bool) -> str:
    """Our number with its interval, and the sign or, for an amount, the difference; or why there is no number."""
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
    """Which data sets are not the paper's."""
    other = [role for role in _roles(compared) if not setting.comparable[role]]
    if not other:
        return "The data sets are the paper's."
    names = ", ".join(f"{setting.datasets[role]} for {ROLES[role]}" for role in other)
    return f"Not the paper's data sets ({names}): there, ours are not comparable with the published numbers."


def _gaps(compared: Sequence[Compared]) -> str:
    """What stands in the place of numbers that there are not."""
    notes = {one.note for one in compared}
    said = {
        "-: nothing was published.": any(one.cell.value is None for one in compared),
        f"{ABSENT.capitalize()}: the config has no such system.": ABSENT in notes,
        f"{NO_LEAF.capitalize()}: there is no image to take the share of.": NO_LEAF in notes,
    }
    return " ".join(sentence for sentence, needed in said.items() if needed)


def caption(compared: Sequence[Compared], scores: Scores, setting: Setting) -> list[str]:
    """What the table shows, a line each: data sets, numbers, signs, metrics, sources."""
    described = []
    for role in _roles(compared):
        name = setting.datasets[role]
        images = max((e.n for key, e in scores.found.items() if key[0] == name and key[5] == "all"), default=0)
        described.append(f"{role}: {name}" + (f", n = {images} images" if images else ""))
    metrics = list(dict.fromkeys(one.cell.scored for one in compared))
    shares = any(not one.column.amount for one in compared)
    amounts = any(one.column.amount for one in compared)
    sources: dict[str, list[str]] = {}
    for one in compared:
        if one.cell.source and one.cell.row not in sources.setdefault(one.cell.source, []):
            sources[one.cell.source].append(one.cell.row)
    every = len({one.cell.row for one in compared})
    mine = {one.cell.row: setting.systems[one.cell.system] for one in compared if one.cell.system in setting.systems}
    table = compared[0].cell.table
    return [
        f"Data sets: {'; '.join(described)}. {_comparability(compared, setting)}",
        f"Ours: {'; '.join(f'{row}: {what}' for row, what in mine.items()) or 'none'}.",
        f"Percent of the test images, {setting.choices} choices; in brackets {INTERVALS}.",
        *([_SIGNS] if shares else []),
        *(["Tokens are counts; after them, the difference to the published number."] if amounts else []),
        *([gaps] if (gaps := _gaps(compared)) else []),
        *([NOTES[table]] if table in NOTES else []),
        *meanings(metrics),
        *(f"Published: {source}" + ("." if len(rows) == every else f" ({'; '.join(rows)}).") for source, rows in sources.items()),
    ]
