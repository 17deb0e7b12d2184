"""The forms of tables: CSV for machines, Markdown for readers, LaTeX for papers."""

import csv
import io
import re
from collections.abc import Mapping, Sequence

from tabulate import tabulate as layout

MARK = "†"
_SIGNS = {MARK: r"$\dagger$", "✓": r"$\checkmark$", "✗": r"$\times$"}


def as_csv(lines: Sequence[Mapping[str, object]], names: Sequence[str]) -> str:
    """Return lines as CSV.

    Args:
        lines: values by column; what a line lacks is empty.
        names: the columns, which are its header.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def as_markdown(rows: Sequence[Sequence[str]], header: Sequence[str], left: int = 1) -> str:
    """Return a Markdown table.

    Args:
        rows: the cells.
        header: the titles of the columns.
        left: how many columns, the first ones, are aligned left; the others are aligned right.
    """
    safe = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    align = ["left"] * left + ["right"] * (len(header) - left)
    return str(layout(safe, header, tablefmt="github", colalign=align, disable_numparse=True))


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
    table = layout(rows, header, tablefmt="latex_booktabs", colalign=align, disable_numparse=True)
    below = "".join(f"\\par\\smallskip\\footnotesize {_tex(note)}\n" for note in notes)
    text = (
        f"\\begin{{table*}}\n\\centering\n\\caption{{{_tex(caption)}}}\n\\label{{tab:{label}}}\n"
        f"\\resizebox{{\\textwidth}}{{!}}{{%\n{table}}}\n{below}\\end{{table*}}"
    )
    for sign, command in _SIGNS.items():
        text = text.replace(sign, command)
    return text


def _tex(text: str) -> str:
    """Return plain text with LaTeX's special characters escaped."""
    return re.sub(r"([%&#_$])", r"\\\1", text)
