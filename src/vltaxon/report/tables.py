"""The main table, in percent with 95 % intervals; the heads of metrics say which columns it has."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vltaxon.metrics import heads
from vltaxon.metrics.heads import OPEN, Column, Metric, Metrics
from vltaxon.provenance import write_text
from vltaxon.report.compared import Pairs
from vltaxon.report.estimates import Estimate, Scores
from vltaxon.report.forms import MARK, as_csv, as_latex, as_markdown, comments, plain
from vltaxon.tasks.scoring import MainTableTask

INTERVALS = (
    "95 % intervals: percentile bootstrap over images, all levels of an image together; Wilson's interval "
    "where all images score alike"
)


@dataclass(frozen=True)
class Block:
    """The rows of one data set and kind of options: (system, an estimate per column or None).

    `warned`: what is to be known of the answers of systems, in words. `lacking`: how many test images have
    no scored question, and of how many. `notes`: what is to be known of the images, in words. `compared`:
    differences between systems, in words.
    """

    dataset: str
    choices: str
    columns: Sequence[Column]
    images: int
    rows: Sequence[tuple[str, Sequence[Estimate | None]]]
    warned: Mapping[str, Sequence[str]] = field(default_factory=dict)
    lacking: tuple[int, int] = (0, 0)
    notes: Sequence[str] = ()
    compared: Sequence[str] = ()

    @property
    def note(self) -> str:
        """Return the line below the heading: images that count nowhere, and what was noted; often empty."""
        why = (
            "the benchmark's file asks none about them"
            if self.choices == "published"
            else "no scored level has a taxon for them and a second one to choose from"
        )
        lost, every = self.lacking
        lacking = [f"{lost} of {every} images have no scored question: {why}."] if lost else []
        return " ".join([*lacking, *(f"{words}." for words in self.notes)])

    @property
    def title(self) -> str:
        """Return the heading of the block."""
        return f"{self.dataset}, {self.choices} choices, n = {self.images} images"

    def spared(self) -> "Block":
        """Return the same without what readers are spared: columns without a number, or of zeros alone."""
        cells = list(zip(*(estimates for _, estimates in self.rows), strict=True))
        some = [any(estimate is not None and estimate.value for estimate in column) for column in cells]
        there = [any(estimate is not None for estimate in column) for column in cells]
        kept = [j for j, column in enumerate(self.columns) if there[j] and (some[j] or column.metric.zeros)]
        rows = [(system, [estimates[j] for j in kept]) for system, estimates in self.rows]
        return replace(self, columns=[self.columns[j] for j in kept], rows=rows)

    def above(self) -> dict[tuple[str, str], list[str]]:
        """Return the shares to warn of, in words, by system and by what the warning says of them."""
        out: dict[tuple[str, str], list[str]] = {}
        for system, estimates in self.rows:
            for column, estimate in zip(self.columns, estimates, strict=True):
                limit = column.metric.limit
                if limit is not None and estimate is not None and estimate.value > limit.above:
                    what = "stage 1 texts" if column.stage1 else "answers"
                    share = f"{100 * estimate.value:.1f} % of the {what}"
                    out.setdefault((system, limit.words), []).append(share)
        return out

    def marked(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Return the labels of systems, with a mark where there is a warning below the table."""
        marked = {system for system, _ in self.above()} | self.warned.keys()
        return {system: f"{label} {MARK}" if system in marked else label for system, label in labels.items()}

    def warnings(self, labels: Mapping[str, str]) -> list[str]:
        """Return the lines below the table, one for each warning of a marked system."""
        shares = [
            f"{MARK} {labels[system]}: {' and '.join(shares)} {words}"
            for (system, words), shares in self.above().items()
        ]
        some = [(system, words) for system, _ in self.rows for words in self.warned.get(system, ())]
        return shares + [f"{MARK} {labels[system]}: {words}" for system, words in dict.fromkeys(some)]


def main_columns(metrics: Metrics) -> list[Column]:
    """Return the columns of the main table."""
    return heads.columns(metrics, "main")


def species_columns(metrics: Metrics) -> list[Column]:
    """Return the columns of the table of species: each for those that a recipe may train on, and others."""
    return [
        column._replace(title=f"{column.title} {subset}", subset=subset)
        for column in heads.columns(metrics, "species")
        for subset in ("seen", "unseen")
    ]


def blocks(
    scores: Scores, labels: Mapping[str, str], columns: Sequence[Column], pairs: Pairs | None = None
) -> list[Block]:
    """Return a table in blocks: one for each data set and kind of options that has all subsets it shows.

    A system that has only a stage 1 stands in every block, so that it can be read beside the others.

    Args:
        scores: the estimates.
        labels: the systems, in the order of the rows.
        columns: of the table.
        pairs: of systems to compare below it.
    """
    subsets = {column.subset for column in columns}
    out = []
    for dataset in scores.datasets:
        if not subsets <= scores.subsets(dataset):
            continue
        kinds = scores.choices(dataset)
        for choices in [kind for kind in kinds if kind != OPEN] or kinds:
            systems = {*scores.systems(dataset, choices, labels), *scores.systems(dataset, OPEN, labels)}
            rows = [
                (s, [_cell(scores, dataset, choices, s, column) for column in columns])
                for s in labels
                if s in systems
            ]
            images = scores.images(dataset, choices)
            kept, warned = [row for row in rows if any(row[1])], scores.warned(dataset, choices)
            lacking = scores.lacking(dataset, choices)
            notes = [words for of, words in scores.notes if of == dataset]
            there = {system: labels[system] for system, _ in kept}
            told = [] if pairs is None else pairs.told(dataset, choices, there)
            out.append(Block(dataset, choices, columns, images, kept, warned, lacking, notes, told))
    return out


def _cell(scores: Scores, dataset: str, choices: str, system: str, column: Column) -> Estimate | None:
    return scores.get(
        dataset, OPEN if column.stage1 else choices, system, column.metric.name, subset=column.subset
    )


def written(estimate: Estimate | None, column: Column, digits: int = 1) -> str:
    """Return a cell in words: `57.1 [52.0, 62.3]`, in percent, or a dash.

    Args:
        estimate: None where there is none.
        column: says how it is written.
        digits: after the point.
    """
    if estimate is None:
        return "-"
    value, low, high = (f"{column.scale * number:.{digits}f}" for number in estimate[:3])
    return f"{value} [{low}, {high}]" if column.interval else value


def caption(metrics: Metrics) -> list[str]:
    """Return what the numbers mean, a line each: how they were made, then every metric shown."""
    return [
        f"Percent of the test images (n in each heading), with {INTERVALS}. Tokens are counts.",
        "An output without a readable answer is wrong, and stays in the denominator. Open: stage 1 alone,"
        " without options,"
        " compared by name. Seen: species that a recipe may train on; unseen: all others.",
        "Of the outcomes other than answered, and of the differences between the parsers, those that are 0"
        " for every row of a"
        " table are left out of it; the CSV has them all.",
        *meanings(column.metric for column in main_columns(metrics)),
    ]


def meanings(metrics: Iterable[Metric]) -> list[str]:
    """Return what metrics mean, a line for each that has a title of its own."""
    return list(dict.fromkeys(f"{metric.title}: {metric.meaning}." for metric in metrics))


def tabulate(task: MainTableTask) -> None:
    """Write the main table and, where a data set has both, the table of seen and unseen species.

    The CSV has a row per data set, choices and system; every number in percent (counts: as they are) with its
    bounds.
    """
    metrics, labels = heads.read(task.metrics), task.labels
    scores = Scores.read(task.scores)
    shown, by_species = main_columns(metrics), species_columns(metrics)
    pairs = Pairs.read(task.compare, task.database, task.bootstrap, task.seed) if task.database else None
    main, species = blocks(scores, labels, shown, pairs), blocks(scores, labels, by_species)
    write_text(task.csv, _as_csv(main, blocks(scores, labels, shown + by_species), labels))
    main = [block.spared() for block in main]
    write_text(task.md, _as_markdown(main, species, labels, caption(metrics)))
    write_text(task.tex, _as_latex(main, species, labels, caption(metrics)))


def _as_csv(main: Sequence[Block], wide: Sequence[Block], labels: Mapping[str, str]) -> str:
    """Return one line per row; data sets without seen species have empty fields there."""
    full = {(block.dataset, block.choices): block for block in wide}
    lines = [
        _line(block, system, estimates, labels)
        for one in main
        for block in [full.get((one.dataset, one.choices), one)]
        for system, estimates in block.rows
    ]
    names = list(dict.fromkeys(name for line in sorted(lines, key=len, reverse=True) for name in line))
    return as_csv(lines, names)


def _line(
    block: Block, system: str, estimates: Sequence[Estimate | None], labels: Mapping[str, str]
) -> dict[str, object]:
    head = {"dataset": block.dataset, "choices": block.choices, "system": system, "label": labels[system]}
    line: dict[str, object] = {**head, "images": block.images}
    if any(block.lacking):
        line["images_without_question"] = block.lacking[0]
    for column, estimate in zip(block.columns, estimates, strict=True):
        if estimate is not None:
            for ending, number in zip(("", "_low", "_high"), estimate, strict=False):
                line[column.name + ending] = round(column.scale * number, 4)
            line[f"{column.name}_n"] = estimate.n
    return line


def _cells(block: Block, labels: Mapping[str, str]) -> list[list[str]]:
    names = block.marked(labels)
    return [[names[s], *map(written, estimates, block.columns)] for s, estimates in block.rows]


def _header(block: Block) -> list[str]:
    return ["System", *(column.title for column in block.columns)]


def _as_markdown(
    main: Sequence[Block], species: Sequence[Block], labels: Mapping[str, str], notes: Sequence[str]
) -> str:
    parts = ["# Main table"]
    for title, group in ((None, main), ("# Seen and unseen species", species)):
        parts += [title] if title and group else []
        for block in group:
            table = as_markdown(_cells(block, labels), _header(block))
            notes_above = [plain(block.note)] if block.note else []
            below = map(plain, [*block.compared, *block.warnings(labels)])
            parts += [f"## {block.title}", *notes_above, table, *below]
    parts += ["# How to read this", "\n".join(f"- {line}" for line in notes)]
    return "\n\n".join(parts) + "\n"


def _as_latex(
    main: Sequence[Block], species: Sequence[Block], labels: Mapping[str, str], notes: Sequence[str]
) -> str:
    parts = ["% Needs booktabs and graphicx.", *comments(notes)]
    for kind, group in (("main", main), ("species", species)):
        for block in group:
            title, label = (
                " ".join(filter(None, (f"{block.title}.", block.note, "Percent, with 95 % intervals."))),
                f"{kind}-{block.dataset}-{block.choices}",
            )
            table = as_latex(
                _cells(block, labels),
                _header(block),
                title,
                label,
                notes=[*block.compared, *block.warnings(labels)],
            )
            parts.append(table)
    return "\n".join(parts) + "\n"
