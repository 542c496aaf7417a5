"""Runs side by side, dispatch by dispatch: the only place where programs, files and time meet."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcnn import cohorts, config, losses, records, sharding, step
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.cohorts import Carry, Program, Resident
from jaxcnn.config import Run
from jaxcnn.data.sources import Dataset
from jaxcnn.step import Problem

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
    disks: list[Checkpoints]
    data: Dataset
    problem: Problem
    program: Program
    width: int
    stop: Callable[[], bool]
    checkpoint_seconds: float

    @property
    def padded(self) -> list[Run]:
        return self.runs + [self.runs[-1]] * (self.width - len(self.runs))

    def run(self, at: int, carries: list[Carry]) -> Iterator[Tick]:
        """From step `at` (-1: not begun) to the end; without `carries` from the initial weights."""
        run, mesh, problem = self.runs[0], self.program.mesh, self.problem
        every = config.eval_interval(run, problem.train_examples)
        data = resident(self.data, mesh)
        values = sharding.put(mesh, cohorts.stack(self.padded), "run")
        carry = stacked(mesh, carries, self.width) if carries else self.program.init(values)
        live = set(range(len(self.runs)))
        order, ordered = None, -1  # of the epoch `ordered`
        spent = [_seconds(f, at) for f in self.folders]
        started = saved = time.monotonic()
        stepping, counted = 0.0, 0  # seconds and steps since the last point of the curve
        chunk = 1

        def spend(i: int) -> float:
            """A run's share of the time, so that the runs' seconds add up to that of the sweep."""
            return round(spent[i] + (time.monotonic() - started) / len(self.runs), 2)

        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(records.open_metrics(f)) for f in self.folders]

            def point(now: int) -> Iterator[Tick]:
                """A row in each run's curve; a run that is no longer finite ends here."""
                rows = self._rows(now, carry, values, data, problem)
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
                    yield Tick(self.folders[i], now, row)

            if at < 0:
                at = 0
                yield from point(0)
            while at < problem.steps and live:
                epoch, position, left = cohorts.position(run, problem, at)
                n = min(chunk, left, every - at % every, problem.steps - at)
                began = time.monotonic()
                if epoch != ordered:
                    order, ordered = self.program.order(values, epoch), epoch
                carry = self.program.advance(carry, values, order, data, position, n)
                jax.block_until_ready(carry)
                spell = time.monotonic() - began
                stepping, counted = stepping + spell, counted + n
                pace = spell / n
                chunk = max(1, min(2 * chunk, int(DISPATCH_SECONDS / pace)))
                at += n
                if at % every == 0 or at == problem.steps:
                    yield from point(at)
                    carry = _reset(carry, mesh)
                    stepping, counted = 0.0, 0
                else:
                    for i in live:
                        yield Tick(self.folders[i], at)
                stopping = self.stop()
                if stopping or time.monotonic() - saved > self.checkpoint_seconds:
                    self._save(at, carry, live, wait=stopping)
                    saved = time.monotonic()
                if stopping and at < problem.steps and live:
                    raise Interrupted
            self._save(at, carry, live, wait=True)
        for i in sorted(live):
            self._end(i, "finished", at, spend(i))
            yield Tick(self.folders[i], at)

    def _rows(
        self, now: int, carry: Carry, values: Any, data: Resident, problem: Problem
    ) -> list[dict[str, Any]]:
        sums = jax.device_get(carry.sums)
        rows: list[dict[str, Any]] = [{} for _ in self.runs]
        for i, row in enumerate(rows):
            if sums["count"][i] > 0:
                row["batch"] = losses.means({k: v[i] for k, v in sums.items()})
        spans = {
            "train": (0, self.runs[0].train.eval_train_examples),
            "validation": (problem.train_examples, len(self.data.validation.labels)),
        }
        for split, (start, count) in spans.items():
            if count > 0:
                means = evaluate(self.program, carry, data, start, count)
                for i, row in enumerate(rows):
                    row[split] = means[i]
        if self.runs[0].train.probes:
            layers = step.layers(self.runs[0], problem)
            found = jax.device_get(self.program.probe(carry.state, values, data))
            for i, row in enumerate(rows):
                row["probe"] = {
                    name: dict(zip(layers, map(float, numbers[i]), strict=True))
                    for name, numbers in found.items()
                }
        return rows

    def _save(self, at: int, carry: Carry, live: set[int], *, wait: bool) -> None:
        whole = jax.device_get(carry)
        for i in sorted(live):
            self.disks[i].save(at, jax.tree.map(lambda a, i=i: a[i], whole))
        if wait:
            for i in sorted(live):
                self.disks[i].wait()

    def _end(self, i: int, status: str, at: int, seconds: float) -> None:
        result = {"status": status, "step": at, "seconds": seconds}
        records.write_json(self.folders[i] / "result.json", result)


@functools.lru_cache(maxsize=1)
def resident(data: Dataset, mesh: Any) -> Resident:
    """The data set on every device of the mesh; the last one is kept for the next wave."""
    parts = (data.train, data.validation, data.test)
    images = np.concatenate([p.images for p in parts])
    labels = np.concatenate([p.labels for p in parts])
    moments = (data.mean, data.std, data.covariance)
    return sharding.put(mesh, Resident(images, labels, *moments))  # type: ignore[arg-type]


def stacked(mesh: Any, carries: list[Carry], width: int) -> Carry:
    padded = carries + [carries[-1]] * (width - len(carries))
    return sharding.put(mesh, jax.tree.map(lambda *a: np.stack(a), *padded), "run")


def _reset(carry: Carry, mesh: Any) -> Carry:
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), carry.sums)
    return Carry(carry.state, sharding.put(mesh, zeros, "run"))


def evaluate(
    program: Program, carry: Carry, data: Resident, start: int, count: int
) -> list[dict[str, float]]:
    """Means over examples start .. start + count, one dict a run."""
    sums = jax.device_get(program.evaluate(carry.state, data, start, count))
    runs = len(sums["count"])
    return [losses.means({k: v[i] for k, v in sums.items()}) for i in range(runs)]


def _seconds(folder: Path, at: int) -> float:
    """Seconds that the run had been training when it was at step `at`."""
    record = records.read(folder)
    rows = [r for r in record.rows if r["step"] <= at] if record else []
    return rows[-1]["seconds"] if rows else 0.0


def _finite(row: Mapping[str, Any]) -> bool:
    parts = [row[k] for k in ("batch", "train", "validation") if k in row]
    return all(math.isfinite(part["loss"]) for part in parts)
