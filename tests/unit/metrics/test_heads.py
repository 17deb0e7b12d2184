"""What heads say: which columns tables have, and in which order."""

from pathlib import Path

from vltaxon.metrics import heads

METRICS = heads.read(heads.files())


def test_a_column_is_named_once_in_a_group() -> None:
    for group in {place.group for metric in METRICS.values() for place in metric.places}:
        columns = heads.columns(METRICS, group)
        assert (
            len({column.name for column in columns})
            == len(columns)
            == len({column.title for column in columns})
        )
        orders = [
            place.order for metric in METRICS.values() for place in metric.places if place.group == group
        ]
        assert len(set(orders)) == len(orders), f"{group}: two columns of one place"


def test_the_main_table_begins_with_its_two_metrics() -> None:
    assert [column.name for column in heads.columns(METRICS, "main")][:3] == ["hca", "leaf", "hca_given_leaf"]


def test_a_file_may_give_several_metrics_and_say_of_all_what_they_share(tmp_path: Path) -> None:
    path = tmp_path / "several.sql"
    path.write_text(
        "-- title: Several\n-- meaning: of one kind\n-- unit: count\n-- interval: hidden\n"
        "-- metric: one\n-- group: main 2, stage 1, as One, at first\n"
        "-- metric: two\n-- unit: share\n-- group: main 1\nSELECT 1\n"
    )
    one, two = heads.read([path]).values()
    assert (one.name, one.share, two.name, two.share) == ("one", False, "two", True)
    first, second = heads.columns({"one": one, "two": two}, "main")
    assert (first.title, first.name, first.scale) == ("Several", "two", 100)
    assert (second.title, second.name, second.scale, second.interval) == (
        "One, at first",
        "stage1_one",
        1,
        False,
    )


def test_sql_is_what_stands_below_the_head(tmp_path: Path) -> None:
    path = tmp_path / "one.sql"
    path.write_text("-- title: One\nSELECT 1 -- not a head\n")
    assert heads.query(path) == "SELECT 1 -- not a head"
