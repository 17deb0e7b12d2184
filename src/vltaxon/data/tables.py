"""Tables that users and publishers write, CSV or Parquet: read as rows of text, with clear errors."""

import codecs
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vltaxon.errors import UserError, flat

Row = dict[str, str]

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_PATHS = re.compile(r"(image|img|photo|picture|file)[ _-]*(file)?[ _-]*(path|name)?", re.I)
_FOREIGN = {  # what is given in place of a CSV file, by its first bytes
    b"PK\x03\x04": "a workbook (xlsx, ods) or a zip; save the sheet as CSV, in UTF-8",
    b"\xd0\xcf\x11\xe0": "a workbook (xls); save the sheet as CSV, in UTF-8",
    b"\x1f\x8b": "packed by gzip; unpack it (gunzip)",
    b"(\xb5/\xfd": "packed by zstd; unpack it",
    b"BZh": "packed by bzip2; unpack it",
    b"\xfd7zXZ": "packed by xz; unpack it",
    b"PAR1": "Parquet; let its name end in .parquet",
    b"SQLite format 3": "a database of SQLite; export the table as CSV",
    b"%PDF": "a PDF; save the table as CSV",
}


def rows(path: Path, needed: Iterable[str]) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a CSV (UTF-8, commas) or Parquet file with where each stands; an empty cell is "".

    Args:
        path: of the file.
        needed: columns that it must have, once each.

    Raises:
        UserError: no such file, not readable as what its name says, a needed column is absent or stands
            twice, a row has more or fewer cells than the header, or a needed cell was once read in another
            encoding.
    """
    needed = tuple(needed)
    try:
        lines = _parquet(path) if path.suffix == ".parquet" else _csv(path)
        where, header = next(lines, ("", []))
        for name in needed:
            if header.count(name) != 1:
                problem = "twice a column" if name in header else "no column"
                raise UserError(
                    f'{path}: has {problem} "{name}"; its columns are {", ".join(header) or "none"}'
                    f"{_hint(name, header)}"
                )
        for where, cells in lines:
            if len(cells) != len(header):
                quoted = '; a text with a comma stands in "quotes"' if len(cells) > len(header) else ""
                raise UserError(
                    f"{where}: has {len(cells)} cells, but there are {len(header)} columns{quoted}"
                )
            row = dict(zip(header, cells, strict=True))
            for name in needed:
                if not row[name].isascii() and (meant := _mangled(row[name])):
                    raise UserError(
                        f'{where}: {name} "{row[name]}" was "{meant}", before the table was read in another '
                        "encoding and saved; make it anew from the original, in UTF-8"
                    )
            yield where, row
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; is the path right?") from error


def _hint(name: str, header: Sequence[str]) -> str:
    """Return what to do where a column is absent, as far as its heading can be told among the others."""
    if name in header:
        return ""
    if len(header) == 1:
        for mark, called in _SEPARATORS.items():
            if mark in header[0]:
                return f". They are separated by {called}; save the table with commas"
    near = [other for other in header if other.casefold() == name.casefold()]
    if not near and name == "path":
        near = [other for other in header if other and _PATHS.fullmatch(other)]
    if not near:
        return ""
    return f'. Rename "{near[0]}" to "{name}": headings are read as they are written, capitals included'


def _mangled(text: str) -> str:
    """Return what a text was whose UTF-8 was taken for Windows's encoding, empty of any other."""
    try:
        return text.encode("cp1252").decode()
    except UnicodeError:
        return ""


def _csv(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The header, then the rows; empty lines are left out."""
    _demand_text(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                if cells:
                    yield f"{path}, line {reader.line_num}", [cell.strip() for cell in cells]
        except (csv.Error, UnicodeDecodeError) as error:
            said = _encodings(path) if isinstance(error, UnicodeDecodeError) else ""
            raise UserError(
                f"{path}: not readable as CSV in UTF-8, after line {reader.line_num}: {error}{said}"
            ) from error


def _demand_text(path: Path) -> None:
    """Refuse what is no text in UTF-8, as far as its first bytes tell."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in (head[:1], head[1:2]):
        raise UserError(
            f"{path}: not readable as CSV in UTF-8: it is UTF-16; save it in UTF-8, or turn it by `iconv -f "
            "UTF-16 -t UTF-8`"
        )
    for start, what in _FOREIGN.items():
        if head.startswith(start):
            raise UserError(f"{path}: not readable as CSV in UTF-8: it is {what}")


def _encodings(path: Path) -> str:
    """Return how the first line that is not UTF-8 reads in the encodings that spreadsheets write."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            line.decode()
        except UnicodeDecodeError:
            if len(line) > 1000 or any(byte < 32 and byte not in b"\t\r" for byte in line):
                return ""  # no text
            read = [
                f'"{flat(line.decode(codec))}" in {codec}'
                for codec in ("CP1252", "MACINTOSH", "GB18030")  # of Windows, old Macs, China
                if "\ufffd" not in line.decode(codec, "replace")
            ]
            return (
                f". Line {number} reads {', '.join(read)}. Save the table in UTF-8, or turn it by `iconv -f "
                "ENCODING -t UTF-8`"
            )
    return ""


def _parquet(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The header, then the rows; numbers become text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        try:
            table = pq.read_table(file, page_checksum_verification=True)
            columns = [column.cast(pa.string()).fill_null("").to_pylist() for column in table.columns]
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(
                f"{path}: not readable as Parquet with columns of text: {str(error).splitlines()[0]}"
            ) from error
    yield str(path), list(table.column_names)
    for number, cells in enumerate(zip(*columns, strict=True), start=1):
        yield f"{path}, row {number}", [cell.strip() for cell in cells]
