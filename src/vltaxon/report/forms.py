"""The forms of tables: CSV for machines, Markdown for readers, LaTeX for papers."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from tabulate import LATEX_ESCAPE_RULES
from tabulate import tabulate as layout

from vltaxon.errors import flat

MARK = "†"
_SIGNS = {MARK: r"$\dagger$", "✓": r"$\checkmark$", "✗": r"$\times$"}
_MARKUP = re.compile(r"[\\`*<$~]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|&(?=#?\w+;)")


def as_csv(lines: Sequence[Mapping[str, object]], names: Sequence[str]) -> str:
    """Return lines as CSV.

    Args:
        lines: values by column; what a line lacks is empty.
        names: the columns, which are its header.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _no_formula(value) for name, value in line.items()} for line in lines)
    return out.getvalue()


def _no_formula(value: object) -> object:
    """Return a text that spreadsheets would run as a formula behind an apostrophe, which makes it a text."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def as_markdown(rows: Sequence[Sequence[str]], header: Sequence[str], left: int = 1) -> str:
    """Return a Markdown table.

    Args:
        rows: the cells.
        header: the titles of the columns.
        left: how many columns, the first ones, are aligned left; the others are aligned right.
    """
    safe = [[plain(cell).replace("|", r"\|") for cell in row] for row in rows]
    align = ["left"] * left + ["right"] * (len(header) - left)
    return str(layout(safe, header, tablefmt="github", colalign=align, disable_numparse=True))


def plain(text: str) -> str:
    """Return a text on one line of Markdown, as itself: no markup, no HTML."""
    return _MARKUP.sub(r"\\\g<0>", flat(text))


def as_latex(
    rows: Sequence[Sequence[str]],
    header: Sequence[str],
    caption: str,
    label: str,
    left: int = 1,
    notes: Sequence[str] = (),
) -> str:
    """Return a booktabs table as wide as the page, with signs that LaTeX has.

    Args:
        rows: the cells.
        header: the titles of the columns.
        caption: above the table.
        label: what references name it.
        left: how many columns, the first ones, are aligned left; the others are aligned right.
        notes: lines below the table.
    """
    align = ["left"] * left + ["right"] * (len(header) - left)
    lines = [[flat(cell) for cell in row] for row in rows]
    table = layout(lines, header, tablefmt="latex_booktabs", colalign=align, disable_numparse=True)
    # After a line break these signs would be part of it.
    table = re.sub(r"^( *)(?=[\[*])", r"\1{}", table, flags=re.MULTILINE)
    below = "".join(f"\\par\\smallskip\\footnotesize {_tex(note)}\n" for note in notes)
    text = (
        f"\\begin{{table*}}\n\\centering\n\\caption{{{_tex(caption)}}}\n\\label{{tab:{label}}}\n"
        f"\\resizebox{{\\textwidth}}{{!}}{{%\n{table}}}\n{below}\\end{{table*}}"
    )
    for sign, command in _SIGNS.items():
        text = text.replace(sign, command)
    return text


def _tex(text: str) -> str:
    """Return plain text on one line, with LaTeX's special characters escaped as in the cells."""
    return "".join(LATEX_ESCAPE_RULES.get(letter, letter) for letter in flat(text))


def comments(lines: Iterable[str]) -> list[str]:
    """Return lines as comments of LaTeX, which end where their lines do."""
    return [f"% {flat(line)}" for line in lines]
