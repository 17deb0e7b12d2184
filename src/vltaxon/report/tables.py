"""The main table: CSV for machines, Markdown for readers, LaTeX for papers; in percent, with 95 % intervals."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate as layout

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


MAIN = (
    Column("HCA", "hca"),
    Column("Leaf", "leaf"),
    Column("HCA(L)", "hca_given_leaf"),
    Column("POR", "por"),
    Column("S-POR (prefix)", "strict_por_prefix"),
    Column("S-POR (run)", "strict_por_run"),
    Column("TOR", "tor"),
    Column("Answered", "outcome_answered", interval=False),
    Column("Tokens", "completion_tokens", interval=False),
    Column("Open leaf", "open_leaf", stage1=True),
    Column("Open lineage", "open_lineage", stage1=True),
    Column("Stage 1 answered", "outcome_answered", stage1=True, interval=False),
    Column("Stage 1 tokens", "completion_tokens", stage1=True, interval=False),
)
SPECIES = tuple(
    Column(f"{title} {subset}", metric, stage1, subset=subset)
    for title, metric, stage1 in (("HCA", "hca", False), ("Leaf", "leaf", False), ("Open leaf", "open_leaf", True))
    for subset in ("seen", "unseen")
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


def written(estimate: Estimate | None, column: Column) -> str:
    """A cell in words: `57.1 [52.0, 62.3]`, in percent, or a dash."""
    if estimate is None:
        return "-"
    scale = 1 if column.amount else 100
    value, low, high = (f"{scale * number:.1f}" for number in estimate[:3])
    return f"{value} [{low}, {high}]" if column.interval else value


def caption(metrics: Sequence[str] | None = None) -> list[str]:
    """What the numbers mean, a line each: how they were made, then every metric shown."""
    shown = metrics or list(dict.fromkeys("outcomes" if c.metric.startswith("outcome_") else c.metric for c in MAIN))
    known = definitions()
    return [
        "Percent of the test images (n in each heading), with 95 % intervals: percentile bootstrap over images, all levels"
        " of an image together; Wilson's interval where all images score alike. Tokens are counts.",
        "An output without a readable answer is wrong, and stays in the denominator. Open: stage 1 alone, without options,"
        " compared by name. Seen: species that a recipe may train on; unseen: all others.",
        *(f"{known[name].title}: {known[name].meaning}." for name in shown),
    ]


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
    _write(csv, _as_csv(main, blocks(found, labels, MAIN + SPECIES), labels))
    _write(md, _as_markdown(main, species, labels))
    _write(tex, _as_latex(main, species, labels))


def _write(path: Path, text: str) -> None:
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
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _cells(block: Block, labels: Mapping[str, str]) -> list[list[str]]:
    return [[labels[s], *map(written, estimates, block.columns)] for s, estimates in block.rows]


def _header(block: Block) -> list[str]:
    return ["System", *(column.title for column in block.columns)]


def _as_markdown(main: Sequence[Block], species: Sequence[Block], labels: Mapping[str, str]) -> str:
    plain = {system: label.replace("|", r"\|") for system, label in labels.items()}
    parts = ["# Main table"]
    for title, group in ((None, main), ("# Seen and unseen species", species)):
        parts += [title] if title and group else []
        for block in group:
            align = ["left"] + ["right"] * len(block.columns)
            table = layout(_cells(block, plain), _header(block), tablefmt="github", colalign=align, disable_numparse=True)
            parts += [f"## {block.title}", table]
    parts += ["# How to read this", "\n".join(f"- {line}" for line in caption())]
    return "\n\n".join(parts) + "\n"


def _as_latex(main: Sequence[Block], species: Sequence[Block], labels: Mapping[str, str]) -> str:
    parts = ["% Needs booktabs and graphicx.", *(f"% {line}" for line in caption())]
    for kind, group in (("main", main), ("species", species)):
        for block in group:
            align = ["left"] + ["right"] * len(block.columns)
            table = layout(
                _cells(block, labels), _header(block), tablefmt="latex_booktabs", colalign=align, disable_numparse=True
            )
            title = block.title.replace("_", r"\_")
            parts.append(
                f"\\begin{{table*}}\n\\centering\n\\caption{{{title}. Percent, with 95\\,\\% intervals.}}\n"
                f"\\label{{tab:{kind}-{block.dataset}-{block.choices}}}\n\\resizebox{{\\textwidth}}{{!}}{{%\n{table}}}\n\\end{{table*}}"
            )
    return "\n".join(parts) + "\n"
