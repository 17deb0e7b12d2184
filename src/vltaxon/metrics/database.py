"""The DuckDB file with views over all that is scored, for the metrics and for users' own SQL.

The queries of metrics read the views `judged` and `named` (folder `views`), which read the pipeline's files.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from vltaxon import schemas
from vltaxon.errors import UserError, flat
from vltaxon.metrics import heads
from vltaxon.metrics.heads import Metric, Metrics
from vltaxon.tasks.scoring import Sources
from vltaxon.taxonomy import normalise

_USERS = pa.schema([("system", pa.string()), ("leaf_system", pa.string())])
_KEYS = pa.schema([("name", pa.string()), ("key", pa.string())])
_VIEWS = ("judged", "truth", "named", "unasked")  # in the order in which they build on each other
_IDS = ("system", "dataset", "choices", "image_id")
READERS = "v1.1.0"  # the oldest DuckDB that opens the database, as others' programs bring theirs


def connect(database: Path, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open a database with the threads of the job; DuckDB itself would take all cores.

    It is written in the form of an old version, as DuckDB itself would write one that only the newest read.

    Args:
        database: the file; made where it is not there.
        read_only: whether others may read it at the same time.
    """
    config: dict[str, str] = {"storage_compatibility_version": READERS}
    if threads := os.environ.get("OMP_NUM_THREADS"):
        config["threads"] = threads
    return duckdb.connect(str(database), read_only, config=config)


@contextmanager
def reading(database: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a copy of a database: a shell that a user has open locks the file, and would be locked out.

    There are views and small tables in it. The paths of the views are relative, and hold for the copy.

    Raises:
        UserError: something in it, or in the files of its views, cannot be read.
    """
    try:
        with TemporaryDirectory() as folder:
            copy = Path(shutil.copy(database, folder))
            with connect(copy, read_only=True) as connection:
                yield connection
    except duckdb.Error as error:
        raise UserError(
            f"{database}: {flat(error)}; delete it, and any damaged file named here, and run the workflow "
            "again"
        ) from error


def quoted(value: object) -> str:
    """Return a value as a text of SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def parquet(paths: Path | Sequence[Path], **columns: str) -> str:
    """Return a SELECT over Parquet files.

    Args:
        paths: of files with the same columns.
        columns: further ones, each with the same value in all rows; they are put before the others.
    """
    files = ", ".join(quoted(path) for path in ([paths] if isinstance(paths, Path) else paths))
    constants = "".join(f"{quoted(value)} AS {name}, " for name, value in columns.items())
    return f"SELECT {constants}* FROM read_parquet([{files}])"


def create_views(connection: duckdb.DuckDBPyConnection, sources: Sources, views: Sequence[Path]) -> None:
    """Make the views that read files, the two small tables that they lack, and the views that metrics read.

    Args:
        connection: of the database.
        sources: the files.
        views: the SQL of the views that metrics read.
    """
    some = {
        "questions": [parquet(p, dataset=d, choices=c) for (d, c), p in sources.questions.items()],
        "images": [parquet(p, dataset=d) for d, p in sources.images.items()],
        "taxa": [parquet(p, dataset=d) for d, p in sources.taxa.items()],
        "splits": [parquet(sources.partition, dataset=sources.training)],
        "answers": [parquet(p, system=s, dataset=d, choices=c) for (s, d, c), p in sources.answers.items()],
        "leaves": [parquet(p, system=s, dataset=d) for (s, d), p in sources.leaves.items()],
    }
    for name, selects in some.items():
        if selects:
            connection.execute(f"CREATE VIEW {name} AS {' UNION ALL '.join(selects)}")
        else:
            strings = [pa.field(column, pa.string()) for column in ("system", "dataset", "choices")]
            nothing = pa.schema([*strings, *schemas.PREDICTIONS]).empty_table()
            connection.from_arrow(nothing).create(name)
    users = {"system": list(sources.leaf_systems), "leaf_system": list(sources.leaf_systems.values())}
    connection.from_arrow(pa.table(users, schema=_USERS)).create("leaf_systems")
    written = "SELECT taxon AS name FROM taxa UNION SELECT answer FROM leaves"
    written += " UNION SELECT unnest(lineage) FROM leaves"
    query = f"SELECT name FROM ({written}) WHERE name IS NOT NULL ORDER BY name"
    names = [name for (name,) in connection.sql(query).fetchall()]
    keys = pa.table({"name": names, "key": [normalise(name) for name in names]}, schema=_KEYS)
    connection.from_arrow(keys).create("keys")
    for path in sorted(views, key=lambda path: _VIEWS.index(path.stem)):
        connection.execute(f"CREATE VIEW {path.stem} AS {path.read_text(encoding='utf-8')}")


def create_metrics(connection: duckdb.DuckDBPyConnection, metrics: Metrics) -> dict[tuple[str, ...], str]:
    """Make a view of each file of metrics (schema `metrics`), and `per_image` over all that give a value.

    Args:
        connection: of a database with the views that metrics read.
        metrics: those to make views of.

    Returns:
        the union of the queries whose rows have the same columns, by these columns.

    Raises:
        UserError: the SQL of a file does not run, or lacks a column.
    """
    connection.execute("CREATE SCHEMA metrics")
    selects: dict[tuple[str, ...], list[str]] = {}
    viewed: list[str] = []  # the same of the views: DuckDB 1.4 mixes up what two queries of a view call alike
    for path in dict.fromkeys(metric.file for metric in metrics.values()):
        mine = [metric for metric in metrics.values() if metric.file == path]
        if mine[0].aggregate.columns:
            columns, query = _columns(connection, path, mine), heads.query(path)
            connection.execute(f'CREATE VIEW metrics."{path.stem}" AS {query}')
            selects.setdefault(mine[0].aggregate.columns, []).append(f"SELECT {columns} FROM ({query})")
            if mine[0].aggregate.columns == ("value",):
                viewed.append(f'SELECT {columns} FROM metrics."{path.stem}"')
    if viewed:
        ids = ", ".join((*_IDS, "metric", "level"))
        connection.execute(
            f"CREATE VIEW per_image AS SELECT {ids}, value FROM ({' UNION ALL BY NAME '.join(viewed)})"
        )
    return {columns: " UNION ALL BY NAME ".join(some) for columns, some in selects.items()}


def _columns(connection: duckdb.DuckDBPyConnection, path: Path, metrics: Sequence[Metric]) -> str:
    """Return the columns to select for a file's metrics; unnamed, the metric is the file's name."""
    wanted = metrics[0].aggregate.columns
    try:
        there = connection.sql(heads.query(path)).columns
    except duckdb.Error as error:
        raise UserError(f"{path}: {error}") from error
    lacking = [name for name in (*_IDS, *wanted) if name not in there]
    if len(metrics) > 1 and "metric" not in there:
        lacking.append("metric")
    if lacking:
        raise UserError(
            f"{path}: its SELECT has no column {', '.join(lacking)}; {metrics[0].aggregate.name} needs it"
        )
    known = {"metric": quoted(metrics[0].name), "level": "NULL::TINYINT"}
    ids = [f"{name}" if name in there else f"{known[name]} AS {name}" for name in ("metric", "level")]
    kept = [f"{name}::DOUBLE AS {name}" if name in ("value", "confidence") else name for name in wanted]
    return ", ".join((*_IDS, *ids, *kept))


def check_complete(connection: duckdb.DuckDBPyConnection, sources: Sources) -> None:
    """Refuse to score where a question has no answer, or two: no row may leave the denominator unseen.

    Args:
        connection: of a database with the views of the sources.
        sources: what should be there.

    Raises:
        UserError: one line per system, data set and choices; or a test set has no question that counts.
    """
    query = "SELECT DISTINCT dataset, choices FROM questions WHERE split = 'test' AND scored"
    if nothing := [key for key in sources.questions if key not in connection.sql(query).fetchall()]:
        raise UserError(
            f"{', '.join(nothing[0])} choices: no test image has a question that counts, so there is nothing "
            "to score. Add test images with taxa at its scored levels, name other `scored_levels` in "
            f"config/datasets/{nothing[0][0]}.yaml, or take it out of `datasets`."
        )
    pairs = [(s, d, c) for s, d, c in sources.answers]
    pairs += [(s, d, "leaf") for s in dict.fromkeys(sources.leaf_systems.values()) for d in sources.images]
    columns = map(list, zip(*pairs, strict=True))
    wanted = pa.table(dict(zip(("system", "dataset", "choices"), columns, strict=True)))
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
        SELECT system, dataset, choices,
            count(*) FILTER (WHERE times IS NULL), count(*) FILTER (WHERE times > 1), count(*)
        FROM wanted JOIN asked USING (dataset, choices) LEFT JOIN found USING (system, dataset, choices, id)
        GROUP BY ALL HAVING count(*) FILTER (WHERE times IS DISTINCT FROM 1) > 0 ORDER BY ALL
    """).fetchall()
    lines = [
        f"{s}, {d}, {c}: of {n} predictions {lost} missing, {twice} more than once"
        for s, d, c, lost, twice, n in rows
    ]
    orphans = connection.sql("""
        SELECT dataset, count(*)
        FROM (SELECT DISTINCT dataset, image_id, level FROM questions WHERE split = 'test' AND scored)
        ANTI JOIN truth USING (dataset, image_id, level) GROUP BY ALL ORDER BY ALL
    """).fetchall()
    lines += [
        f"{dataset}: {n} questions about an image or a level that is not in images and taxa"
        for dataset, n in orphans
    ]
    if lines:
        raise UserError(
            "Predictions and questions do not match; delete the prediction files named and run the workflow"
            " again:\n  " + "\n  ".join(lines)
        )


def unasked(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, int, int]]:
    """Return data set, choices, how many of its test images have no scored question, and of how many.

    Args:
        connection: of a database with the views that metrics read.
    """
    rows: list[tuple[str, str, int, int]] = connection.sql("""
        WITH every AS (SELECT dataset, count(*) AS number FROM images WHERE split = 'test' GROUP BY ALL)
        SELECT dataset, choices, count(*), any_value(number) FROM unasked JOIN every USING (dataset)
        GROUP BY ALL ORDER BY ALL
    """).fetchall()
    return rows


def measure(
    connection: duckdb.DuckDBPyConnection, metrics: Metrics, unions: Mapping[tuple[str, ...], str]
) -> dict[tuple[str, ...], str]:
    """Run every metric; what they read is computed once, as tables named like views.

    Args:
        connection: of a database with the views of the metrics.
        metrics: what the files say that they give.
        unions: the queries, by the columns that their rows have.

    Returns:
        the temporary table with the rows, by the same columns; a row whose first column is null is left out.

    Raises:
        UserError: a query gives a metric that no head names, or a value that none can have.
    """
    for view in ("judged", "named"):
        connection.execute(f"CREATE TEMP TABLE {view} AS FROM main.{view}")
    tables = {columns: "measured_" + "_".join(columns) for columns in unions}
    for columns, table in tables.items():
        connection.execute(
            f"CREATE TEMP TABLE {table} AS SELECT * FROM ({unions[columns]}) WHERE {columns[0]} IS NOT NULL"
        )
        given = connection.sql(f"SELECT DISTINCT metric FROM {table} ORDER BY metric").fetchall()
        if odd := [name for (name,) in given if name not in metrics]:
            raise UserError(
                f"The SQL of metrics gives {', '.join(odd)}, which no head names: `-- metric: {odd[0]}`"
            )
        if columns == ("value",):
            shares = ", ".join(quoted(name) for name, metric in metrics.items() if metric.share) or "''"
            wrong = connection.sql(
                f"SELECT metric, value FROM {table} WHERE NOT isfinite(value)"
                f" OR (metric IN ({shares}) AND value NOT BETWEEN 0 AND 1) ORDER BY ALL LIMIT 1"
            ).fetchall()
            if wrong:
                name, value = wrong[0]
                raise UserError(
                    f"{metrics[name].file}: {name} is {value} for an image; a share is from 0 to 1, and a "
                    "count is finite (`-- unit: count`). Give NULL where an image has no value."
                )
    return tables
