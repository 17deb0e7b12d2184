"""The main table: CSV for machines, Markdown for readers, LaTeX for papers; in percent, with 95 % intervals."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate as layout

from vltaxon import schemas
from vltaxon.metrics.run import definitions
from vltaxon.provenance import atomic
from vltaxon.report.estimates import OPEN, Estimate, Scores


class Column(NamedTuple):
    """A column: its title, the metric, whether it comes from stage 1 (`open_set`), and whether the interval is shown."""

    title: str
    metric: str
    stage1: bool = False
    interval: bool = True
    subset: str = "all"

    @property
    def amount(self) -> bool:
        """Whether it counts tokens rather than giving a share."""
        return self.metric.endswith("tokens")

    @property
    def spared(self) -> bool:
        """Whether readers are spared it where it is 0 for every row: what went wrong with answers, where nothing did."""
        return self.metric == "parsers_differ" or (self.metric.startswith("outcome_") and self.metric != "outcome_answered")


_FAILED = [(kind, f"outcome_{kind}") for kind in schemas.OUTCOMES if kind != "answered"]
MAIN = (
    Column("HCA", "hca"),
    Column("Leaf", "leaf"),
    Column("HCA(L)", "hca_given_leaf"),
    Column("POR", "por"),
    Column("S-POR (prefix)", "strict_por_prefix"),
    Column("S-POR (run)", "strict_por_run"),
    Column("TOR", "tor"),
    Column("Answered", "outcome_answered", interval=False),
    *(Column(kind.capitalize(), metric, interval=False) for kind, metric in _FAILED),
    Column("Parsers differ", "parsers_differ", interval=False),
    Column("Tokens", "completion_tokens", interval=False),
    Column("Open leaf", "open_leaf", stage1=True),
    Column("Open lineage", "open_lineage", stage1=True),
    Column("Stage 1 answered", "outcome_answered", stage1=True, interval=False),
    *(Column(f"Stage 1 {kind}", metric, stage1=True, interval=False) for kind, metric in _FAILED),
    Column("Stage 1 tokens", "completion_tokens", stage1=True, interval=False),
)
SPECIES = tuple(
    Column(f"{title} {subset}", metric, stage1, subset=subset)
    for title, metric, stage1 in (("HCA", "hca", False), ("Leaf", "leaf", False), ("Open leaf", "open_leaf", True))
    for subset in ("seen", "unseen")
)


CUT_LIMIT = 0.01  # share of answers cut at the token limit above which a table warns
MARK = "†"
INTERVALS = (
    "95 % intervals: percentile bootstrap over images, all levels of an image together; Wilson's interval where all images"
    " score alike"
)


@dataclass(frozen=True)
class Block:
    """The rows of one data set and kind of options: (system, one estimate per column, None where there is none)."""

    dataset: str
    choices: str
    columns: Sequence[Column]
    images: int
    rows: Sequence[tuple[str, Sequence[Estimate | None]]]

    @property
    def title(self) -> str:
        """Heading of the block."""
        return f"{self.dataset}, {self.choices} choices, n = {self.images} images"

    def spared(self) -> "Block":
        """The same without the columns that readers are spared."""
        cells = list(zip(*(estimates for _, estimates in self.rows), strict=True))
        some = [any(estimate is not None and estimate.value for estimate in column) for column in cells]
        kept = [j for j, column in enumerate(self.columns) if some[j] or not column.spared]
        rows = [(system, [estimates[j] for j in kept]) for system, estimates in self.rows]
        return replace(self, columns=[self.columns[j] for j in kept], rows=rows)

    def cut(self) -> dict[str, list[str]]:
        """What to warn of: by system, its shares of texts that were cut at the token limit, in words, where above CUT_LIMIT."""
        out: dict[str, list[str]] = {}
        for system, estimates in self.rows:
            for column, estimate in zip(self.columns, estimates, strict=True):
                if column.metric == "outcome_truncated" and estimate is not None and estimate.value > CUT_LIMIT:
                    what = "stage 1 texts" if column.stage1 else "answers"
                    out.setdefault(system, []).append(f"{100 * estimate.value:.1f} % of the {what}")
        return out

    def marked(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Labels of the systems, with a mark where there is a warning below the table."""
        cut = self.cut()
        return {system: f"{label} {MARK}" if system in cut else label for system, label in labels.items()}

    def warnings(self, labels: Mapping[str, str]) -> list[str]:
        """The lines below the table, one for each marked system."""
        return [
            f"{MARK} {labels[system]}: {' and '.join(shares)} were cut at the token limit and count as wrong;"
            " raise max_new_tokens."
            for system, shares in self.cut().items()
        ]


def blocks(scores: Scores, labels: Mapping[str, str], columns: Sequence[Column] = MAIN) -> list[Block]:
    """The table in blocks. A system that has only a stage 1 stands in every block, so that it can be read beside the others."""
    subsets = {column.subset for column in columns}
    out = []
    for dataset in scores.datasets:
        if not subsets <= {key[5] for key in scores.found if key[0] == dataset}:
            continue
        kinds = scores.choices(dataset)
        for choices in [kind for kind in kinds if kind != OPEN] or kinds:
            systems = {*scores.systems(dataset, choices, labels), *scores.systems(dataset, OPEN, labels)}
            rows = [(s, [_cell(scores, dataset, choices, s, column) for column in columns]) for s in labels if s in systems]
            images = max(e.n for key, e in scores.found.items() if key[0] == dataset and key[1] == choices and key[5] == "all")
            out.append(Block(dataset, choices, columns, images, [row for row in rows if any(row[1])]))
    return out


def _cell(scores: Scores, dataset: str, choices: str, system: str, column: Column) -> Estimate | None:
    return scores.get(dataset, OPEN if column.stage1 else choices, system, column.metric, subset=column.subset)


def written(estimate: Estimate | None, column: Column, digits: int = 1) -> str:
    """A cell in words: `57.1 [52.0, 62.3]`, in percent, or a dash."""
    if estimate is None:
        return "-"
    scale = 1 if column.amount else 100
    value, low, high = (f"{scale * number:.{digits}f}" for number in estimate[:3])
    return f"{value} [{low}, {high}]" if column.interval else value


def caption(metrics: Sequence[str] | None = None) -> list[str]:
    """What the numbers mean, a line each: how they were made, then every metric shown."""
    shown = metrics or list(dict.fromkeys("outcomes" if c.metric.startswith("outcome_") else c.metric for c in MAIN))
    return [
        f"Percent of the test images (n in each heading), with {INTERVALS}. Tokens are counts.",
        "An output without a readable answer is wrong, and stays in the denominator. Open: stage 1 alone, without options,"
        " compared by name. Seen: species that a recipe may train on; unseen: all others.",
        "Of the outcomes other than answered, and of the differences between the parsers, those that are 0 for every row of a"
        " table are left out of it; the CSV has them all.",
        *meanings(shown),
    ]


def meanings(metrics: Sequence[str]) -> list[str]:
    """What each metric means, a line each."""
    known = definitions()
    return [f"{known[name].title}: {known[name].meaning}." for name in metrics]


def tabulate(scores: Path, labels: Mapping[str, str], csv: Path, md: Path, tex: Path) -> None:
    """Write the main table and, where a data set has both, the table of seen and unseen species.

    Args:
        scores: scores.parquet.
        labels: what to call each system, in the order of the rows.
        csv: one row per data set, choices and system; every number in percent (tokens: counts) with its bounds.
        md: the same for readers, with a caption.
        tex: the same as booktabs tables.
    """
    found = Scores.read(scores)
    main, species = blocks(found, labels), blocks(found, labels, SPECIES)
    write(csv, _as_csv(main, blocks(found, labels, MAIN + SPECIES), labels))
    main = [block.spared() for block in main]
    write(md, _as_markdown(main, species, labels))
    write(tex, _as_latex(main, species, labels))


def write(path: Path, text: str) -> None:
    """Write a text file whole."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def _as_csv(main: Sequence[Block], wide: Sequence[Block], labels: Mapping[str, str]) -> str:
    """One line per row; data sets without seen species have empty fields there."""
    full = {(block.dataset, block.choices): block for block in wide}
    lines = []
    for block in main:
        block = full.get((block.dataset, block.choices), block)
        for system, estimates in block.rows:
            line: dict[str, str | int | float] = {
                "dataset": block.dataset,
                "choices": block.choices,
                "system": system,
                "label": labels[system],
                "images": block.images,
            }
            for column, estimate in zip(block.columns, estimates, strict=True):
                if estimate is not None:
                    name = "_".join(
                        (["stage1"] if column.stage1 and not column.metric.startswith("open") else [])
                        + [column.metric]
                        + ([column.subset] if column.subset != "all" else [])
                    )
                    scale = 1 if column.amount else 100
                    bounds = zip(("", "_low", "_high"), estimate, strict=False)
                    line |= {name + suffix: round(scale * number, 4) for suffix, number in bounds}
                    line[f"{name}_n"] = estimate.n
            lines.append(line)
    names = list(dict.fromkeys(name for line in sorted(lines, key=len, reverse=True) for name in line))
    return as_csv(lines, names)


def as_csv(lines: Sequence[Mapping[str, object]], names: Sequence[str]) -> str:
    """Lines as CSV with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def as_markdown(rows: Sequence[Sequence[str]], header: Sequence[str], left: int = 1) -> str:
    """A Markdown table, its first columns left, the others right."""
    safe = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    align = ["left"] * left + ["right"] * (len(header) - left)
    return str(layout(safe, header, tablefmt="github", colalign=align, disable_numparse=True))


def as_latex(
    rows: Sequence[Sequence[str]], header: Sequence[str], caption: str, label: str, left: int = 1, notes: Sequence[str] = ()
) -> str:
    """A booktabs table as wide as the page, with signs that LaTeX has and notes below it."""
    align = ["left"] * left + ["right"] * (len(header) - left)
    table = layout(rows, header, tablefmt="latex_booktabs", colalign=align, disable_numparse=True)
    below = "".join(f"\\par\\smallskip\\footnotesize {_tex(note)}\n" for note in notes)
    text = (
        f"\\begin{{table*}}\n\\centering\n\\caption{{{_tex(caption)}}}\n\\label{{tab:{label}}}\n"
        f"\\resizebox{{\\textwidth}}{{!}}{{%\n{table}}}\n{below}\\end{{table*}}"
    )
    for sign, command in _SIGNS.items():
        text = text.replace(sign, command)
    return text


_SIGNS = {MARK: r"$\dagger$", "✓": r"$\checkmark$", "✗": r"$\times$"}


def _tex(text: str) -> str:
    """Plain text with LaTeX's special characters escaped."""
    return re.sub(r"([%&#_$])", r"\\\1", text)


def _cells(block: Block, labels: Mapping[str, str]) -> list[list[str]]:
    names = block.marked(labels)
    return [[names[s], *map(written, estimates, block.columns)] for s, estimates in block.rows]


def _header(block: Block) -> list[str]:
    return ["System", *(column.title for column in block.columns)]


def _as_markdown(main: Sequence[Block], species: Sequence[Block], labels: Mapping[str, str]) -> str:
    parts = ["# Main table"]
    for title, group in ((None, main), ("# Seen and unseen species", species)):
        parts += [title] if title and group else []
        for block in group:
            parts += [f"## {block.title}", as_markdown(_cells(block, labels), _header(block)), *block.warnings(labels)]
    parts += ["# How to read this", "\n".join(f"- {line}" for line in caption())]
    return "\n\n".join(parts) + "\n"


def _as_latex(main: Sequence[Block], species: Sequence[Block], labels: Mapping[str, str]) -> str:
    parts = ["% Needs booktabs and graphicx.", *(f"% {line}" for line in caption())]
    for kind, group in (("main", main), ("species", species)):
        for block in group:
            title, label = f"{block.title}. Percent, with 95 % intervals.", f"{kind}-{block.dataset}-{block.choices}"
            parts.append(as_latex(_cells(block, labels), _header(block), title, label, notes=block.warnings(labels)))
    return "\n".join(parts) + "\n"
