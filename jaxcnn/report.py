"""The report of an experiment, in words: terminal, Markdown, CSV, LaTeX and one HTML page.

    table = findings.collect(experiment, root)
    report.show(table, console)
    report.write(table, folder)

Every output prints the same sheets and sentences, and a number is written in one way, by the
functions at the end of this file. The same records give the same bytes.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from jaxcnn import page, records
from jaxcnn.experiment import POINTS, PROBED, Measure
from jaxcnn.findings import Arm, Cell, Finding, Table
from jaxcnn.page import Sheet
from jaxcnn.stats import MOST_SEEDS

METHOD = (
    "Arms are compared in pairs, seed by seed. Intervals are 95 % t-intervals. Numbers of steps and"
    " sizes of gradients are compared as a ratio (of geometric means), all else as a difference. A"
    " verdict rests on the p-value after Holm's correction for all predictions of the experiment:"
    " that of the exact sign-flip permutation test where the pairs are enough for it to fall below"
    " 0.05, otherwise that of the paired t-test."
)
SAME = (
    " That arms are the same within a margin rests on two one-sided t-tests, significant where the"
    " 90 % interval lies within it; a difference shown to be beyond the margin refutes it."
)
CAVEAT = "Why it may differ from the source: "
CURVES = "Mean over seeds of each arm at its chosen setting; the band is the 95 % interval."


def show(table: Table, console: Console) -> None:
    """The verdicts and the numbers behind them, on the terminal."""
    console.print(Text(table.claim, style="bold"))
    console.print(Text(f"{table.source}. {_stand(table)}.", style="dim"))
    for sheet in (_results(table), _comparisons(table)):
        if sheet.rows:
            console.print("", page.terminal(sheet))
    console.print()
    for finding in table.findings:
        word = finding.verdict.word
        style = f"bold {page.VERDICT_COLOURS[word]}"
        console.print(Text.assemble((word, style), ": ", sentence(finding)))
        if finding.prediction.published:
            console.print(Text(published(finding), style="dim"))
    if table.caveat:
        console.print(Text(CAVEAT + table.caveat))
    for warning in table.warnings:
        console.print(Text.assemble(("note: ", "yellow"), warning))


def write(table: Table, folder: Path) -> list[Path]:
    """report.md, table.csv, predictions.csv, table.tex, curves.svg, curves.png and index.html; and
    PROBE.svg, PROBE.png for each of the experiment's probes.
    """
    from jaxcnn import plots  # matplotlib starts slowly, and is needed only here

    files: dict[str, str | bytes] = {
        "report.md": markdown(table),
        # errors as shares, not in percent
        "table.csv": page.csv_text([_measured(table, cell) for cell in table.cells]),
        "predictions.csv": page.csv_text([_tested(finding) for finding in table.findings]),
        "table.tex": _latex(table),
    }
    figures = {}
    if any(table.curves.values()):
        panels = {_split(split): curves for split, curves in table.curves.items() if curves}
        waited = [cell.measure for cell in table.cells if cell.measure.metric == table.metric]
        targets = {
            _split(split): sorted({m.target for m in waited if m.split == split and m.target})
            for split in table.curves
        }
        curves = plots.learning_curves(panels, targets, table.metric)
        files["curves.svg"], files["curves.png"] = plots.svg(curves), plots.png(curves)
        figures["curves"] = page.figure(
            files["curves.svg"], "curves", "Learning curves", plots.IN_PAGE, CURVES
        )
    arms = [arm for arm in table.arms if arm.tried]
    scores = {arm.name: {t.values[0]: t.mean for t in arm.tried if t.scores} for arm in arms}
    tried = {value for arm in scores.values() for value in arm}
    if len(table.tuned) == 1 and tried and all(type(v) in (int, float) and v > 0 for v in tried):
        drawn = plots.tuning(scores, table.tuned[0], str(table.tune_by), table.tune_by.metric)
        figures["tuning"] = page.figure(
            plots.svg(drawn), "tuning", "Score at every value tried", plots.IN_PAGE
        )
    for probe, points in table.depths.items():
        if not all(points.values()):
            continue
        drawn = plots.by_depth(
            {f"{POINTS[at].capitalize()} training": arms for at, arms in points.items()},
            PROBED[probe],
            probe,
        )
        svg = plots.svg(drawn)
        files[f"{probe}.svg"], files[f"{probe}.png"] = svg, plots.png(drawn)
        figures[probe] = page.figure(svg, probe, _by_layer(probe), plots.IN_PAGE, CURVES)
    files["index.html"] = _html(table, figures)
    return [records.write(folder / name, content) for name, content in files.items()]


def markdown(table: Table) -> str:
    text = page.in_markdown
    parts = [f"# {text(table.claim)}", f"{text(table.source)}. {_stand(table)}."]
    parts += [f"> {text(warning)}" for warning in table.warnings]
    parts += [
        f"- **{finding.verdict.word}**: {text(f'{sentence(finding)} {published(finding)}'.strip())}"
        for finding in table.findings
    ]
    parts += [CAVEAT + text(table.caveat)] if table.caveat else []
    if any(table.curves.values()):
        parts.append(f"![Learning curves](curves.png)\n\n{CURVES}")
    parts += [
        f"![{_by_layer(probe)}]({probe}.png)"
        for probe, points in table.depths.items()
        if all(points.values())
    ]
    parts += [page.markdown(sheet).rstrip() for sheet in _sheets(table) if sheet.rows]
    facts = Sheet("How it was made", ("", ""), tuple(_facts(table)), "ll")
    commands = "".join(f"    {command}\n" for command in table.commands)
    return "\n\n".join([*parts, page.markdown(facts).rstrip(), commands])


def _html(table: Table, figures: Mapping[str, str]) -> str:
    text = page.in_html
    findings = [
        f"<li>{page.badge(finding.verdict.word)}<div><p>{text(sentence(finding))}</p>"
        + (f'<p class="published">{text(p)}</p>' if (p := published(finding)) else "")
        + "</div></li>"
        for finding in table.findings
    ]
    warnings = "".join(f"<li>{text(warning)}</li>" for warning in table.warnings)
    parts = [
        f'<header>\n<p class="name">{text(table.name)}</p>\n<h1>{text(table.claim)}</h1>',
        f'<p class="source">{text(table.source)}. {text(_stand(table))}.</p>\n</header>',
        f'<ul class="warnings">{warnings}</ul>' if warnings else "",
    ]
    if findings:
        parts.append(
            page.section(
                "Verdicts",
                '<ul class="findings">\n' + "\n".join(findings) + "\n</ul>",
                caveat(table),
            )
        )
    if "curves" in figures:
        parts.append(page.section("Learning curves", figures["curves"]))
    for probe in table.depths:
        if probe in figures:
            parts.append(page.section(_by_layer(probe), figures[probe]))
    for sheet in _sheets(table):
        if sheet.rows:
            figure = figures.get("tuning", "") if sheet.title == "Tuning" else ""
            parts.append(page.section(sheet.title, page.table(sheet), figure))
    made = page.commands(table.commands), page.facts(_facts(table))
    parts.append(page.section("How it was made", *made))
    return page.document(table.claim, "\n".join(filter(None, parts)))


def caveat(table: Table) -> str:
    """As a paragraph of the page; '' where there is none to tell."""
    return f"<p>{page.in_html(CAVEAT + table.caveat)}</p>" if table.caveat else ""


def _latex(table: Table) -> str:
    r"""For \input; needs booktabs, and longtable where a table is long."""
    items = [
        rf"\item \textbf{{{finding.verdict.word}}}: "
        + page.in_latex(f"{sentence(finding)} {published(finding)}".strip())
        for finding in table.findings
    ]
    parts = [r"% \usepackage{booktabs, longtable}"]
    if items:
        parts.append("\n".join([r"\begin{itemize}", *items, r"\end{itemize}"]))
    if table.caveat:
        parts.append(CAVEAT + page.in_latex(table.caveat))
    return "\n".join([*parts, *(page.latex(sheet) for sheet in _sheets(table) if sheet.rows)])


def sentence(finding: Finding) -> str:
    """What came out, what would settle it if it is undecided, and which runs do not fully count."""
    pair, verdict, sides = finding.pair, finding.verdict, (finding.arm, finding.other)
    same = finding.prediction.direction == "same"
    text = _outcome(finding)
    if verdict.blocked:
        winner = finding.arm if pair.mean < pair.null else finding.other
        if _within(finding):
            winner = max(sides, key=lambda cell: cell.diverged)
        text += f"; not settled, because {_count(winner.diverged, 'run')} of {winner.arm} diverged"
    elif verdict.word == "undecided" and pair.n < 2:
        text += "; it takes at least 2 seeds"
    elif verdict.word == "undecided":
        if not math.isnan(finding.smallest) and finding.smallest > 0 and not same:
            shown = _size(finding, finding.smallest)
            text += f"; {pair.n} pairs would show {shown} with 80 % power"
        if verdict.further is None and any(cell.censored for cell in sides):
            text += "; it takes more steps, not more seeds"
        elif verdict.further is None:
            text += f"; no number of seeds up to {MOST_SEEDS} would settle this one"
        else:
            text += f"; about {_count(verdict.further, 'further seed')} would settle this one"
    elif verdict.word == "refuted":
        predicted = f"the same within {finding.prediction.within}" if same else "the opposite"
        if finding.prediction.factor > 1.0:
            predicted = f"a factor of {finding.prediction.factor:g} or more"
        text += f"; the prediction was {predicted}"
    text += "."
    for cell in sides:
        if cell.censored:
            text += (
                f" {cell.censored} of {_count(len(cell.values), 'run')} of {cell.arm} did not get"
                f" there in {cell.budget:g} steps and count as {cell.budget:g}."
            )
    out = len(finding.arm.values) + finding.arm.diverged + finding.arm.missing - pair.n
    if out and pair.n:
        text += f" {_count(out, 'pair')} left out: a run diverged or is missing."
    return text


def published(finding: Finding) -> str:
    """The paper's figure and its source beside ours; '' where there is none."""
    prediction, pair = finding.prediction, finding.pair
    if not prediction.published:
        return ""
    source = f" ({prediction.source})" if prediction.source else ""
    ours = "nothing yet"
    if pair.n and pair.ratio:
        ratio = math.exp(pair.mean)
        less = f" ({_ratio(1 / ratio)} times {{}})" if ratio < 1 else ""
        what = {
            "steps_to": ("steps", "fewer"),
            "step_time": ("time", "less"),
            "size": ("bytes", "fewer"),
        }
        if prediction.measure.kind in what:
            unit, word = what[prediction.measure.kind]
            ours = f"{_ratio(ratio)} times the {unit}{less.format(word)}"
        else:
            ours = _size(finding, pair.mean)
    elif pair.n:
        ours = _size(finding, pair.mean)
    return f"Published: {prediction.published}{source}. Ours: {ours}."


def effect(finding: Finding) -> tuple[str, str]:
    """The effect with its unit, and its 95 % interval; '-' where there is none."""
    pair = finding.pair
    if not pair.n:
        return "-", "-"
    ours = _size(finding, pair.mean)
    if pair.ratio:
        ours = f"{_effect(finding, pair.mean)} times"
    span = f"{_effect(finding, pair.low)} to {_effect(finding, pair.high)}"
    return ours, span if pair.n > 1 else "-"


def _within(finding: Finding) -> bool:
    """Whether the arms are predicted to be the same and their mean difference is in the margin."""
    margin = finding.prediction.margin
    return margin is not None and finding.pair.room(margin) > 0


def _outcome(finding: Finding) -> str:
    pair, measure = finding.pair, finding.prediction.measure
    arm, other = finding.arm.arm, finding.other.arm
    if not pair.n:
        return f"there is no pair of runs of {arm} and {other} to compare yet"
    same = finding.prediction.direction == "same"
    level, (low, high) = ("90 %", pair.bounds(0.9)) if same else ("95 %", (pair.low, pair.high))
    low, high = _effect(finding, low), _effect(finding, high)
    p = _p(finding.verdict.p)
    p = f"p < {p[1:]}" if p[0] == "<" else f"p = {p}"
    if finding.prediction.factor > 1.0:
        p += f" against a factor of {finding.prediction.factor:g}"
    if same:  # which of its two tests the p-value is of
        where = "within" if _within(finding) else "beyond"
        p += f" of a difference {where} {finding.prediction.within}"
    numbers = f"{p}, n = {pair.n}" if pair.n > 1 else "one pair"
    if pair.ratio:
        span = f"{level} interval {low} to {high}, " if pair.n > 1 else ""
        times = f"{_effect(finding, pair.mean)} times the"
        if measure.kind != "steps_to":
            return f"{arm} has {times} {measure} of {other} ({span}{numbers})"
        times += " steps"
        goal = str(measure).removeprefix("steps to ")
        return f"{arm} needs {times} of {other} to reach {goal} ({span}{numbers})"
    if pair.mean == 0:
        return f"{arm} and {other} have the same {measure} ({numbers})"
    span = f"{level} interval of the difference {low} to {high}, " if pair.n > 1 else ""
    more = "less" if pair.mean < 0 else "more"
    size = _size(finding, abs(pair.mean))
    return f"{arm} has {size} {more} {measure} than {other} ({span}{numbers})"


def _sheets(table: Table) -> list[Sheet]:
    same = any(finding.prediction.direction == "same" for finding in table.findings)
    comparisons = dataclasses.replace(_comparisons(table), note=METHOD + SAME * same)
    return [_results(table), comparisons, _tuning(table), _arms(table)]


def _results(table: Table) -> Sheet:
    rows = []
    for cell in table.cells:
        m, n = cell.measure, str(len(cell.values))
        counts = {f"at the budget of {cell.budget:g}": cell.censored, "diverged": cell.diverged}
        notes = [f"{k} {what}" for what, k in (counts | {"missing": cell.missing}).items() if k]
        span = f"{_number(m, cell.low)} to {_number(m, cell.high)}" if len(cell.values) > 1 else "-"
        rows.append((_title(m), cell.arm, n, _number(m, cell.mean), span, ", ".join(notes)))
    head, align = ("measure", "arm", "n", "mean", "95 % interval", "runs"), "llrrrl"
    if not any(row[-1] for row in rows):
        head, align, rows = head[:-1], align[:-1], [row[:-1] for row in rows]
    return Sheet("Results", head, tuple(rows), align, grouped=True)


def _comparisons(table: Table) -> Sheet:
    rows = []
    for f in table.findings:
        pair, sign = f.pair, {"less": "<", "greater": ">", "same": "="}[f.prediction.direction]
        unit = "ratio" if pair.ratio else _points(f).strip()
        span = f"{_effect(f, pair.low)} to {_effect(f, pair.high)}" if pair.n > 1 else "-"
        ps = [_p(pair.p_t), _p(pair.p_flip), _p(f.verdict.p)] if pair.n > 1 else ["-"] * 3
        name = f"{f.arm.arm} {sign} {f.other.arm}"
        if f.prediction.within:
            name += f" within {f.prediction.within}"
        if f.prediction.factor > 1.0:
            name += f" by a factor of {f.prediction.factor:g}"
        measure = f"{f.prediction.measure} ({unit})" if unit else str(f.prediction.measure)
        effect = _effect(f, pair.mean)
        rows.append((measure, name, str(pair.n), effect, span, *ps, f.verdict.word))
    head = ("measure", "predicted", "n", "effect", "95 % interval")
    head = (*head, "p t", "p flip", "p Holm", "verdict")
    return Sheet("Paired comparisons", head, tuple(rows), "llrrrrrrl", grouped=True)


def _tuning(table: Table) -> Sheet:
    def score(arm: Arm, setting: str) -> str:
        tried = next((t for t in arm.tried if t.setting == setting), None)
        if tried is None:
            return ""
        text = "diverged" if tried.mean == math.inf else _number(table.tune_by, tried.mean)
        seeds = len(tried.scores)
        partly = f" ({seeds} of {table.tune_seeds})" if seeds < table.tune_seeds else ""
        return text + partly + (" *" if tried.setting == arm.chosen else "")

    arms = [arm for arm in table.arms if arm.tried]
    settings = dict.fromkeys(tried.setting for arm in arms for tried in arm.tried)
    rows = tuple((s, *(score(arm, s) for arm in arms)) for s in settings)
    title, seeds = _title(table.tune_by), _count(table.tune_seeds, "seed")
    note = (
        f"{title[:1].upper()}{title[1:]}, mean over {seeds}. Each arm runs at the setting where it"
        " is lowest (*); the test split has no part in that choice."
    )
    head = ("setting", *(arm.name for arm in arms))
    return Sheet("Tuning", head, rows, "l" + "r" * len(arms), note)


def _arms(table: Table) -> Sheet:
    rows = [
        (
            arm.name,
            arm.changes or "-",
            "not chosen yet" if arm.chosen is None else arm.chosen or "-",
            "-" if arm.parameters is None else f"{arm.parameters:,}",
            "-" if arm.steps is None else f"{arm.steps:,}",
            _duration(arm.seconds),
        )
        for arm in table.arms
    ]
    head = ("arm", "differs in", "setting", "parameters", "steps", "time a run")
    return Sheet("Arms", head, tuple(rows), "lllrrr")


def _facts(table: Table) -> list[tuple[str, str]]:
    return [("runs", _stand(table)), *((k, "; ".join(v)) for k, v in table.facts.items())]


def _measured(table: Table, cell: Cell) -> dict[str, Any]:
    m = cell.measure
    chosen = {arm.name: arm.chosen for arm in table.arms}
    row = {"measure": str(m), "kind": m.kind, "split": m.split, "metric": m.metric}
    row |= {"target": m.target, "arm": cell.arm, "setting": chosen[cell.arm]}
    row |= {"n": len(cell.values), "mean": cell.mean, "low": cell.low, "high": cell.high}
    return row | {"censored": cell.censored, "diverged": cell.diverged, "missing": cell.missing}


def _tested(finding: Finding) -> dict[str, Any]:
    p, pair, verdict = finding.prediction, finding.pair, finding.verdict
    row = {"measure": str(p.measure), "arm": p.arm, "direction": p.direction, "than": p.than}
    row |= {"margin": p.margin, "factor": p.factor}
    row |= {"n": pair.n, "scale": "ratio" if pair.ratio else "difference"}
    row |= {name: pair.effect(getattr(pair, name)) for name in ("mean", "low", "high")}
    row |= {"p_t": pair.p_t, "p_sign_flip": pair.p_flip, "p_holm": verdict.p}
    row |= {"test": verdict.test, "verdict": verdict.word, "further_seeds": verdict.further}
    row |= {"detectable": pair.effect(finding.smallest)}
    return row | {"published": p.published, "source": p.source}


def _stand(table: Table) -> str:
    return f"{table.finished} of {table.expected} runs, {_duration(table.seconds)} of training"


def _split(split: str) -> str:
    return {"train": "Training"}.get(split, split.capitalize())


def _by_layer(probe: str) -> str:
    return f"{PROBED[probe][:1].upper()}{PROBED[probe][1:]} by layer"


def _title(measure: Measure) -> str:
    unit = " (ms)" if measure.kind == "step_time" else ""
    return f"{measure} (%)" if measure.percent else f"{measure}{unit}"


def _number(measure: Measure, x: float) -> str:
    """A value of `measure`: bytes, steps, milliseconds, percent (or points) of error, or loss."""
    if math.isnan(x):
        return "-"
    if measure.kind == "size":
        return f"{x:,.0f}"
    if measure.kind == "steps_to":
        return f"{x:.0f}"
    if measure.kind == "step_time":
        return f"{1000 * x:.3g}"
    if measure.percent:
        return f"{100 * x:z.2f}"
    return f"{x:.3g}" if measure.ratio else f"{x:z.4f}"


def _effect(finding: Finding, x: float) -> str:
    """A number on the scale of the comparison."""
    if finding.pair.ratio:
        return "-" if math.isnan(x) else _ratio(math.exp(x))
    return _number(finding.prediction.measure, x)


def _size(finding: Finding, x: float) -> str:
    if finding.pair.ratio:
        return f"a ratio of {_effect(finding, x)}"
    return _effect(finding, x) + _points(finding)


def _points(finding: Finding) -> str:
    return " points" if finding.prediction.measure.percent else ""


def _ratio(x: float) -> str:
    return f"{x:.2f}" if 0.1 <= x < 10 else f"{x:.3g}"


def _p(p: float) -> str:
    if math.isnan(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
