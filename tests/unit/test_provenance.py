import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from vltaxon import provenance, schemas
from vltaxon.errors import UserError

PARTS = pa.table({"leaf": ["a"], "part": ["sft"], "seed": [0]})


def test_a_written_table_carries_where_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "parts.parquet"
    provenance.write_parquet(PARTS, path, schemas.PARTS, rule="partition", seed=3)
    facts = provenance.facts(path)
    assert (facts["rule"], facts["seed"]) == ("partition", "3")
    assert json.loads(facts["packages"])["pyarrow"] == pa.__version__
    assert provenance.read_parquet(path, schemas.PARTS).to_pylist() == PARTS.to_pylist()


def test_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        provenance.write_parquet(PARTS, tmp_path / name, schemas.PARTS, rule="partition")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_wrong_columns_are_refused_on_write_and_on_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed"):
        provenance.write_parquet(PARTS.drop(["seed"]), tmp_path / "x", schemas.PARTS)
    pq.write_table(PARTS.drop(["seed"]), tmp_path / "y")
    with pytest.raises(UserError, match="columns"):
        provenance.read_parquet(tmp_path / "y", schemas.PARTS)
    with pytest.raises(UserError, match="no such file"):
        provenance.read_parquet(tmp_path / "z")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), provenance.atomic(tmp_path / "file") as part:
        part.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_folder_digest_depends_on_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = provenance.digest_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert provenance.digest_folder(tmp_path) != first


def test_tables_written_piece_by_piece_are_one_file_or_none(tmp_path: Path) -> None:
    path, schema = tmp_path / "a.parquet", pa.schema([("a", pa.int64())])
    with provenance.parquet_writer(path, schema, rule="test") as write:
        for i in range(3):
            write(pa.table({"a": [i, i]}))
            assert not path.exists()
    assert provenance.read_parquet(path, schema)["a"].to_pylist() == [0, 0, 1, 1, 2, 2]
    assert provenance.facts(path)["rule"] == "test"
    assert [len(batch) for batch in provenance.parquet_batches(path, schema, rows=4)] == [4, 2]
    with (
        pytest.raises(ValueError, match="columns differ"),
        provenance.parquet_writer(tmp_path / "b.parquet", schema) as write,
    ):
        write(pa.table({"a": [1]}))
        write(pa.table({"b": [1]}))
    assert [found.name for found in tmp_path.iterdir()] == ["a.parquet"]
    assert provenance.read_parquet(path, rows=pc.field("a") > 0)["a"].to_pylist() == [1, 1, 2, 2]
