"""Calibration: questions mined with one text, written as the benchmark writes them, are found again with that text alone."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest

from vltaxon import schemas
from vltaxon.config import Clip
from vltaxon.distractors.calibration import calibrate_templates, published
from vltaxon.distractors.mining import mine
from vltaxon.errors import UserError
from vltaxon.provenance import read_parquet

ROOT = Path(__file__).parents[3]
Records = list[dict[str, Any]]


@pytest.fixture(scope="module")
def records(run: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Mined with the default text, `a photo of a {}.`"""
    out = tmp_path_factory.mktemp("mined") / "q.parquet"
    mine(*(run[name] for name in ("taxa", "images", "image_vectors", "taxon_vectors")), "e", "-", [1], 0, out)
    images = {image["image_id"]: image for image in read_parquet(run["images"]).to_pylist()}
    found: dict[str, dict[str, Any]] = {}
    for q in read_parquet(out).to_pylist():
        image = images[q["image_id"]]
        head = {"image": f"/elsewhere/{image['member']}", "label": image["leaf"], "split": "test"}
        record = found.setdefault(q["image_id"], head)
        record[f"level{q['level']}"] = q["options"][q["answer_index"]].lower()
        record[f"choices_level{q['level']}"] = [option.lower() for option in q["options"]]
    return list(found.values())


@pytest.fixture
def measured(run: dict[str, Path], siglip: Clip, tmp_path: Path) -> Callable[..., pa.Table]:
    def measure(records: Records, templates: Sequence[str] = ("a photo of a {}.",), cases: Sequence[str] = ("keep",)) -> pa.Table:
        text = "\n".join(json.dumps(record) for record in records)  # the last line without its end, as in a published file
        (tmp_path / "p.jsonl").write_text(text)
        files = [run["taxa"], run["images"], run["image_vectors"], tmp_path / "p.jsonl"]
        calibrate_templates(siglip, *files, templates, cases, tmp_path / "c.parquet", tmp_path / "c.csv")
        return read_parquet(tmp_path / "c.parquet", schemas.CALIBRATION)

    return measure


def test_the_text_that_mined_is_found(records: Records, measured: Callable[..., pa.Table], tmp_path: Path) -> None:
    table = measured(records, ("a photo of a {}.", "{}"), ("keep", "lower"))
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


def test_shares_are_of_what_was_published(records: Records, measured: Callable[..., pa.Table]) -> None:
    """A record with one option, one with two names that are not ours, one with a null level, one with two options."""
    truths = [record["level4"] for record in records[:4]]
    wrong = [next(choice for choice in record["choices_level4"] if choice != record["level4"]) for record in records[:4]]
    changes: Records = [
        {"choices_level4": [truths[0]]},
        {"choices_level4": ["no bird", truths[1], wrong[1], "nor this"]},
        {"level4": None, "choices_level4": None},
        {"choices_level4": [wrong[3], truths[3]]},
    ]
    made = measured([record | change for record, change in zip(records[:4], changes, strict=True)])
    [row] = [row for row in made.to_pylist() if row["level"] == 4]
    assert row["images"] == 2
    assert row["overlap"] == pytest.approx((1 / 3 + 1) / 2)
    assert row["same_set"] == 0.5


def test_what_cannot_be_compared_is_left_out(
    records: Records, measured: Callable[..., pa.Table], capsys: pytest.CaptureFixture[str]
) -> None:
    strange, relabelled = dict(records[0], image="nowhere.jpg"), dict(records[1], level1="x", choices_level1=["x", "y"])
    rows = measured([strange, relabelled, *records[2:]]).to_pylist()
    assert [row["images"] for row in rows] == [34, 35, 35, 35]
    said = capsys.readouterr().out
    assert "4 questions are about an image that the data set has not: left out" in said
    assert "1 questions have another right label: left out" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "nowhere.jpg"}, "none of its questions is about an image"),
        ({"level5": "a", "choices_level5": ["a", "b"]}, "has level 5, the data set has 4 ranks"),
        ({"level1": "a"}, "line 1 .* level 1 does not have its label among"),
        ({"choices_level1": list("abcde"), "level1": "a"}, "line 1 .* up to four different choices"),
        ({"choices_level1": None}, "line 1 is no record of the benchmark: TypeError"),
        ({"image": None}, "line 1 is no record of the benchmark: TypeError"),
    ],
)
def test_bad_annotations(records: Records, measured: Callable[..., pa.Table], change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        measured([records[0] | change])


@pytest.mark.parametrize("line", ["{", "[]", '"text"', '{"image": "a", "level1": "b"}', '{"image": "a", "levels": 1}', "\udcff"])
def test_lines_that_are_no_records(tmp_path: Path, line: str) -> None:
    (tmp_path / "p.jsonl").write_text('{"image": "a/b.jpg"}\n' + line, errors="surrogateescape")
    with pytest.raises(UserError, match="line 2 is no record"):
        list(published(tmp_path / "p.jsonl"))


def test_vectors_of_another_encoder(run: dict[str, Path], siglip: Clip, records: Records, tmp_path: Path) -> None:
    from vltaxon.demo import tiny_siglip

    tiny_siglip.train(tmp_path, seed=1, steps=1, batch_size=8, images_per_species=1, threads=1)
    other = siglip.model_copy(update={"name": f"local-dir:{tmp_path}"})
    files = [run["taxa"], run["images"], run["image_vectors"], tmp_path / "p.jsonl"]
    with pytest.raises(UserError, match="embedded with other weights"):
        calibrate_templates(other, *files, ["{}"], ["keep"], tmp_path / "c.parquet", tmp_path / "c.csv")


def test_the_published_file_is_read() -> None:
    reference = Path(os.environ.get("VLTAXON_REFERENCE", ROOT / "../shared/reference"))
    file = reference / "annotations/CUB200_with_similar_choice.jsonl"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    found = list(published(file))
    assert len(found) == 5794 * 4
    assert found[0].image == "Black_Footed_Albatross_0001_796111.jpg"
    assert {len(question.choices) for question in found} == {4}
