"""Runs side by side, dispatch by dispatch: the only place where programs, files and time meet."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxcnn import config, hosts, losses, nets, records
from jaxcnn.checkpoint import BEST, NEWEST, Saving
from jaxcnn.cohorts import Carry, Program
from jaxcnn.config import Run
from jaxcnn.data.streamed import Pictures
from jaxcnn.lanes import Lanes
from jaxcnn.nets import Problem

# About how long one call into a program lasts: Ctrl-C and progress wait for it.
DISPATCH_SECONDS = 0.5


class Tick(NamedTuple):
    """News of one run."""

    folder: Path
    step: int
    row: dict[str, Any] | None = None  # a new point of its curve
    note: str = ""  # what the user should know


class Interrupted(Exception):
    """Asked to stop; every run in flight has been saved."""


@dataclasses.dataclass(frozen=True)
class Wave:
    """Runs of one program at one step, side by side; at most `width`, padded with copies of the
    last.
    """

    folders: list[Path]
    runs: list[Run]
    least: list[float]  # errors of the best checkpoints; none without `saving.best`
    data: Pictures
    problem: Problem
    program: Program
    width: int
    stop: Callable[[], bool]
    saving: Saving

    def lanes(self, carries: list[Carry]) -> Lanes:
        what = (self.runs, self.problem, self.data, self.program, self.width)
        return hosts.lanes(*what, carries)

    def run(self, at: int, carries: list[Carry]) -> Iterator[Tick]:
        """From step `at` (-1: not begun) to the end; without `carries` from the initial weights."""
        problem = self.problem
        every = config.eval_interval(self.runs[0], problem.train_examples)
        lanes = self.lanes(carries)
        live = set(range(len(self.runs)))
        spent = [_seconds(f, at) for f in self.folders]
        least = list(self.least)
        started = saved = time.monotonic()
        newest = at  # of the checkpoints
        stepping, counted = 0.0, 0  # seconds and steps since the last point of the curve
        chunk = 1

        def spend(i: int) -> float:
            """A run's share of the time, so that the runs' seconds add up to that of the sweep."""
            return round(spent[i] + (time.monotonic() - started) / len(self.runs), 2)

        with contextlib.ExitStack() as stack:
            stack.callback(lanes.close)
            lanes.open([f.resolve() for f in self.folders], self.saving)
            files = [stack.enter_context(records.open_metrics(f)) for f in self.folders]

            def point(now: int) -> Iterator[Tick]:
                """A row in each run's curve; a run that is no longer finite ends here."""
                rows = self._rows(lanes)
                better: set[int] = set()
                for i in sorted(live):
                    seconds = spend(i)
                    row = {"step": now, **rows[i], "seconds": seconds}
                    if counted:
                        each = stepping / counted / len(self.runs)
                        row["step_seconds"] = float(f"{each:.4g}")
                    records.append(files[i], row)
                    if not _finite(row):
                        self._end(i, "diverged", now, seconds)
                        live.discard(i)
                    elif least and (error := _error(row)) < least[i]:
                        least[i] = error
                        better.add(i)
                    yield Tick(self.folders[i], now, row)
                yield from self._told(now, lanes)
                if better:
                    lanes.save(BEST, now, better)

            def save(*, wait: bool) -> None:
                nonlocal newest
                if least:
                    lanes.wait(BEST)  # on disk before the run can go on from a later step
                if at > newest:
                    lanes.save(NEWEST, at, live)
                    newest = at
                if wait:
                    lanes.wait(NEWEST)

            if at < 0:
                at = 0
                yield from point(0)
            while at < problem.steps and live:
                began = time.monotonic()
                n = lanes.advance(at, min(chunk, every - at % every, problem.steps - at))
                spell = time.monotonic() - began
                stepping, counted = stepping + spell, counted + n
                pace = spell / n
                chunk = max(1, min(2 * chunk, int(DISPATCH_SECONDS / pace)))
                at += n
                if at % every == 0 or at == problem.steps:
                    yield from point(at)
                    lanes.reset()
                    stepping, counted = 0.0, 0
                else:
                    for i in live:
                        yield Tick(self.folders[i], at)
                stopping = self.stop()
                if stopping or time.monotonic() - saved > self.saving.seconds:
                    save(wait=stopping)
                    saved = time.monotonic()
                if stopping and at < problem.steps and live:
                    raise Interrupted
            save(wait=True)
        for i in sorted(live):
            self._end(i, "finished", at, spend(i))
            yield Tick(self.folders[i], at)

    def _rows(self, lanes: Lanes) -> list[dict[str, Any]]:
        run, sums = self.runs[0], lanes.sums()
        rows: list[dict[str, Any]] = [{} for _ in self.runs]
        for i, row in enumerate(rows):
            if sums["count"][i] > 0:
                row["batch"] = losses.means({k: v[i] for k, v in sums.items()})
        for split in ("train", "validation"):
            if self.data.sizes[split] > 0:
                means = lanes.means(split)
                for i, row in enumerate(rows):
                    row[split] = means[i]
        if run.train.probes:
            layers, found = nets.layers(run, self.problem), lanes.probe()
            for i, row in enumerate(rows):
                row["probe"] = {
                    name: dict(zip(layers, map(float, numbers[i]), strict=True))
                    for name, numbers in found.items()
                }
        return rows

    def _told(self, now: int, lanes: Lanes) -> Iterator[Tick]:
        """One line about pictures that could not be read, if there are new ones."""
        folder = self.folders[0]
        if note := records.add_unreadable(folder, lanes.unread()):
            yield Tick(folder, now, note=note)

    def _end(self, i: int, status: str, at: int, seconds: float) -> None:
        result = {"status": status, "step": at, "seconds": seconds}
        records.write_json(self.folders[i] / "result.json", result)


def _seconds(folder: Path, at: int) -> float:
    """Seconds that the run had been training when it was at step `at`."""
    record = records.read(folder)
    rows = [r for r in record.rows if r["step"] <= at] if record else []
    return rows[-1]["seconds"] if rows else 0.0


def least_error(folder: Path, steps: list[int]) -> float:
    """The validation error of the best checkpoint, of those of `steps`; infinite where there is
    none.
    """
    record = records.read(folder)
    rows = [row for row in record.rows if row["step"] in steps] if record else []
    return min(map(_error, rows), default=math.inf)


def _error(row: Mapping[str, Any]) -> float:
    """On validation data; the loss of a model that has no errors."""
    return row["validation"].get("error", row["validation"]["loss"])


def _finite(row: Mapping[str, Any]) -> bool:
    parts = [row[k] for k in ("batch", "train", "validation") if k in row]
    return all(math.isfinite(part["loss"]) for part in parts)
