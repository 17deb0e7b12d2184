"""Tables of users: CSV and Parquet give the same rows, and what is wrong is said with its line."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vltaxon.data.tables import rows
from vltaxon.errors import UserError


def test_csv_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\ufeffpath,year,genus\n a.jpg ,2021,G\n\nb.jpg,,\n", encoding="utf-8")
    columns = {
        "path": ["a.jpg", " b.jpg"],
        "year": pa.array([2021, None]),
        "genus": pa.array(["G", None]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    expected = [{"path": "a.jpg", "year": "2021", "genus": "G"}, {"path": "b.jpg", "year": "", "genus": ""}]
    assert [row for _, row in rows(tmp_path / "t.csv", ["path"])] == expected
    assert [row for _, row in rows(tmp_path / "t.parquet", ["path"])] == expected
    assert [where for where, _ in rows(tmp_path / "t.csv", [])] == [
        f"{tmp_path}/t.csv, line {n}" for n in (2, 4)
    ]
    assert [where for where, _ in rows(tmp_path / "t.parquet", [])] == [
        f"{tmp_path}/t.parquet, row {n}" for n in (1, 2)
    ]


def test_parquet_that_is_none_or_holds_lists(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for content in (b"", b"PAR1 or not", b"PAR1" + bytes(40) + b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"t\.parquet: not readable as Parquet"):
            list(rows(path, ["path"]))
    pq.write_table(pa.table({"path": [["a"], ["b"]]}), path)
    with pytest.raises(UserError, match="not readable as Parquet with columns of text"):
        list(rows(path, ["path"]))
    pq.write_table(pa.table({"file": ["a"]}), path)
    with pytest.raises(UserError, match='no column "path"; its columns are file'):
        list(rows(path, ["path"]))


@pytest.mark.parametrize("name", ["absent.csv", "absent.parquet", "folder.csv", "folder.parquet"])
def test_no_file(tmp_path: Path, name: str) -> None:
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=r"No such file|Is a directory"):
        list(rows(tmp_path / name, ["path"]))
