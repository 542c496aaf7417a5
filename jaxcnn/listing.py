"""A `Listing`: rows of raw values, and how a reader wants them, on the terminal, as Markdown, CSV
and LaTeX. How a sheet looks in each notation is page.py's business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from jaxcnn import page, records
from jaxcnn.config import InputError
from jaxcnn.page import Sheet

FORMATS = {"markdown": "md", "csv": "csv", "latex": "tex"}
LINE = 20  # letters of a text that is not broken into more lines

Row = Mapping[str, Any]


class Column(NamedTuple):
    key: str  # in the CSV
    head: str
    align: str = "r"
    form: str = ","  # of a number


@dataclass(frozen=True)
class Listing:
    name: str  # of its files
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @property
    def sheet(self) -> Sheet:
        head, keys = tuple(c.head for c in self.columns), [c.key for c in self.columns]
        rows = tuple(
            tuple(_text(row[k], c.form) for k, c in zip(keys, self.columns, strict=True))
            for row in self.rows
        )
        return Sheet(self.title, head, rows, "".join(c.align for c in self.columns), self.note)


def show(listing: Listing, console: Console) -> None:
    """On the terminal; where that is narrow, lines run over rather than lose their numbers."""
    sheet = listing.sheet
    shown = page.terminal(sheet)
    for i, column in enumerate(shown.columns):
        widest = max((len(row[i]) for row in sheet.rows), default=0)
        column.min_width = max(min(widest, LINE), *map(len, sheet.head[i].split()))
    console.print(shown, crop=False, overflow="ignore")
    if listing.note:
        console.print("", Text(listing.note, style="dim"), sep="\n")


def render(listing: Listing, form: str) -> str:
    """As 'markdown', 'csv' or 'latex'."""
    if form == "csv":
        keys = [column.key for column in listing.columns]
        return page.csv_text([{key: row[key] for key in keys} for row in listing.rows])
    if form == "latex":
        return "% \\usepackage{booktabs, longtable}\n" + page.latex(listing.sheet)
    if form == "markdown":
        return page.markdown(listing.sheet)
    raise InputError(f"--format: {form!r} is not one of {', '.join(map(repr, FORMATS))}.")


def write(listing: Listing, folder: Path, forms: Sequence[str] = tuple(FORMATS)) -> list[Path]:
    return [
        records.write(folder / f"{listing.name}.{FORMATS[form]}", render(listing, form))
        for form in forms
    ]


def _text(value: Any, form: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if form == "giga":
        return f"{value / 1e9:.4g}"
    return format(value, form)
