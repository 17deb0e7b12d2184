"""Tables that users and publishers write, CSV or Parquet: read as rows of text, with clear errors."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from vltaxon.errors import UserError

Row = dict[str, str]


def rows(path: Path, needed: Iterable[str]) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a CSV (UTF-8, commas) or Parquet file with where each stands; an empty cell is "".

    Args:
        path: of the file.
        needed: columns that it must have, once each.

    Raises:
        UserError: no such file, not readable as what its name says, a needed column is absent or stands
            twice, or a row has more or fewer cells than the header.
    """
    try:
        lines = _parquet(path) if path.suffix == ".parquet" else _csv(path)
        where, header = next(lines, ("", []))
        for name in needed:
            if header.count(name) != 1:
                problem = "twice a column" if name in header else "no column"
                raise UserError(
                    f'{path}: has {problem} "{name}"; its columns are {", ".join(header) or "none"}'
                )
        for where, cells in lines:
            if len(cells) != len(header):
                raise UserError(f"{where}: has {len(cells)} cells, but there are {len(header)} columns")
            yield where, dict(zip(header, cells, strict=True))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; is the path right?") from error


def _csv(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The header, then the rows; empty lines are left out."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                if cells:
                    yield f"{path}, line {reader.line_num}", [cell.strip() for cell in cells]
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}: not readable as CSV in UTF-8, after line {reader.line_num}: {error}"
            ) from error


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
