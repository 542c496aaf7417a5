"""A `Sheet` is one table of text; here it gets its notations: terminal, Markdown, LaTeX and HTML.

Pure: text in, text out. What the sheets say is report.py's business.
"""

import csv
import html
import io
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich.box
import rich.table
from rich.text import Text

VERDICT_COLOURS = {"supported": "green", "refuted": "red", "undecided": "yellow"}
_TEMPLATE = Path(__file__).with_name("report_page.html")
_PAGE = 40  # rows of a LaTeX table that stand on one page; of sentences a quarter of that
_MINUS = re.compile(r"(?<![\w.-])-(?=\d)")
_JOINED = re.compile(r"(?<=\d) (?=%)|(?<=\b[np]) (?=[<=])|(?<=[<=]) (?=\d)")  # no line break here
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # at the start of a row it would be an option of the line break before
} | {c: "\\" + c for c in "&%$#_{}"}


@dataclass(frozen=True)
class Sheet:
    """`align`: 'l', 'r' or 'p' (sentences, which wrap) per column. `grouped`: equal neighbours in
    column one form a group.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    note: str = ""
    grouped: bool = False

    def starts_group(self, i: int) -> bool:
        return not self.grouped or i == 0 or self.rows[i][0] != self.rows[i - 1][0]


def terminal(sheet: Sheet) -> rich.table.Table:
    """Narrow: the name of a group is a row of its own, not a column."""
    box = rich.box.SIMPLE_HEAD
    out = rich.table.Table(title=sheet.title, box=box, show_edge=False, padding=(0, 1, 0, 0))
    out.leading = int("p" in sheet.align)
    out.title_justify, out.title_style = "left", "bold"
    first = 1 if sheet.grouped else 0
    for name, side in zip(sheet.head[first:], sheet.align[first:], strict=True):
        out.add_column(name, justify="right" if side == "r" else "left")
    if sheet.grouped:  # a group's name may wrap, the names of its members had better not
        out.columns[0].min_width = min(16, 2 + max(len(row[1]) for row in sheet.rows))
    for i, row in enumerate(sheet.rows):
        cells = [Text(cell, style=VERDICT_COLOURS.get(cell, "")) for cell in row[first:]]
        if sheet.grouped and sheet.starts_group(i):
            out.add_row(Text(row[0], style="italic"))
        if sheet.grouped:
            cells[0] = Text("  ") + cells[0]
        out.add_row(*cells)
    return out


def markdown(sheet: Sheet) -> str:
    rules = ["---:" if side == "r" else "---" for side in sheet.align]
    shown = [row if sheet.starts_group(i) else ("", *row[1:]) for i, row in enumerate(sheet.rows)]
    rows = [map(in_markdown, sheet.head), rules, *(map(in_markdown, row) for row in shown)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    note = f"\n{in_markdown(sheet.note)}\n" if sheet.note else ""
    return f"## {in_markdown(sheet.title)}\n\n" + "\n".join(lines) + "\n" + note


def latex(sheet: Sheet) -> str:
    """A booktabs table, over several pages where it is long; the name of a group is a row of its
    own.
    """
    first = 1 if sheet.grouped else 0
    align, rows = sheet.align[first:], []
    for i, row in enumerate(sheet.rows):
        if sheet.grouped and sheet.starts_group(i):
            rows += [r"\addlinespace"] if i else []
            rows.append(rf"\multicolumn{{{len(align)}}}{{l}}{{\emph{{{in_latex(row[0])}}}}} \\")
        indent = r"\quad " if sheet.grouped else ""
        rows.append(indent + " & ".join(map(in_latex, row[first:])) + r" \\")
    caption = in_latex(". ".join(part.rstrip(".") for part in (sheet.title, sheet.note) if part))
    width = f"{0.85 / max(1, align.count('p')):.2f}"
    columns = "".join(rf"p{{{width}\linewidth}}" if side == "p" else side for side in align)
    head = " & ".join(map(in_latex, sheet.head[first:])) + r" \\"
    if len(rows) > (_PAGE // 4 if "p" in align else _PAGE):
        begin = [r"{\small", rf"\begin{{longtable}}{{{columns}}}", rf"\caption{{{caption}.}} \\"]
        end = [r"\end{longtable}", "}", ""]
        middle = [r"\midrule", r"\endhead"]
    else:
        begin = [r"\begin{table}[htbp]", r"\centering\small", rf"\caption{{{caption}.}}"]
        begin.append(rf"\begin{{tabular}}{{{columns}}}")
        end = [r"\end{tabular}", r"\end{table}", ""]
        middle = [r"\midrule"]
    return "\n".join([*begin, r"\toprule", head, *middle, *rows, r"\bottomrule", *end])


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Raw numbers; empty where there is none."""
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0] if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: "" if v is None or v != v else v for k, v in row.items()})
    return out.getvalue()


def table(sheet: Sheet) -> str:
    """The sheet as HTML, inside a region that scrolls by itself on a narrow screen."""
    head = "".join(
        f'<th scope="col" class="{side}">{in_html(name)}</th>'
        for name, side in zip(sheet.head, sheet.align, strict=True)
    )
    body = []
    for i, row in enumerate(sheet.rows):
        cells = [
            f'<td class="{side}">{badge(cell) if cell in VERDICT_COLOURS else in_html(cell)}</td>'
            for cell, side in zip(row[1:], sheet.align[1:], strict=True)
        ]
        if sheet.starts_group(i):
            span = 1
            while i + span < len(sheet.rows) and not sheet.starts_group(i + span):
                span += 1
            rows = f' rowspan="{span}"' if span > 1 else ""
            cells.insert(0, f'<th scope="row"{rows}>{in_html(row[0])}</th>')
        start = ' class="group"' if sheet.grouped and i and sheet.starts_group(i) else ""
        body.append(f"<tr{start}>{''.join(cells)}</tr>")
    label = html.escape(sheet.title, quote=True)
    note = f'<p class="note">{in_html(sheet.note)}</p>' if sheet.note else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table></div>"
        f"\n{note}"
    )


def commands(lines: Iterable[str]) -> str:
    text = "\n".join(map(html.escape, lines))
    return f'<pre tabindex="0" aria-label="Commands">{text}</pre>' if text else ""


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and their texts, side by side."""
    body = "\n".join(
        f'<tr><th scope="row">{in_html(name)}</th><td>{in_html(text)}</td></tr>'
        for name, text in rows
    )
    return f'<table class="facts"><tbody>\n{body}\n</tbody></table>'


def badge(verdict: str) -> str:
    return f'<span class="verdict {html.escape(verdict)}">{html.escape(verdict)}</span>'


def section(title: str, *parts: str) -> str:
    anchor = re.sub(r"\W+", "-", title.lower()).strip("-")
    return (
        f'<section id="{anchor}">\n<h2>{in_html(title)}</h2>\n' + "\n".join(parts) + "\n</section>"
    )


def figure(svg: str, name: str, alt: str, colours: Mapping[str, str], caption: str = "") -> str:
    """An SVG inside the page: its ids made its own, its `colours` replaced by the page's."""
    picture = svg[svg.index("<svg") :]
    picture = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", picture)
    picture = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", picture, count=1)
    picture = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", picture, count=1)
    for colour, own in colours.items():
        picture = picture.replace(colour, own)
    label = html.escape(alt, quote=True)
    picture = picture.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    note = f"<figcaption>{in_html(caption)}</figcaption>" if caption else ""
    return f'<figure class="{name}"><div class="scroll">{picture}</div>{note}</figure>'


def document(title: str, body: str) -> str:
    """The whole page: one file, no request to anywhere."""
    template = string.Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), body=body)


def in_html(text: str) -> str:
    text = _JOINED.sub("\N{NO-BREAK SPACE}", _MINUS.sub("\N{MINUS SIGN}", text))
    return html.escape(text)


def in_latex(text: str) -> str:
    marked = _JOINED.sub("\1", _MINUS.sub("\0", text))
    escaped = "".join(_LATEX.get(c, c) for c in marked)
    return escaped.replace("\0", "$-$").replace("\1", "~")


def in_markdown(text: str) -> str:
    return re.sub(r"([\\|<*`])", r"\\\1", " ".join(text.split()))
