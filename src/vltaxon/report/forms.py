"""The forms of tables: CSV for machines, Markdown for readers, LaTeX for papers."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from tabulate import tabulate as layout

MARK = "†"
_TEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{"\\": r"\ensuremath{\backslash}", "<": r"\ensuremath{<}", ">": r"\ensuremath{>}"},
    **{"^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "`": r"\textasciigrave{}"},
    **{MARK: r"$\dagger$", "✓": r"$\checkmark$", "✗": r"$\times$"},
}
_MARKUP = re.compile(r"[\\`*|<$~]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|&(?=#?\w+;)")


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
    safe = [[plain(cell) for cell in row] for row in rows]
    align = ["left"] * left + ["right"] * (len(header) - left)
    return str(layout(safe, header, tablefmt="github", colalign=align, disable_numparse=True))


def plain(text: str) -> str:
    """Return a text on one line of Markdown, as itself: no markup, no HTML, no end of a cell."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


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
    safe = [[tex(cell) for cell in row] for row in (header, *rows)]
    table = layout(safe[1:], safe[0], "latex_booktabs_raw", colalign=align, disable_numparse=True)
    below = "".join(f"\\par\\smallskip\\footnotesize {tex(note)}\n" for note in notes)
    return (
        f"\\begin{{table*}}\n\\centering\n\\caption{{{tex(caption)}}}\n\\label{{tab:{label}}}\n"
        f"\\resizebox{{\\textwidth}}{{!}}{{%\n{table}}}\n{below}\\end{{table*}}"
    )


def tex(text: str) -> str:
    """Return a text on one line of LaTeX, as itself, with signs that LaTeX has."""
    safe = "".join(_TEX.get(letter, letter) for letter in " ".join(text.split()))
    return f"{{}}{safe}" if safe[:1] in ("[", "*") else safe  # which the line break before would take


def comments(lines: Iterable[str]) -> list[str]:
    """Return lines as comments of LaTeX, which end where their lines do."""
    return [f"% {' '.join(line.split())}" for line in lines]
