"""Calibration: questions mined with one text are found again with that text alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest

from vltaxon import schemas
from vltaxon.config.experiment import Calibration
from vltaxon.distractors.calibration import calibrate_templates
from vltaxon.distractors.mining import mine
from vltaxon.engines.zero_shot import Clip
from vltaxon.errors import UserError
from vltaxon.provenance import read_parquet, write_parquet
from vltaxon.tasks.questions import CalibrateTask, MineTask

pytestmark = pytest.mark.numeric

Rows = list[dict[str, Any]]


def _task(
    encoder: Clip, run: dict[str, Path], folder: Path, templates: Sequence[str], cases: Sequence[str]
) -> CalibrateTask:
    return CalibrateTask(
        encoder=encoder,
        texts=Calibration(templates=tuple(templates), cases=tuple(cases)),
        model=(),
        **{name: run[name] for name in ("taxa", "images", "image_vectors")},
        questions=folder / "p.parquet",
        table=folder / "c.parquet",
        text=folder / "c.csv",
    )


@pytest.fixture(scope="module")
def published(run: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Mined with the default text, `a photo of a {}.`, and written in lower case, as the benchmark's are."""
    out = tmp_path_factory.mktemp("mined") / "q.parquet"
    tables = {name: run[name] for name in ("taxa", "images", "image_vectors", "taxon_vectors")}
    mine(MineTask(**tables, encoder="e", template="-", scored_levels=(1,), seed=0, questions=out))
    rows: Rows = read_parquet(out).to_pylist()
    return [row | {"options": [option.lower() for option in row["options"]], "source": "published"} for row in rows]


@pytest.fixture
def measured(run: dict[str, Path], siglip: Clip, tmp_path: Path) -> Callable[..., pa.Table]:
    def measure(rows: Rows, templates: Sequence[str] = ("a photo of a {}.",), cases: Sequence[str] = ("keep",)) -> pa.Table:
        table = pa.Table.from_pylist(rows, schema=schemas.QUESTIONS)
        write_parquet(table, tmp_path / "p.parquet", schemas.QUESTIONS, rule="import_published")
        calibrate_templates(_task(siglip, run, tmp_path, templates, cases))
        return read_parquet(tmp_path / "c.parquet", schemas.CALIBRATION)

    return measure


def test_the_text_that_mined_is_found(published: Rows, measured: Callable[..., pa.Table], tmp_path: Path) -> None:
    table = measured(published, ("a photo of a {}.", "{}"), ("keep", "lower"))
    assert pa.csv.read_csv(tmp_path / "c.csv").to_pylist() == table.to_pylist()
    rows = {(row["template"], row["case"], row["level"]): row for row in table.to_pylist()}
    assert len(rows) == 2 * 2 * 4
    assert {row["images"] for row in rows.values()} == {36}
    for level in range(1, 5):
        right = rows["a photo of a {}.", "keep", level]
        assert (right["overlap"], right["same_set"]) == (1, 1)
        assert 0 < right["chance"] <= 1
    others = [row for (template, case, level), row in rows.items() if template == "{}" and level == 4]
    assert all(row["overlap"] < 1 and row["same_set"] < row["overlap"] for row in others)


def test_shares_are_of_what_was_published(published: Rows, measured: Callable[..., pa.Table]) -> None:
    """A question with one option, one with two names that are not ours, one with two options; the level of a fourth is null."""
    one, strange, two = (row for row in published[: 4 * 3] if row["level"] == 4)

    def shown(row: dict[str, Any], *options: str) -> dict[str, Any]:
        return row | {"options": list(options), "answer_index": options.index(row["options"][row["answer_index"]])}

    def right(row: dict[str, Any]) -> str:
        return str(row["options"][row["answer_index"]])

    def wrong(row: dict[str, Any]) -> str:
        return next(option for option in row["options"] if option != right(row))

    made = measured(
        [
            shown(one, right(one)),
            shown(strange, "no bird", right(strange), wrong(strange), "nor this"),
            shown(two, wrong(two), right(two)),
        ]
    )
    [row] = made.to_pylist()
    assert row["level"] == 4 and row["images"] == 2
    assert row["overlap"] == pytest.approx((1 / 3 + 1) / 2)
    assert row["same_set"] == 0.5


def test_nothing_to_compare(published: Rows, measured: Callable[..., pa.Table]) -> None:
    with pytest.raises(UserError, match="nothing to compare"):
        measured([row | {"options": row["options"][:1], "answer_index": 0} for row in published])


def test_vectors_of_another_encoder(run: dict[str, Path], siglip: Clip, tmp_path: Path) -> None:
    from vltaxon.demo import tiny_siglip

    tiny_siglip.train(tmp_path, seed=1, steps=1, batch_size=8, images_per_species=1, threads=1)
    other = siglip.model_copy(update={"name": f"local-dir:{tmp_path}"})
    with pytest.raises(UserError, match="embedded with other weights"):
        calibrate_templates(_task(other, run, tmp_path, ("{}",), ("keep",)))
