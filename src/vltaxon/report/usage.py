"""What the jobs took, rule by rule, from the benchmark files that Snakemake writes beside their results.

The latest run of each job counts, but for one that was killed while it wrote its own. Nothing depends on
these files: they are read as they are when a page or a table is written.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
from tabulate import tabulate

from vltaxon.tasks.scoring import UsageTask

HEADINGS = ("Rule", "Jobs", "Median", "Longest", "Together", "Peak memory", "Busy cores", "Device hours")
NOTE = (
    "Every job whose figures are kept, in its latest run; waiting for a device counts as time. Snakemake "
    "samples memory and processor time every half second, after fifteen seconds every thirty: short jobs may "
    "have taken a little more."
)

_QUERY = r"""
    SELECT regexp_extract(filename, 'benchmarks/([^/.]+)', 1) AS rule,
        count(*), median(s), max(s), sum(s) AS total,
        max(try_cast(max_rss AS DOUBLE)),
        sum(try_cast(cpu_time AS DOUBLE)) / sum(s), sum(s * (resources ->> 'gpu')::INT)
    FROM read_json($files,
        columns = {s: 'DOUBLE', max_rss: 'VARCHAR', cpu_time: 'VARCHAR', resources: 'JSON'},
        format = 'newline_delimited', filename = true, ignore_errors = true)
    WHERE s IS NOT NULL
    GROUP BY rule ORDER BY total DESC, rule
"""


class Usage(NamedTuple):
    """Jobs of a rule: seconds, MB and device seconds; None where not sampled, or without a device."""

    rule: str
    jobs: int
    median: float
    longest: float
    total: float
    memory: float | None
    cores: float | None
    device: float | None

    def written(self) -> tuple[str, ...]:
        """Return it in the units of readers, under `HEADINGS`."""
        memory, cores, device = (
            "-" if value is None else form.format(value / unit)
            for value, unit, form in (
                (self.memory, 1000, "{:.1f} GB"),
                (self.cores, 1, "{:.1f}"),
                (self.device, 3600, "{:.3f}"),
            )
        )
        return (
            self.rule,
            str(self.jobs),
            *map(_time, (self.median, self.longest, self.total)),
            memory,
            cores,
            device,
        )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def usage(benchmarks: Path) -> list[Usage]:
    """Return what the jobs took whose figures lie in a folder, by rule, the longest together first."""
    files = [str(path) for path in sorted(benchmarks.rglob("*.jsonl"))]
    if not files:
        return []
    with duckdb.connect() as connection:
        return [Usage(*row) for row in connection.execute(_QUERY, {"files": files}).fetchall()]


def told(rows: Sequence[Usage]) -> str:
    """Return the table in Markdown, with its note."""
    table: str = tabulate([row.written() for row in rows], HEADINGS, "github", disable_numparse=True)
    return f"{table}\n\n{NOTE}\n"


def tell(task: UsageTask) -> None:
    """Print the table, and write it into the log."""
    text = told(usage(task.benchmarks))
    task.log.write_text(text, encoding="utf-8")
    print(text)
