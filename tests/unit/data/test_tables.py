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


HEAD = "path,genus,species"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("path;genus;species\na.jpg;G;G x\n", "They are separated by semicolons; save the table with commas"),
        ("path\tgenus\tspecies\na.jpg\tG\tG x\n", "They are separated by tabs; save"),
        ("path,Genus,species\n", 'no column "genus".* Rename "Genus" to "genus": headings are read as they'),
        ("Path,genus,species\n", 'Rename "Path" to "path"'),
        *((f"{name},genus,species\n", f'no column "path".* Rename "{name}" to "path"')
          for name in ("file_name", "filename", "image", "image_path", "File Name", "img", "photo", "filepath")),
        ("name,genus,species\n", 'no column "path"; its columns are name, genus, species$'),
        (b"PK\x03\x04\x14\0\x06\0", r"it is a workbook \(xlsx, ods\) or a zip; save the sheet as CSV, in UTF-8"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", r"it is a workbook \(xls\)"),
        (b"\x1f\x8b\x08\0", "it is packed by gzip; unpack it"),
        (b"PAR1\x15\4", "it is Parquet; let its name end in .parquet"),
        (f"{HEAD}\n".encode("utf-16"), "it is UTF-16; save it in UTF-8, or turn it by `iconv -f UTF-16 -t UTF-8`"),
        (f"{HEAD}\n".encode("utf-16-le"), "it is UTF-16"),
        (f"{HEAD}\r\na.jpg,Käfer,G x\r\n".encode("cp1252"),
         'Line 2 reads "a.jpg,Käfer,G x" in CP1252, .* turn it by `iconv -f ENCODING -t UTF-8`'),
        (f"{HEAD}\na.jpg,Käfer,G x\n".encode("mac-roman"), '"a.jpg,Käfer,G x" in MACINTOSH'),
        (f"{HEAD}\na.jpg,甲虫,G x\n".encode("gbk"), '"a.jpg,甲虫,G x" in GB18030'),
        (f"{HEAD}\na.jpg,Günther,G x\n".encode().decode("cp1252"),
         'line 2: genus "GÃ¼nther" was "Günther", before the table was read in another encoding'),
        (f"{HEAD}\na.jpg,Jay, Blue,G x\n", 'line 2: has 4 cells, .*; a text with a comma stands in "quotes"'),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_and_what_to_do(tmp_path: Path, data: str | bytes, words: str) -> None:
    (tmp_path / "t.csv").write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(UserError, match=words) as caught:
        list(rows(tmp_path / "t.csv", ["path", "genus", "species"]))
    assert str(caught.value).startswith(f"{tmp_path}/t.csv")


def test_letters_of_every_script_are_read_as_they_are(tmp_path: Path) -> None:
    names = "Käfer Ödland Élan Ñandú Ørsted Łoś Çedi Ærø Ã Âme å ß ½ 甲虫 жук Elsinoë São"
    (tmp_path / "t.csv").write_text(f"{HEAD},place\na.jpg,{names},G x,GÃ¼nther\n", encoding="utf-8")
    assert [row["genus"] for _, row in rows(tmp_path / "t.csv", ["path", "genus", "species"])] == [names]
