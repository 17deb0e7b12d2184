"""Sweeps: how much a system's numbers hang on the wording of the question and on the order of the options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import mean, pstdev

from vltaxon.metrics import heads
from vltaxon.metrics.heads import OPEN, Column
from vltaxon.provenance import write_text
from vltaxon.report.estimates import Estimate, Scores
from vltaxon.report.forms import as_csv, as_latex, as_markdown, comments, plain
from vltaxon.report.tables import INTERVALS, meanings
from vltaxon.tasks.scoring import SweepTableTask, SweptSystem

FIELDS = (
    "sweep", "dataset", "choices", "metric", "over", "variant", "rotation", "value", "low", "high", "sd",
    "min", "max", "n",
)  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """Numbers of a sweep in percent: their mean, standard deviation (of all, not of a sample) and range."""

    values: Sequence[float]

    @property
    def facts(self) -> dict[str, float]:
        """Return the summary by name, as the CSV has it."""
        numbers = {
            "value": mean(self.values),
            "sd": pstdev(self.values),
            "min": min(self.values),
            "max": max(self.values),
        }
        return {name: round(number, 4) for name, number in numbers.items()}

    def __str__(self) -> str:
        """Return the summary as readers see it."""
        least, most = min(self.values), max(self.values)
        return f"{mean(self.values):.1f} ± {pstdev(self.values):.1f} ({least:.1f} to {most:.1f})"


@dataclass(frozen=True)
class Part:
    """What a sweep scored on one data set, one kind of choices and one metric, by (variant, rotation)."""

    sweep: str
    dataset: str
    choices: str
    metric: str
    found: Mapping[tuple[int, int], Estimate]

    @property
    def every(self) -> Summary:
        """Return the summary over all members."""
        return Summary([100 * e.value for e in self.found.values()])

    @property
    def variants(self) -> dict[int, Summary]:
        """Return the summary of each wording over the rotations."""
        return {
            v: Summary([100 * e.value for k, e in self.found.items() if k[0] == v])
            for v in _firsts(self.found, 0)
        }

    @property
    def rotations(self) -> dict[int, Summary]:
        """Return the summary of each rotation over the wordings."""
        return {
            r: Summary([100 * e.value for k, e in self.found.items() if k[1] == r])
            for r in _firsts(self.found, 1)
        }


def _firsts(found: Mapping[tuple[int, int], Estimate], place: int) -> list[int]:
    return list(dict.fromkeys(key[place] for key in found))


def parts(scores: Scores, sweeps: Mapping[str, SweptSystem], columns: Sequence[Column]) -> list[Part]:
    """Return every sweep, data set, kind of choices and metric that was scored, in the order of the config.

    Args:
        scores: of all members, which are called `SWEEP.vVARIANT.rROTATION`.
        sweeps: by name.
        columns: the metrics.
    """
    out = []
    for name, sweep in sweeps.items():
        members = [(variant, rotation) for variant in sweep.variants for rotation in sweep.rotations]
        kinds = [
            (dataset, kind) for dataset in scores.datasets for kind in scores.choices(dataset) if kind != OPEN
        ]
        for (dataset, choices), column in product(kinds, columns):
            metric = column.metric.name
            found = {(v, r): scores.get(dataset, choices, f"{name}.v{v}.r{r}", metric) for v, r in members}
            there = {key: estimate for key, estimate in found.items() if estimate is not None}
            if there:
                out.append(Part(name, dataset, choices, metric, there))
    return out


def tabulate(task: SweepTableTask) -> None:
    """Write the table of the sweeps.

    The CSV is long: every summary (`over`: all, rotations of a variant, variants of a rotation) and every
    member, in percent. Readers get a line per data set, choices and part of the sweep.
    """
    columns = heads.columns(heads.read(task.metrics), "sweep")
    found, notes = parts(Scores.read(task.scores), task.sweeps, columns), caption(columns)
    write_text(task.csv, as_csv([line for part in found for line in _lines(part)], FIELDS))
    header = ["Data set", "Choices", "Over", *(column.title for column in columns)]
    markdown, latex = ["# Sweeps"], ["% Needs booktabs and graphicx.", *comments(notes)]
    for name, sweep in task.sweeps.items():
        size = f"{len(sweep.variants)} wordings x {len(sweep.rotations)} rotations of the options"
        title = f"{name}: {sweep.label}, {size}"
        rows = _rows(
            [part for part in found if part.sweep == name], [column.metric.name for column in columns]
        )
        markdown += [f"## {plain(title)}", as_markdown(rows, header, left=3)]
        words = f"{title}. Mean, standard deviation and range, in percent"
        latex.append(as_latex(rows, header, words, f"sweep-{name}", left=3))
    markdown += ["# How to read this", "\n".join(f"- {line}" for line in notes)]
    write_text(task.md, "\n\n".join(markdown) + "\n")
    write_text(task.tex, "\n".join(latex) + "\n")


def _rows(found: Sequence[Part], metrics: Sequence[str]) -> list[list[str]]:
    """Return the lines of a sweep's table: over all, then by wording, then by rotation."""
    rows = []
    for dataset, choices in dict.fromkeys((part.dataset, part.choices) for part in found):
        by_metric = {
            part.metric: part for part in found if (part.dataset, part.choices) == (dataset, choices)
        }
        said: dict[str, dict[str, Summary]] = {}
        for metric, part in by_metric.items():
            said.setdefault("all", {})[metric] = part.every
            for variant, summary in part.variants.items():
                said.setdefault(f"wording {variant}, all rotations", {})[metric] = summary
            for rotation, summary in part.rotations.items():
                said.setdefault(f"rotation {rotation}, all wordings", {})[metric] = summary
        for over, summaries in said.items():
            names = [dataset, choices] if over == "all" else ["", ""]
            rows.append(
                [
                    *names,
                    over,
                    *(str(summaries[metric]) if metric in summaries else "-" for metric in metrics),
                ]
            )
    return rows


def _lines(part: Part) -> list[dict[str, object]]:
    """Return a part as lines of the CSV: summaries, then members with their intervals."""
    what = {"sweep": part.sweep, "dataset": part.dataset, "choices": part.choices, "metric": part.metric}
    n = max(e.n for e in part.found.values())
    lines: list[dict[str, object]] = [what | {"over": "all", "n": n} | part.every.facts]
    lines += [
        what | {"over": "rotations", "variant": v, "n": n} | summary.facts
        for v, summary in part.variants.items()
    ]
    lines += [
        what | {"over": "variants", "rotation": r, "n": n} | summary.facts
        for r, summary in part.rotations.items()
    ]
    for (variant, rotation), estimate in part.found.items():
        bounds = {
            name: round(100 * number, 4)
            for name, number in zip(("value", "low", "high"), estimate, strict=False)
        }
        lines.append(
            what | {"over": "none", "variant": variant, "rotation": rotation, "n": estimate.n} | bounds
        )
    return lines


def caption(columns: Sequence[Column]) -> list[str]:
    """Return what the numbers mean, a line each."""
    return [
        "Percent of the test images: mean ± standard deviation (lowest to highest) over the members of a"
        " sweep, each of which"
        " asks every question in one wording with the options rotated by so many places.",
        "All: over all wordings and rotations. The lines below it hold one of the two fixed and go over the"
        " other.",
        "The spread is that of the question's form, not of sampling. The CSV also has every member with its"
        " interval. It holds"
        f" {INTERVALS}.",
        *meanings(column.metric for column in columns),
    ]
