"""`collect`: from the records of an experiment, and from nothing else, all that its report says.

A `Table` is plain data; how it reads is report.py's business. It is made from what there is: runs
that are missing, diverged or never reached a target are counted beside each number they concern.
"""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxcnn import experiment, records, stats
from jaxcnn.config import InputError, Run
from jaxcnn.experiment import Experiment, Measure, Prediction
from jaxcnn.records import Record
from jaxcnn.stats import Curve, Depth, Paired, Verdict

FIVE = "validation, top-5"
Read = Callable[[str, Run], Record | None]  # the record of an arm's run


@dataclass(frozen=True)
class Tried:
    """A setting of the grid, and `tune_by` of its finished runs (infinite: diverged)."""

    setting: str
    values: tuple[Any, ...]  # one per tuned path that concerns the arm's model
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores) if self.scores else math.nan


@dataclass(frozen=True)
class Arm:
    name: str
    changes: str  # what it overrides
    chosen: str | None  # its setting; None while tuning is unfinished
    tried: tuple[Tried, ...]
    parameters: int | None
    steps: int | None
    seconds: float  # mean training time of a run at the chosen setting


@dataclass(frozen=True)
class Cell:
    """A measure of an arm at its chosen setting; diverged and missing runs are only counted."""

    measure: Measure
    arm: str
    values: Mapping[int, float]  # seed -> value
    mean: float
    low: float
    high: float
    censored: int  # runs that never reached the target and stand in `values` as their budget
    budget: float
    diverged: int
    missing: int


@dataclass(frozen=True)
class Finding:
    """A prediction on trial: `arm` against `other`."""

    prediction: Prediction
    arm: Cell
    other: Cell
    pair: Paired
    verdict: Verdict
    smallest: float  # the smallest effect that so many pairs find with 80 % power; nan below 3


@dataclass(frozen=True)
class Table:
    name: str
    claim: str
    source: str
    arms: tuple[Arm, ...]
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...]
    caveat: str  # the experiment's; '' where every prediction is supported, or none was tested
    metric: str  # of the curves
    # split -> arm -> curve; beside errors of more than 10 classes also those of FIVE
    curves: Mapping[str, Mapping[str, Curve]]
    depths: Mapping[str, Mapping[str, Mapping[str, Depth]]]  # probe -> point -> arm -> by layer
    tuned: tuple[str, ...]  # dotted paths
    tune_by: Measure
    tune_seeds: int
    finished: int  # runs that the table stands on
    expected: int
    seconds: float  # of training, all runs together
    facts: Mapping[str, tuple[str, ...]]  # with what it was made; several where runs differ
    warnings: tuple[str, ...]
    commands: tuple[str, ...]  # that made the runs, and this report


def in_folder(exp: Experiment, root: Path) -> Read:
    """Reads the runs of `exp` in their folders under `root`."""
    return lambda arm, run: records.read(experiment.folder(root, exp, arm, run))


def collect(exp: Experiment, source: Path | Read, command: str = "") -> Table:
    """The table of `exp` from the records under a folder, or from what else reads them."""
    read = functools.cache(in_folder(exp, source) if isinstance(source, Path) else source)

    arms, chosen, used, to_choose = [], {}, {}, 0
    for arm, settings in experiment.grid(exp).items():
        setting = _choose(exp, arm, read)
        final = [] if setting is None else experiment.seeded(exp, settings[setting], exp.seeds)
        tuning = {k: experiment.seeded(exp, r, exp.tune_seeds) for k, r in settings.items()}
        if len(settings) == 1:
            tuning = {}
        if setting is None:
            to_choose += len(set(exp.seeds) - set(exp.tune_seeds))
        chosen[arm] = {run.seed: read(arm, run) for run in final}
        arms.append(_arm(exp, arm, setting, chosen[arm], tuning, read))
        for run in (*final, *(run for seeds in tuning.values() for run in seeds)):
            used[arm, run] = read(arm, run)
    begun = [record for record in used.values() if record is not None]
    finished = [record for record in begun if record.result is not None]
    if not finished:
        what = "finished run" if begun else "records"
        where = f" under {source}/" if isinstance(source, Path) else ""
        raise InputError(f"no {what} of {exp.name}{where}. Run: python launch.py run {exp.name}")
    cells = tuple(_cell(m, arm, chosen[arm]) for m in exp.measures() for arm in chosen)
    found = _findings(exp, cells)
    metric = "loss" if {p.measure.metric for p in exp.predictions} == {"loss"} else "error"
    facts, made = _facts(finished), _distinct(finished, lambda info: info.get("command", ""))
    return Table(
        name=exp.name,
        claim=exp.claim,
        source=exp.source,
        arms=tuple(arms),
        cells=cells,
        findings=found,
        caveat=exp.caveat if any(f.verdict.word != "supported" for f in found) else "",
        metric=metric,
        curves=_panels(chosen, metric),
        depths=_depths(exp, chosen),
        tuned=tuple(exp.tune),
        tune_by=exp.tune_by,
        tune_seeds=len(exp.tune_seeds),
        finished=len(finished),
        expected=len(used) + to_choose,
        seconds=sum((record.result or {}).get("seconds") or 0.0 for record in finished),
        facts=facts,
        warnings=tuple(_warnings(exp, arms, cells, finished, len(used) + to_choose, facts)),
        commands=tuple(dict.fromkeys(filter(None, (*made, command)))),
    )


def _choose(exp: Experiment, arm: str, read: Read) -> str | None:
    """The arm's setting, if its own tuning is done; another arm's may not be."""
    alone = experiment.only(exp, [arm])
    found = experiment.choose(alone, lambda arm, run: stats.value(read(arm, run), exp.tune_by))
    return None if found is None else found[arm]


def _arm(
    exp: Experiment,
    name: str,
    chosen: str | None,
    runs: Mapping[int, Record | None],
    tuning: Mapping[str, list[Run]],
    read: Read,
) -> Arm:
    infos = [record.info for record in runs.values() if record is not None]
    results = [record.result for record in runs.values() if record is not None and record.result]
    seconds = [result["seconds"] for result in results if result.get("seconds") is not None]
    tried = []
    combinations = itertools.product(*experiment.tuned(exp, name).values()) if tuning else ()
    for (label, tuned), values in zip(tuning.items(), combinations, strict=True):
        scores = [stats.value(read(name, run), exp.tune_by) for run in tuned]
        tried.append(Tried(label, values, tuple(s for s in scores if s is not None)))
    return Arm(
        name=name,
        changes=", ".join(f"{path}={value}" for path, value in exp.arms[name].items()),
        chosen=chosen,
        tried=tuple(tried),
        parameters=infos[0].get("parameters") if infos else None,
        steps=infos[0].get("steps") if infos else None,
        seconds=sum(seconds) / len(seconds) if seconds else math.nan,
    )


def _cell(measure: Measure, arm: str, runs: Mapping[int, Record | None]) -> Cell:
    values = {seed: stats.value(record, measure) for seed, record in runs.items()}
    kept = {seed: v for seed, v in values.items() if v is not None and math.isfinite(v)}
    mean, low, high = stats.interval([*kept.values()])
    return Cell(
        measure,
        arm,
        kept,
        mean,
        low,
        high,
        censored=sum(stats.censored(runs[seed], measure) for seed in kept),
        budget=max((stats.budget(r) for r in runs.values() if r is not None), default=math.nan),
        diverged=sum(v == math.inf for v in values.values()),
        missing=sum(v is None for v in values.values()),
    )


def _findings(exp: Experiment, cells: Sequence[Cell]) -> tuple[Finding, ...]:
    by = {(cell.measure, cell.arm): cell for cell in cells}
    sides = [(by[p.measure, p.arm], by[p.measure, p.than]) for p in exp.predictions]
    pairs = [
        stats.paired(a.values, b.values, a.measure.ratio, _null(p))
        for p, (a, b) in zip(exp.predictions, sides, strict=True)
    ]
    found = stats.verdicts(
        pairs,
        [p.direction for p in exp.predictions],
        [(a.diverged, b.diverged) for a, b in sides],
        [p.margin for p in exp.predictions],
    )
    return tuple(
        Finding(p, a, b, pair, verdict, stats.smallest_effect(pair, len(pairs)))
        for p, (a, b), pair, verdict in zip(exp.predictions, sides, pairs, found, strict=True)
    )


def _null(prediction: Prediction) -> float:
    """The mean difference, of logarithms, that a prediction's `factor` allows."""
    least = math.log(prediction.factor)
    return -least if prediction.direction == "less" else least


def _panels(
    chosen: Mapping[str, Mapping[int, Record | None]], metric: str
) -> dict[str, dict[str, Curve]]:
    panels = {split: _curves(chosen, split, metric) for split in ("train", "validation")}
    five = _curves(chosen, "validation", "error5") if metric == "error" else {}
    return panels | ({FIVE: five} if five else {})


def _curves(
    chosen: Mapping[str, Mapping[int, Record | None]], split: str, metric: str
) -> dict[str, Curve]:
    """arm -> curve over its finished runs; arms without one are left out."""
    curves = {arm: stats.curve(_kept(runs), split, metric) for arm, runs in chosen.items()}
    return {arm: curve for arm, curve in curves.items() if curve.steps}


def _depths(
    exp: Experiment, chosen: Mapping[str, Mapping[int, Record | None]]
) -> dict[str, dict[str, dict[str, Depth]]]:
    """probe -> 'first' and 'last' -> arm -> its numbers by layer, of what was recorded."""
    return {
        probe: {
            at: {
                arm: depth
                for arm, runs in chosen.items()
                if (depth := stats.depth(_kept(runs), probe, at)) is not None
            }
            for at in ("first", "last")
        }
        for probe in exp.base.train.probes
    }


def _kept(runs: Mapping[int, Record | None]) -> list[Record]:
    return [r for r in runs.values() if r is not None and r.result and not r.diverged]


def _facts(finished: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    """With what the runs were made; more than one entry where they differ."""
    facts = {
        "commit": _distinct(finished, _commit),
        "versions": _distinct(
            finished,
            lambda info: ", ".join(f"{k} {v}" for k, v in info.get("versions", {}).items()),
        ),
        "device": _distinct(finished, _device),
        "host": _distinct(finished, _host),
        "convolutions": _distinct(finished, lambda info: info.get("convolutions", "")),
        "XLA_FLAGS": _distinct(finished, lambda info: info.get("flags", "")),
        "data": _distinct(finished, _data),
    }
    started = sorted(str(r.info["started"]) for r in finished if r.info.get("started"))
    if started:
        facts["first run started"] = (started[0],)
    return {name: texts for name, texts in facts.items() if texts}


def _distinct(finished: Iterable[Record], text: Callable[[dict[str, Any]], str]) -> tuple[str, ...]:
    return tuple(sorted({t for record in finished if (t := text(record.info))}))


def _commit(info: dict[str, Any]) -> str:
    if not info.get("commit"):
        return ""
    return str(info["commit"]) + (" with uncommitted changes" if info.get("dirty") else "")


def _device(info: dict[str, Any]) -> str:
    device = info.get("device", {})
    count = f"{device['count']} x " if device.get("count") else ""
    return f"{count}{device['kind']}" if device.get("kind") else ""


def _host(info: dict[str, Any]) -> str:
    device = info.get("device", {})
    parts = [
        device.get("cpu"),
        device.get("cores") and f"{device['cores']} cores",
        device.get("memory_gb") and f"{device['memory_gb']:g} GB memory",
        device.get("os"),
    ]
    return ", ".join(part for part in parts if part)


def _data(info: dict[str, Any]) -> str:
    data = info.get("data")
    if not data:
        return ""
    name = f"{info['config']['data']['name']} ({data.get('fingerprint', 'no fingerprint')})"
    sizes = [f"{data[k]:,} {k}" for k in ("train", "validation", "test", "classes") if data.get(k)]
    return ": ".join([name, ", ".join(sizes)] if sizes else [name])


def _warnings(
    exp: Experiment,
    arms: Sequence[Arm],
    cells: Sequence[Cell],
    finished: Sequence[Record],
    expected: int,
    facts: Mapping[str, tuple[str, ...]],
) -> Iterable[str]:
    """What a reader must know before believing a number."""
    if len(finished) < expected:
        yield f"This stands on {len(finished)} of {expected} runs; the others are still to be run."
    for arm in arms:
        if arm.chosen is None:
            yield f"{arm.name}: tuning is unfinished, so no setting is chosen and no number given."
        lost = max((cell.diverged for cell in cells if cell.arm == arm.name), default=0)
        if lost:
            yield (
                f"{arm.name}: {lost} of {len(exp.seeds)} runs diverged at the chosen setting;"
                " they have no part in means and pairs."
            )
    compared = ["commit", "versions"]
    if not any("train.device" in arm for arm in exp.arms.values()):
        compared += ["device", "convolutions"]
    if not exp.resplit and not any(p.startswith("data.") for arm in exp.arms.values() for p in arm):
        compared.append("data")
    for name in compared:
        if len(facts.get(name, ())) > 1:
            yield f"The runs differ in {name}: {'; '.join(facts[name])}."
    if any(record.info.get("dirty") for record in finished):
        dirty = Counter(bool(record.info.get("dirty")) for record in finished)[True]
        yield f"{dirty} of {len(finished)} runs were made with uncommitted changes."
    for arm in arms:
        for i, (path, values) in enumerate(experiment.tuned(exp, arm.name).items()):
            value = next((t.values[i] for t in arm.tried if t.setting == arm.chosen), None)
            # 0 switches a thing off, and nothing lies beyond that
            if type(value) in (int, float) and value and value in (min(values), max(values)):
                end = "largest" if value == max(values) else "smallest"
                yield (
                    f"{arm.name}: {path}={value} is the {end} that was tried;"
                    " a better one may lie beyond."
                )
