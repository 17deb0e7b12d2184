"""Scores: every metric for all, seen and unseen species of each data set, with a bootstrap over images.

Semantics: those of the benchmark's code (Tan et al., arXiv 2505.24840, utils/metric.py), but what is no
answer is wrong here and has columns of its own.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import polars as pl
from numpy.typing import NDArray
from tqdm import tqdm

from vltaxon import schemas
from vltaxon.errors import UserError
from vltaxon.metrics import heads
from vltaxon.metrics.aggregate import AGGREGATES, Floats, Labels, Statistic, harmonic, means
from vltaxon.metrics.database import (
    check_complete,
    connect,
    create_metrics,
    create_views,
    measure,
    parquet,
    quoted,
    unasked,
)
from vltaxon.metrics.heads import OPEN, Metrics
from vltaxon.metrics.learnt import Learnt
from vltaxon.metrics.uncertainty import interval, mean_intervals, resampled
from vltaxon.provenance import atomic, verify, write_parquet
from vltaxon.provenance import facts as facts_of
from vltaxon.tasks.scoring import ScoreTask, Sources

_KEY = ("choices", "system", "metric", "level")


class _Key(NamedTuple):
    choices: str
    system: str
    metric: str
    level: int | None


class _Score(NamedTuple):
    key: _Key
    value: float
    low: float
    high: float
    n: int


class _Images(NamedTuple):
    """What was measured on images.

    What becomes a mean stands in one matrix of shape (images, keys), NaN where a metric has no value; all
    else by key.
    """

    keys: list[_Key]
    values: Floats
    others: dict[_Key, tuple[Floats | Labels, ...]]

    def some(self, rows: NDArray[np.bool_]) -> "_Images":
        """Return the same of some images, for the keys that have a value there."""
        values = self.values[rows]
        there = np.flatnonzero((~np.isnan(values)).any(axis=0))
        others = {key: tuple(column[rows] for column in columns) for key, columns in self.others.items()}
        others = {key: columns for key, columns in others.items() if _count(columns)}
        return _Images([self.keys[j] for j in there], values[:, there], others)


def score(task: ScoreTask) -> None:
    """Write the scores, shares as fractions, and the database, with every metric before averaging.

    Raises:
        UserError: a prediction is missing or doubled, a file is damaged, or a metric's head or SQL is wrong.
    """
    metrics, sources = heads.read(task.metrics), task.sources
    verify(sources.every())
    frames: list[pl.DataFrame] = []
    learnt = Learnt.read(sources)
    copies: list[tuple[str, int]] = []
    with atomic(task.database) as part, connect(part) as connection:
        create_views(connection, sources, task.views)
        unions = create_metrics(connection, metrics)
        check_complete(connection, sources)
        tables = measure(connection, metrics, unions)
        for dataset in tqdm(sources.images, desc="scores", unit="data set"):
            images, shown = _images(connection, tables, dataset)
            subsets = {"all": np.full(len(shown), True)}
            if learnt is not None:
                seen = learnt.saw(dataset, shown)
                subsets |= {"seen": seen, "unseen": ~seen}
                copies += [(dataset, number)] if (number := learnt.copies(dataset, shown)) else []
            for subset, rows in subsets.items():
                if rows.any():
                    seed = (task.seed, zlib.crc32(dataset.encode()))
                    found = sorted(_scores(images.some(rows), metrics, task.bootstrap, seed), key=_place)
                    frames.append(_frame(found).with_columns(dataset=pl.lit(dataset), subset=pl.lit(subset)))
        facts: dict[str, object] = {"rule": "score", "seed": task.seed, "bootstrap": task.bootstrap}
        if warnings := _warnings(sources):
            facts["warnings"] = warnings
        if learnt is not None and copies:
            facts["notes"] = [(dataset, learnt.told(number)) for dataset, number in copies]
        if lacking := unasked(connection):
            facts["unasked"] = lacking
        write_parquet(pl.concat(frames).to_arrow(), task.scores, schemas.SCORES, **facts)
        connection.execute(f"CREATE VIEW scores AS {parquet(task.scores)}")
    # of a shell that a user had open on the database before this one
    task.database.with_name(f"{task.database.name}.wal").unlink(missing_ok=True)


def _warnings(sources: Sources) -> list[tuple[str, str, str, str]]:
    """Return data set, choices, system and words of what readers should know of predictions.

    It is what they are stamped with as a warning, and several models that have answered under one name.
    """
    shards = (file for files in (*sources.answers.values(), *sources.leaves.values()) for file in files)
    stamps = {file: facts_of(file) for file in shards}

    def stamped(files: Iterable[Path], name: str) -> set[str]:
        return {one for file in files for one in json.loads(stamps[file].get(name, "[]"))}

    tables = {
        (dataset, choices, system): files for (system, dataset, choices), files in sources.answers.items()
    }
    for system, of in sources.leaf_systems.items():
        tables |= {
            (dataset, OPEN, system): files for (s, dataset), files in sources.leaves.items() if s == of
        }
    found = []
    for key, files in tables.items():
        dataset, _, system = key
        words = stamped(files, "warnings")
        before = (sources.leaf_systems.get(system, ""), dataset)  # stage 1, which the answers hang on
        words |= _several(stamped((*files, *sources.leaves.get(before, ())), "answered_by"))
        found += [(*key, one) for one in sorted(words)]
    return found


def _several(origins: set[str]) -> set[str]:
    """Return in words that several models have answered under one name, by the names that they gave.

    Fingerprints change with every update of a service, and tell no models apart.
    """
    models = sorted({origin.partition(" ")[0] for origin in origins})
    if len(models) < 2:
        return set()
    marks = len({mark for origin in origins if (mark := origin.partition(" ")[2])})
    told = f" ({marks} fingerprints)" if marks > 1 else ""
    return {f"answered by more than one model under the same name: {', '.join(models)}{told}"}


def _place(score: _Score) -> tuple[str, str, str, int]:
    return (*score.key[:3], score.key.level or 0)


def _frame(scores: list[_Score]) -> pl.DataFrame:
    columns = [*_Key._fields, *_Score._fields[1:]]
    kinds = [pl.String, pl.String, pl.String, pl.Int8, pl.Float64, pl.Float64, pl.Float64, pl.Int64]
    rows = [(*one.key, *one[1:]) for one in scores]
    return pl.DataFrame(rows, dict(zip(columns, kinds, strict=True)), orient="row")


def _images(
    connection: duckdb.DuckDBPyConnection, tables: Mapping[tuple[str, ...], str], dataset: str
) -> tuple[_Images, pl.DataFrame]:
    """Return what was measured on a data set's images, by their ids, and the images: leaf and sha256."""
    connection.execute(f"SET VARIABLE dataset = {quoted(dataset)}")
    every = " UNION ".join(
        f"SELECT image_id FROM {table} WHERE dataset = getvariable('dataset')" for table in tables.values()
    )
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE rows_of AS
        SELECT image_id, leaf, sha256, row_number() OVER (ORDER BY image_id) - 1 AS i FROM images
        WHERE dataset = getvariable('dataset') AND image_id IN ({every})
    """)
    shown: pl.DataFrame = connection.sql("SELECT leaf, sha256 FROM rows_of ORDER BY i").pl()
    keys, values = _matrix(connection, tables.get(("value",)), dataset, len(shown))
    others: dict[_Key, tuple[Floats | Labels, ...]] = {}
    for columns, table in tables.items():
        if columns != ("value",):
            others |= _others(connection, table, columns, dataset, len(shown))
    return _Images(keys, values, others), shown


def _matrix(
    connection: duckdb.DuckDBPyConnection, table: str | None, dataset: str, images: int
) -> tuple[list[_Key], Floats]:
    """Return the keys of the metrics that are means, and their values."""
    if table is None:
        return [], np.empty((images, 0))
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE columns_of AS
        SELECT *, row_number() OVER (ORDER BY choices, system, metric, level) - 1 AS j
        FROM (
            SELECT DISTINCT choices, system, metric, level FROM {table} WHERE dataset = getvariable('dataset')
        )
    """)
    query = "SELECT choices, system, metric, level FROM columns_of ORDER BY j"
    keys = [_Key(*row) for row in connection.sql(query).fetchall()]
    cells = connection.sql(f"""
        SELECT i, j, value FROM {table} AS measured
        JOIN rows_of USING (image_id)
        JOIN columns_of USING (choices, system, metric) WHERE dataset = getvariable('dataset')
        AND measured.level IS NOT DISTINCT FROM columns_of.level
    """).fetchnumpy()
    values = np.full((images, len(keys)), np.nan)
    values[cells["i"], cells["j"]] = cells["value"]
    _check_single(int(np.count_nonzero(~np.isnan(values))), len(cells["value"]), dataset)
    return keys, values


def _others(
    connection: duckdb.DuckDBPyConnection, table: str, columns: tuple[str, ...], dataset: str, images: int
) -> dict[_Key, tuple[Floats | Labels, ...]]:
    """Return the columns of the metrics that are no means by key; NaN or None for an image without a row."""
    query = f"SELECT * FROM {table} JOIN rows_of USING (image_id) WHERE dataset = getvariable('dataset')"
    found: dict[_Key, tuple[Floats | Labels, ...]] = {}
    for key, rows in connection.sql(query).pl().partition_by(_KEY, as_dict=True).items():
        _check_single(rows["i"].n_unique(), len(rows), dataset)
        whole = []
        for name in columns:
            numbers = rows[name].dtype == pl.Float64
            column = np.full(images, np.nan if numbers else None, dtype=float if numbers else object)
            column[rows["i"].to_numpy()] = rows[name].to_numpy()
            whole.append(column)
        found[_Key(*key)] = tuple(whole)
    return found


def _check_single(found: int, rows: int, dataset: str) -> None:
    if found != rows:
        raise UserError(
            f"{dataset}: a metric gives an image two values; its SQL must give one per image and level"
        )


def _count(columns: tuple[Floats | Labels, ...]) -> int:
    """Return the number of images that have a row: a number or a label in the first column."""
    return sum(not (one is None or one != one) for one in columns[0].tolist())


def _scores(images: _Images, metrics: Metrics, bootstrap: int, seed: tuple[int, ...]) -> Iterator[_Score]:
    """Yield the scores of images: of means, of what has rows of its own, and of what is made of means."""
    statistics = {key: _statistic(key, columns, metrics) for key, columns in images.others.items()}
    every = [means(images.values), *statistics.values()]
    drawn, *others = resampled(every, len(images.values), bootstrap, seed)
    found: dict[_Key, tuple[_Score, Floats]] = {}
    if images.keys:
        shares = np.array([metrics[key.metric].share for key in images.keys])
        numbers = mean_intervals(images.values, drawn, shares)
        scores = [_Score(*one) for one in zip(images.keys, *numbers, strict=True)]
        yield from scores
        found = {one.key: (one, column) for one, column in zip(scores, drawn.T, strict=True)}
    for (key, statistic), values in zip(statistics.items(), others, strict=True):
        value, n = float(statistic(np.ones((1, len(images.values))))[0, 0]), _count(images.others[key])
        yield _Score(key, value, *interval(value, values[:, 0], n, metrics[key.metric].share), n)
    for metric in metrics.values():
        for first, second in [metric.aggregate.metrics] if metric.aggregate.metrics else []:
            for key in [key for key in found if key.metric == first and key._replace(metric=second) in found]:
                (a, of_a), (b, of_b) = found[key], found[key._replace(metric=second)]
                value, n = float(harmonic(np.array(a.value), np.array(b.value))), min(a.n, b.n)
                bounds = interval(value, harmonic(of_a, of_b), n, metric.share)
                yield _Score(key._replace(metric=metric.name), value, *bounds, n)


def _statistic(key: _Key, columns: tuple[Floats | Labels, ...], metrics: Metrics) -> Statistic:
    aggregate = metrics[key.metric].aggregate
    made = AGGREGATES[aggregate.name].made
    assert made is not None, "its rows have columns of their own"
    return made(*columns, *aggregate.told)
