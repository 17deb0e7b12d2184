"""Scores: every metric is a query over Parquet (`*.sql` in this folder), its interval a bootstrap over images.

The queries read the views `judged` and `named` (folder `views`), which read the pipeline's files. A new metric is a new file:
a first line `-- Title: what it means`, and a SELECT of system, dataset, choices, image_id, metric, level (if any) and value.
A metric whose name ends in `tokens` is an amount, all others are shares. Semantics: those of the benchmark's code (Tan et al.,
arXiv 2505.24840, utils/metric.py), but what is no answer is wrong here and has columns of its own.
"""

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from vltaxon import schemas
from vltaxon.errors import UserError
from vltaxon.metrics.uncertainty import Floats, intervals, paired_difference
from vltaxon.provenance import atomic, write_parquet
from vltaxon.taxonomy import normalise

_FOLDER = Path(__file__).parent
_VIEWS = ("judged", "truth", "named")  # in the order in which they build on each other
_USERS = pa.schema([("system", pa.string()), ("leaf_system", pa.string())])
_KEYS = pa.schema([("name", pa.string()), ("key", pa.string())])


@dataclass(frozen=True)
class Sources:
    """The files to score. Paths are kept in the database as given: relative ones stay relative to the workflow root."""

    questions: Mapping[tuple[str, str], Path]  # (dataset, choices)
    images: Mapping[str, Path]  # dataset
    taxa: Mapping[str, Path]  # dataset
    answers: Mapping[tuple[str, str, str], Sequence[Path]]  # (system, dataset, choices): shards
    leaves: Mapping[tuple[str, str], Sequence[Path]]  # (system whose own stage 1 ran, dataset): shards
    leaf_systems: Mapping[str, str]  # system with a stage 1: the system whose stage 1 it uses (often itself)
    partition: Path
    training: str  # data set of the partition

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Sources":
        """From `plan.Plan.score_values`, whose keys of several parts are joined by `/`."""

        def parted(name: str) -> Iterator[tuple[tuple[str, ...], Any]]:
            return ((tuple(key.split("/")), value) for key, value in values[name].items())

        return cls(
            questions={(dataset, choices): Path(path) for (dataset, choices), path in parted("questions")},
            images={name: Path(path) for name, path in values["images"].items()},
            taxa={name: Path(path) for name, path in values["taxa"].items()},
            answers={(system, data, choices): [Path(p) for p in paths] for (system, data, choices), paths in parted("answers")},
            leaves={(system, data): [Path(p) for p in paths] for (system, data), paths in parted("leaves")},
            leaf_systems=values["leaf_systems"],
            partition=Path(values["partition"]),
            training=values["training"],
        )


class Definition(NamedTuple):
    """What the first line of a metric's file says."""

    title: str
    meaning: str


class _Column(NamedTuple):
    choices: str
    system: str
    metric: str
    level: int | None


def queries() -> dict[str, str]:
    """The metrics' queries by file name without suffix."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(_FOLDER.glob("*.sql"))}


def definitions() -> dict[str, Definition]:
    """Title and meaning of each metric file."""
    heads = {name: query.partition("\n")[0].removeprefix("--").partition(":") for name, query in queries().items()}
    return {name: Definition(title.strip(), meaning.strip()) for name, (title, _, meaning) in heads.items()}


def _quoted(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _parquet(paths: Path | Sequence[Path], **columns: str) -> str:
    """A SELECT over Parquet files with constant columns put before theirs."""
    files = ", ".join(_quoted(path) for path in ([paths] if isinstance(paths, Path) else paths))
    constants = "".join(f"{_quoted(value)} AS {name}, " for name, value in columns.items())
    return f"SELECT {constants}* FROM read_parquet([{files}])"


def connect(database: Path, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open a database with the threads of the job; DuckDB itself would take all cores."""
    threads = os.environ.get("OMP_NUM_THREADS")
    return duckdb.connect(str(database), read_only, config={} if threads is None else {"threads": int(threads)})


def _create(connection: duckdb.DuckDBPyConnection, sources: Sources) -> None:
    """Make the views that read files, the two small tables that they lack, and the views that metrics read."""
    some = {
        "questions": [_parquet(p, dataset=d, choices=c) for (d, c), p in sources.questions.items()],
        "images": [_parquet(p, dataset=d) for d, p in sources.images.items()],
        "taxa": [_parquet(p, dataset=d) for d, p in sources.taxa.items()],
        "splits": [_parquet(sources.partition, dataset=sources.training)],
        "answers": [_parquet(p, system=s, dataset=d, choices=c) for (s, d, c), p in sources.answers.items()],
        "leaves": [_parquet(p, system=s, dataset=d) for (s, d), p in sources.leaves.items()],
    }
    for name, selects in some.items():
        if selects:
            connection.execute(f"CREATE VIEW {name} AS {' UNION ALL '.join(selects)}")
        else:
            strings = [pa.field(column, pa.string()) for column in ("system", "dataset", "choices")]
            nothing = pa.schema([*strings, *schemas.PREDICTIONS]).empty_table()
            connection.from_arrow(nothing).create(name)
    users = pa.table({"system": list(sources.leaf_systems), "leaf_system": list(sources.leaf_systems.values())}, schema=_USERS)
    connection.from_arrow(users).create("leaf_systems")
    written = "SELECT taxon AS name FROM taxa UNION SELECT answer FROM leaves UNION SELECT unnest(lineage) FROM leaves"
    names = [name for (name,) in connection.sql(f"SELECT name FROM ({written}) WHERE name IS NOT NULL ORDER BY name").fetchall()]
    keys = pa.table({"name": names, "key": [normalise(name) for name in names]}, schema=_KEYS)
    connection.from_arrow(keys).create("keys")
    for view in _VIEWS:
        connection.execute(f"CREATE VIEW {view} AS {(_FOLDER / 'views' / f'{view}.sql').read_text(encoding='utf-8')}")


def _create_metrics(connection: duckdb.DuckDBPyConnection) -> None:
    """Make a view of each metric (schema `metrics`) and `per_image` over all of them."""
    connection.execute("CREATE SCHEMA metrics")
    for name, query in queries().items():
        try:
            connection.execute(f'CREATE VIEW metrics."{name}" AS {query}')
        except duckdb.Error as error:
            raise UserError(f"{_FOLDER / name}.sql: {error}") from error
    every = " UNION ALL BY NAME ".join(f'SELECT * REPLACE (value::DOUBLE AS value) FROM metrics."{name}"' for name in queries())
    connection.execute(f"CREATE VIEW per_image AS SELECT system, dataset, choices, image_id, metric, level, value FROM ({every})")


def _check_complete(connection: duckdb.DuckDBPyConnection, sources: Sources) -> None:
    """Refuse to score where a question has no answer, or two; a row that is not there must not leave the denominator unseen.

    Raises:
        UserError: one line per system, data set and choices.
    """
    pairs = [(s, d, c) for s, d, c in sources.answers]
    pairs += [(s, d, "leaf") for s in dict.fromkeys(sources.leaf_systems.values()) for d in sources.images]
    wanted = pa.table(dict(zip(("system", "dataset", "choices"), map(list, zip(*pairs, strict=True)), strict=True)))
    connection.register("wanted", wanted)
    rows = connection.sql("""
        WITH asked AS (
            SELECT dataset, choices, question_id AS id FROM questions WHERE split = 'test' AND scored
            UNION ALL
            SELECT DISTINCT dataset, 'leaf', image_id FROM questions WHERE split = 'test' AND scored
        ), found AS (
            SELECT system, dataset, choices, question_id AS id, count(*) AS times FROM answers GROUP BY ALL
            UNION ALL
            SELECT system, dataset, 'leaf', image_id, count(*) FROM leaves GROUP BY ALL
        )
        SELECT system, dataset, choices, count(*) FILTER (WHERE times IS NULL), count(*) FILTER (WHERE times > 1), count(*)
        FROM wanted JOIN asked USING (dataset, choices) LEFT JOIN found USING (system, dataset, choices, id)
        GROUP BY ALL HAVING count(*) FILTER (WHERE times IS DISTINCT FROM 1) > 0 ORDER BY ALL
    """).fetchall()
    lines = [f"{s}, {d}, {c}: of {n} predictions {lost} missing, {twice} more than once" for s, d, c, lost, twice, n in rows]
    orphans = connection.sql("""
        SELECT dataset, count(*) FROM (SELECT DISTINCT dataset, image_id, level FROM questions WHERE split = 'test' AND scored)
        ANTI JOIN truth USING (dataset, image_id, level) GROUP BY ALL ORDER BY ALL
    """).fetchall()
    lines += [f"{dataset}: {n} questions about an image or a level that is not in images and taxa" for dataset, n in orphans]
    if lines:
        raise UserError(
            "Predictions and questions do not match; delete the prediction files named and run the workflow again:\n  "
            + "\n  ".join(lines)
        )


def _measure(connection: duckdb.DuckDBPyConnection) -> None:
    """Run every metric into the temporary table `measured`; what they read is computed once, as tables named like views."""
    for view in ("judged", "named"):
        connection.execute(f"CREATE TEMP TABLE {view} AS FROM main.{view}")
    every = " UNION ALL BY NAME ".join(
        f"SELECT * REPLACE (value::DOUBLE AS value) FROM ({query})" for query in queries().values()
    )
    connection.execute(f"CREATE TEMP TABLE measured AS SELECT * FROM ({every}) WHERE value IS NOT NULL")


def _matrix(connection: duckdb.DuckDBPyConnection, dataset: str) -> tuple[list[_Column], Floats, NDArray[np.bool_]]:
    """A data set's values, images in the order of their ids.

    Returns:
        columns; values of shape (images, columns), NaN where a metric has none; which images show a seen species.
    """
    connection.execute(f"SET VARIABLE dataset = {_quoted(dataset)}")
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE rows_of AS
        SELECT image_id, coalesce(part IN ('sft', 'grpo'), false) AS seen, row_number() OVER (ORDER BY image_id) - 1 AS i
        FROM images LEFT JOIN splits USING (dataset, leaf)
        WHERE dataset = getvariable('dataset')
            AND image_id IN (SELECT image_id FROM measured WHERE dataset = getvariable('dataset'));
        CREATE OR REPLACE TEMP TABLE columns_of AS
        SELECT *, row_number() OVER (ORDER BY choices, system, metric, level) - 1 AS j
        FROM (SELECT DISTINCT choices, system, metric, level FROM measured WHERE dataset = getvariable('dataset'))
    """)
    columns = [
        _Column(*row) for row in connection.sql("SELECT choices, system, metric, level FROM columns_of ORDER BY j").fetchall()
    ]
    seen = connection.sql("SELECT seen FROM rows_of ORDER BY i").fetchnumpy()["seen"].astype(bool)
    cells = connection.sql("""
        SELECT i, j, value FROM measured
        JOIN rows_of USING (image_id)
        JOIN columns_of USING (choices, system, metric) WHERE dataset = getvariable('dataset')
        AND measured.level IS NOT DISTINCT FROM columns_of.level
    """).fetchnumpy()
    values = np.full((len(seen), len(columns)), np.nan)
    values[cells["i"], cells["j"]] = cells["value"]
    if np.count_nonzero(~np.isnan(values)) != len(cells["value"]):
        raise UserError(
            f"{dataset}: a metric gives an image two values; each file in {_FOLDER} must give one per image and level"
        )
    return columns, values, seen


def score(sources: Sources, bootstrap: int, seed: int, scores: Path, database: Path) -> None:
    """Compute every metric for all, seen and unseen species of each data set, with 95 % intervals.

    Args:
        sources: what to score.
        bootstrap: resamples of each interval.
        seed: of the resamples.
        scores: Parquet to write (`schemas.SCORES`); shares are fractions.
        database: DuckDB file to write: views over all files, and `per_image` with every metric before averaging.

    Raises:
        UserError: a prediction is missing or doubled, or a metric's SQL does not run.
    """
    lines: list[dict[str, Any]] = []
    with atomic(database) as part, connect(part) as connection:
        _create(connection, sources)
        _create_metrics(connection)
        _check_complete(connection, sources)
        _measure(connection)
        for dataset in tqdm(sources.images, desc="scores", unit="data set"):
            columns, values, seen = _matrix(connection, dataset)
            for subset, rows in {"all": np.full(len(seen), True), "seen": seen, "unseen": ~seen}.items():
                if rows.any():
                    found = _scored(columns, values[rows], bootstrap, (seed, zlib.crc32(dataset.encode())))
                    lines += [{"dataset": dataset, "subset": subset} | line for line in found]
        write_parquet(
            pa.Table.from_pylist(lines, schema=schemas.SCORES),
            scores,
            schemas.SCORES,
            rule="score",
            seed=seed,
            bootstrap=bootstrap,
        )
        connection.execute(f"CREATE VIEW scores AS {_parquet(scores)}")


def _scored(columns: Sequence[_Column], values: Floats, bootstrap: int, seed: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Lines of the scores of some images, for the columns that have a value there."""
    some = np.flatnonzero((~np.isnan(values)).any(axis=0)).tolist()
    shares = np.array([not columns[j].metric.endswith("tokens") for j in some])
    for j, value, low, high, n in zip(some, *intervals(values[:, some], shares, bootstrap, seed), strict=True):
        yield columns[j]._asdict() | {"value": value, "low": low, "high": high, "n": n}


def difference(
    database: Path, dataset: str, choices: str, metric: str, systems: tuple[str, str], bootstrap: int, seed: int
) -> tuple[float, float, float] | None:
    """A metric of the first system less that of the second over the same images, with its 95 % interval; None where one lacks it.

    The database's paths are relative: call this from the workflow root.
    """
    with connect(database, read_only=True) as connection:
        both = connection.sql(
            """
            SELECT a.value AS a, b.value AS b FROM per_image AS a JOIN per_image AS b USING (dataset, choices, metric, image_id)
            WHERE dataset = $1 AND choices = $2 AND metric = $3 AND a.system = $4 AND b.system = $5 ORDER BY image_id
            """,
            params=[dataset, choices, metric, *systems],
        ).fetchnumpy()
    return paired_difference(both["a"], both["b"], bootstrap, (seed, zlib.crc32(dataset.encode()))) if len(both["a"]) else None
