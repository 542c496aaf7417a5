"""All claims on one page and in one table: those that experiments put on trial, and those that a
calculation decides.

    overview.write(entries, folder)       # index.html, which links to the experiments' own pages
    overview.readme(entries)              # results/README.md
    overview.rebuild(results, folder)     # both, and the experiments' own pages

Both are made from the experiments' tables and from calculated.py; nobody types a number.
"""

import html
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxcnn import calculated, findings, page, records, report, results, stats
from jaxcnn.config import InputError
from jaxcnn.findings import Finding, Table
from jaxcnn.listing import Column, Listing
from jaxcnn.page import Sheet

CALCULATE = "python launch.py table claims"
EFFECTS = (
    "d is the mean of the paired differences (of logarithms, for numbers of steps) in units of"
    " their standard deviation, with its 95 % interval; beyond 30 it is drawn at the edge. Left out"
    " are predictions with fewer than two pairs or with equal differences."
)


@dataclass(frozen=True)
class Entry:
    """An experiment's table, the command that made its runs, and its page, relative to ours."""

    label: str  # of the figure's rows
    table: Table
    command: str
    page: str


def claims() -> Listing:
    """The claims that a calculation decides, as a table."""
    columns = (
        *(Column("claim", "claim", "p"), Column("source", "source", "l")),
        *(Column("said", "said", "p"), Column("computed", "computed here", "p")),
        Column("verdict", "verdict", "l"),
    )
    rows = []
    for claim in calculated.CLAIMS:
        found = calculated.outcome(claim.name)
        row = {"claim": claim.claim, "source": claim.source, "said": claim.said}
        rows.append(row | {"computed": found.computed, "verdict": found.verdict})
    return Listing("claims", "Claims decided by calculation", columns, tuple(rows))


def entries(source: Path) -> list[Entry]:
    """Of the files of `results.collect` in a folder, and of nothing else.

    Raises `InputError` for a file whose experiment has changed since.
    """
    out = []
    for path in results.files(source):
        stored = results.read(path)
        command, label = stored.launch.command, path.name.partition(".json")[0]
        try:
            table = findings.collect(stored.launch.experiment(), stored.reader(), command)
        except InputError as error:
            raise InputError(f"{path}: {error} Then collect it again.") from error
        out.append(Entry(label, table, command, f"{label}/index.html"))
    return out


def rebuild(source: Path, folder: Path) -> tuple[Path, Path]:
    """The reports and the overview under `folder`, and `source`/README.md, from the files there.
    -> (the overview, the README).
    """
    found = entries(source)
    for entry in found:
        report.write(entry.table, folder / entry.label)
    return write(found, folder), records.write(source / "README.md", readme(found))


# Markdown --------------------------------------------------------------------------------------


def readme(entries: Sequence[Entry]) -> str:
    """One row a claim; an experiment with several predictions has a line in it for each."""
    head = ("claim", "source", "predicted", "published", "ours", "95 % interval", "n", "verdict")
    rows = [*map(_row, _sorted(entries)), *_calculated()]
    lines = [[*map(_cell, row)] for row in [[[name] for name in (*head, "command")], *rows]]
    lines.insert(1, ["---"] * (len(head) + 1))
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    parts = [
        "# Results",
        "Made by `python launch.py report --from results` from the files beside it; do not edit."
        f" {_counts(entries)}. A calculation is exact and has no interval.",
        table,
    ]
    if entries:
        parts += [report.METHOD, page.markdown(_made(entries)).rstrip()]
    return "\n\n".join(parts) + "\n"


def _row(entry: Entry) -> list[list[str]]:
    table, found = entry.table, entry.table.findings
    ours = [report.effect(finding) for finding in found]
    return [
        [table.claim, *([report.CAVEAT + table.caveat] if table.caveat else [])],
        *([table.source], [str(finding.prediction) for finding in found]),
        [_published(finding) or "-" for finding in found],
        *([effect for effect, _ in ours], [span for _, span in ours]),
        *([str(finding.pair.n) for finding in found], [f.verdict.word for f in found]),
        [f"`{entry.command}`"],
    ]


def _calculated() -> list[list[list[str]]]:
    return [
        [[row["claim"]], [row["source"]], ["-"], [row["said"]], [row["computed"]], ["-"], ["-"]]
        + [[row["verdict"]], [f"`{CALCULATE}`"]]
        for row in claims().rows
    ]


def _cell(lines: Iterable[str]) -> str:
    return "<br>".join(line if line.startswith("`") else page.in_markdown(line) for line in lines)


def _made(entries: Sequence[Entry]) -> Sheet:
    rows = tuple(
        (
            entry.label,
            _runs(entry.table),
            *("; ".join(entry.table.facts.get(k, ("-",))) for k in ("commit", "device", "host")),
        )
        for entry in _sorted(entries)
    )
    return Sheet(
        "How it was made", ("experiment", "runs", "commit", "device", "host"), rows, "lllll"
    )


# HTML ------------------------------------------------------------------------------------------


def write(entries: Sequence[Entry], folder: Path) -> Path:
    """index.html: counts, the effects of all predictions, every claim with its verdicts."""
    entries = _sorted(entries)
    parts = [
        f'<header>\n<h1>Claims on trial</h1>\n<p class="source">{page.in_html(_counts(entries))}.'
        f'</p>\n</header>\n<p class="counts">{_badges(entries)}</p>'
    ]
    shown = {entry.label: _effects(entry.table) for entry in entries}
    shown = {name: effects for name, effects in shown.items() if effects}
    if shown:
        from jaxcnn import plots  # matplotlib starts slowly

        svg = plots.svg(plots.effects(shown))
        alt = "Effect of every prediction"
        drawn = page.figure(svg, "effects", alt, plots.IN_PAGE, EFFECTS)
        parts.append(page.section("Effects", drawn))
    if entries:
        items = "\n".join(map(_experiment, entries))
        parts.append(page.section("Decided by experiment", f'<ul class="claims">\n{items}\n</ul>'))
    items = "\n".join(
        _claim(
            row["claim"],
            row["source"],
            "",
            [(row["verdict"], row["computed"], f"Said: {row['said']}")],
        )
        for row in claims().rows
    )
    parts.append(page.section("Decided by calculation", f'<ul class="claims">\n{items}\n</ul>'))
    made = [entry.command for entry in entries]
    parts.append(page.section("How it was made", page.commands([*made, CALCULATE])))
    return records.write(folder / "index.html", page.document("Claims on trial", "\n".join(parts)))


def _experiment(entry: Entry) -> str:
    table = entry.table
    lines = [
        (f.verdict.word, report.sentence(f), f"Published: {p}" if (p := _published(f)) else "")
        for f in table.findings
    ]
    source = f"{table.source}. {_runs(table)}."
    return _claim(table.claim, source, entry.page, lines, report.caveat(table))


def _claim(
    claim: str, source: str, link: str, verdicts: Sequence[tuple[str, str, str]], after: str = ""
) -> str:
    text = page.in_html
    name = f'<a href="{html.escape(link, quote=True)}">{text(claim)}</a>' if link else text(claim)
    items = "".join(
        f"<li>{page.badge(word)}<div><p>{text(ours)}</p>"
        + (f'<p class="published">{text(said)}</p>' if said else "")
        + "</div></li>"
        for word, ours, said in verdicts
    )
    source = f'<p class="source">{text(source)}</p>'
    return f'<li><h3>{name}</h3>{source}<ul class="findings">{items}</ul>{after}</li>'


def _badges(entries: Sequence[Entry]) -> str:
    return " ".join(f"{page.badge(word)} {n}" for word, n in _count(entries).items())


def _effects(table: Table) -> list[tuple[str, float, float, float, str]]:
    """Those that have a d; its sign is turned so that what was predicted is positive. Of arms that
    should be the same neither sign was.
    """
    out = []
    for finding in table.findings:
        d, low, high = stats.standardised(finding.pair)
        if d != d or finding.prediction.direction == "same":
            continue
        if finding.prediction.direction == "less":
            d, low, high = -d, -high, -low
        out.append((str(finding.prediction), d, low, high, finding.verdict.word))
    return out


# Words -----------------------------------------------------------------------------------------


def _counts(entries: Sequence[Entry]) -> str:
    predictions = sum(len(entry.table.findings) for entry in entries)
    words = ", ".join(f"{n} {word}" for word, n in _count(entries).items())
    names = {entry.table.name for entry in entries}
    return (
        f"{len(names)} experiments put claims on trial, with {predictions} predictions in all;"
        f" {len(calculated.CLAIMS)} claims are decided by calculation: {words}"
    )


def _count(entries: Sequence[Entry]) -> dict[str, int]:
    """Verdicts of predictions and calculations."""
    found = Counter(f.verdict.word for entry in entries for f in entry.table.findings)
    found.update(calculated.outcome(claim.name).verdict for claim in calculated.CLAIMS)
    return {word: found[word] for word in page.VERDICT_COLOURS}


def _runs(table: Table) -> str:
    return f"{table.finished} of {table.expected} runs"


def _published(finding: Finding) -> str:
    prediction = finding.prediction
    source = f" ({prediction.source})" if prediction.source else ""
    return prediction.published + source if prediction.published else ""


def _sorted(entries: Sequence[Entry]) -> list[Entry]:
    """In the order of the notes' sections."""

    def place(entry: Entry) -> tuple[list[int], str, str]:
        numbers = re.findall(r"\d+", entry.table.source.partition("section")[2])
        return [*map(int, numbers)], entry.table.name, entry.command

    return sorted(entries, key=place)
