"""Tables of the user's own that are not where the config says, while results of before are there."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.photos import draw_photos, write_table
from tests.workflow.conftest import Run

DATASET = """source: folder
word: plant
ranks: [order, family, genus, species]
scored_levels: [1, 2, 3, 4]
questions: inat21
test: {table: photos/test.csv}
licence: my own
"""
# No training, no encoder, no report: what is not needed need not be said.
CONFIG = "datasets: [mine]\nchoices: [random]\nsystems: {chance: {model: chance, protocol: chance}}\n"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on a person's own photos."""
    run = Run(tmp_path_factory.mktemp("own"))
    draw_photos(run.folder / "photos")
    write_table(run.folder / "photos")
    (run.folder / "config/datasets/mine.yaml").write_text(DATASET)
    (run.folder / "config/config.yaml").write_text(CONFIG)
    status, said = run.snakemake("--cores", "2")
    assert status == 0, said
    assert "n = 24 images" in (run.folder / "results/tables/main.md").read_text()
    return run


@pytest.fixture
def changed(own: Run, tmp_path: Path) -> Callable[..., Run]:
    """Make a copy of the run with an edited file of the data set, and perhaps without its table."""

    def change(old: str = "", new: str = "", gone: bool = False) -> Run:
        run = own.copy(tmp_path / "copy")
        file = run.folder / "config/datasets/mine.yaml"
        file.write_text(file.read_text().replace(old, new))
        if gone:
            (run.folder / "photos/test.csv").unlink()
        return run

    return change


@pytest.mark.parametrize(
    ("old", "new", "gone"),
    [
        ("test.csv", "tset.csv, images_per_leaf: 1", False),
        ("test.csv", "test.csv, images_per_leaf: 1", True),
        ("photos/test.csv", "photo/test.csv", False),
    ],
)
def test_a_missing_table_is_refused_where_results_are_of_other_values(
    changed: Callable[..., Run], old: str, new: str, gone: bool
) -> None:
    """Snakemake leaves out what it cannot plan, and would have nothing to do."""
    run = changed(old, new, gone)
    path = new.partition(",")[0] if "/" in new else f"photos/{new.partition(',')[0]}"
    for target in ([], ["why"], ["results/questions/mine/random.parquet"]):
        status, said = run.snakemake(*target, "--cores", "1")
        assert status == 1
        assert f"error: {path}: no such file (" in said
        assert "there is no folder photo" in said if path.startswith("photo/") else "photos has" in said
        assert "made of another file or with other values" in said
    status, said = run.snakemake("plan", "--cores", "1")
    assert status == 0, said


def test_the_file_that_may_be_meant_is_named(changed: Callable[..., Run]) -> None:
    _, said = changed("test.csv", "tset.csv").snakemake("--cores", "1")
    assert "(photos has test.csv, Bellis_perennis, " in said


def test_a_table_that_is_gone_need_not_be_there_for_what_was_made_of_it(changed: Callable[..., Run]) -> None:
    """What comes after it is planned all the same; what cannot be made again is told."""
    run = changed("scored_levels: [1, 2, 3, 4]", "scored_levels: [3, 4]", gone=True)
    assert run.planned() == {
        "draw": 1, "answer_questions": 1, "score": 1, "tabulate": 1, "plot": 1, "report": 1,
    }  # fmt: skip
    run = changed_back(run)
    status, said = run.snakemake("why", "--cores", "1")
    assert status == 0, said
    assert "cannot be planned" in said and "ingest" in said
    assert "Nothing is to be done" not in said


def changed_back(run: Run) -> Run:
    """The same with the levels of before."""
    (run.folder / "config/datasets/mine.yaml").write_text(DATASET)
    return run


def test_a_data_set_that_is_not_there_is_not_left_out_of_the_table(changed: Callable[..., Run]) -> None:
    run = changed()
    (run.folder / "config/datasets/other.yaml").write_text(DATASET.replace("test.csv", "other.csv"))
    config = run.folder / "config/config.yaml"
    config.write_text(CONFIG.replace("[mine]", "[mine, other]"))
    status, said = run.snakemake("--cores", "1")
    assert status == 1
    assert "error: photos/other.csv: no such file" in said


def test_nothing_there_at_all_is_said_in_the_same_words(changed: Callable[..., Run]) -> None:
    run = changed(gone=True)
    shutil.rmtree(run.folder / "results")
    shutil.rmtree(run.folder / ".snakemake")
    status, said = run.snakemake("--cores", "1")
    assert status == 1
    assert "error: photos/test.csv: no such file" in said


def test_published_annotations_that_are_not_there(changed: Callable[..., Run]) -> None:
    published = "published: {annotations: photos/asked.jsonl, taxonomy: photos/tree.json}\nlicence: my own"
    run = changed("licence: my own", published)
    config = run.folder / "config/config.yaml"
    config.write_text(CONFIG.replace("[random]", "[random, published]"))
    status, said = run.snakemake("--cores", "1")
    assert status == 1
    assert "photos/asked.jsonl: no such file" in said and "photos/tree.json: no such file" in said
