"""The loop: runs go in, records come out. The only place where programs, fits, files and time meet.

Runs are trained in waves of one cohort (`sharding.plan`). A generator, so that its caller draws the
progress and hears of each new point of a curve; all that it promises stands on disk before it says
so.
"""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import (
    classical,
    cohorts,
    config,
    losses,
    memory,
    probes,
    provenance,
    records,
    sharding,
    step,
)
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.cohorts import Carry, Program, Resident
from jaxcnn.config import InputError, Run
from jaxcnn.data import sources
from jaxcnn.data.sources import Dataset, Split
from jaxcnn.step import Problem

DISPATCH_SECONDS = (
    0.5  # about how long one call into a program lasts: Ctrl-C and progress wait for it
)


class Tick(NamedTuple):
    """News of one run."""

    folder: Path
    step: int
    row: dict[str, Any] | None = None  # a new point of its curve
    note: str = ""  # what the user should know


class Interrupted(Exception):
    """Asked to stop; every run in flight has been saved."""


def load_data(runs: Iterable[Run], data_dir: Path | None) -> dict[config.Data, Dataset]:
    """The data of the runs; those that differ in augmentation alone are the same arrays."""

    def stored(data: config.Data) -> config.Data:
        same = ("name", "train_examples", "validation_examples", "split_seed", "resize")
        return config.Data(**{field: getattr(data, field) for field in same})

    wanted = dict.fromkeys(run.data for run in runs)
    loaded = {s: sources.load(s, data_dir) for s in dict.fromkeys(map(stored, wanted))}
    return {data: loaded[stored(data)] for data in wanted}


def problem_of(run: Run, data: Dataset) -> Problem:
    """Raises `InputError` for a run that its data cannot feed."""
    n = len(data.train.labels)
    if not _fitted(run) and config.batch_size(run) > n:
        raise InputError(
            f"train.batch_size: {run.train.batch_size} is larger than the {n} training examples"
            f" of {run.data.name}."
        )
    if run.train.eval_train_examples > n:
        raise InputError(
            f"train.eval_train_examples: {run.train.eval_train_examples} is larger than the {n}"
            f" training examples of {run.data.name}."
        )
    _, height, width, channels = data.train.images.shape
    return Problem((height, width, channels), len(data.classes), n, config.total_steps(run, n))


def examples(data: Dataset) -> int:
    """How many stand on a device: of training, validation and test."""
    return sum(len(part.labels) for part in (data.train, data.validation, data.test))


def check(runs: list[Run], datasets: Mapping[config.Data, Dataset]) -> None:
    """Trace one step of each program, without compiling or making weights: errors come before any
    work.
    """
    for group in cohorts.group(runs, step.static):
        run = group[0]
        problem = problem_of(run, datasets[run.data])
        if _fitted(run):
            classical.check(run, datasets[run.data])
        else:
            trace(run, problem)


def trace(run: Run, problem: Problem) -> tuple[Any, Any]:
    """The abstract (state, sums) after one training step; raises `InputError` for what does not
    fit.
    """
    values = {k: np.float32(v) for k, v in step.numbers(run).items() if k != "seed"}
    values |= {"seed": np.int32(run.seed)}
    batch = config.batch_size(run)
    images = jax.ShapeDtypeStruct((batch, *problem.image_shape), jnp.uint8)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    channels = problem.image_shape[-1]
    moments = tuple(
        jax.ShapeDtypeStruct(s, jnp.float32) for s in ((channels,),) * 2 + ((channels,) * 2,)
    )

    def one(images: Any, labels: Any, moments: Any) -> Any:
        state = step.init_state(run, problem, values)
        if run.train.probes:
            given = images, labels
            probes.probe(run, problem, state, lambda _: given, moments, values)
        return step.train_step(run, problem, state, images, labels, moments, values)

    return jax.eval_shape(one, images, labels, moments)


def parameters(run: Run, problem: Problem) -> int | None:
    """How many trainable numbers the run's model has; None where only the fit will tell."""
    return None if _fitted(run) else _parameters(step.static(run), problem)


@functools.lru_cache(maxsize=64)
def _parameters(run: Run, problem: Problem) -> int:
    state, _ = trace(run, problem)
    return sum(math.prod(a.shape) for a in jax.tree.leaves(state.params))


def train(
    jobs: Mapping[Path, Run],
    labels: Mapping[Path, Mapping[str, Any]],
    datasets: Mapping[config.Data, Dataset],
    *,
    stop: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float = 30.0,
    at_once: int | None = None,
) -> Iterator[Tick]:
    """Train what is not finished of `jobs` (folder -> run); `labels` goes into each run.json.

    Side by side are `at_once` runs of a cohort, or as many as fit in memory. Runs that another
    launch holds are left to it and waited for. Raises `Interrupted` once `stop()` is true and
    everything in flight is saved, and `memory.OutOfMemory`.
    """
    shared = provenance.collect()
    pending = {f: run for f, run in jobs.items() if not records.is_finished(f)}
    waiting = False
    while pending:
        held_elsewhere = True
        for group in cohorts.group(pending, lambda f: _wave_of(jobs[f])):
            width, mesh = _plan(group, jobs, datasets, at_once, training=True)
            if at_once is None and width < sharding.plan(len(group))[0]:
                yield Tick(group[0], 0, note=f"no more than {width} at once fit in memory")
            while group:
                with contextlib.ExitStack() as stack:
                    wave, group = _claim(stack, group, width)
                    if not wave:
                        continue
                    held_elsewhere = False
                    runs = {f: pending[f] for f in wave}
                    infos = {f: {**labels[f], **shared} for f in wave}
                    data = datasets[next(iter(runs.values())).data]
                    if _fitted(next(iter(runs.values()))):
                        yield from _fit(runs, infos, data, stop)
                        continue
                    with memory.explained(_name(wave), runs[wave[0]]):
                        yield from _resume(runs, infos, data, mesh, width, stop, checkpoint_seconds)
        pending = {f: run for f, run in pending.items() if not records.is_finished(f)}
        if pending and held_elsewhere:
            if not waiting:
                note = f"waiting for {len(pending)} runs that another launch is training"
                yield Tick(next(iter(pending)), 0, note=note)
            waiting = True
            time.sleep(0.5)
            if stop():
                raise Interrupted


def test(
    jobs: Mapping[Path, Run],
    datasets: Mapping[config.Data, Dataset],
    *,
    at_once: int | None = None,
) -> Iterator[Tick]:
    """Evaluate the finished runs of `jobs` on the test split, once each, at the last step."""
    todo = {
        f: run
        for f, run in jobs.items()
        if not (f / "test.json").is_file() and not _diverged(f)
    }  # fmt: skip
    for group in cohorts.group(todo, lambda f: _wave_of(todo[f])):
        width, mesh = _plan(group, todo, datasets, at_once, training=False)
        for i in range(0, len(group), width):
            wave = group[i : i + width]
            runs = [todo[f] for f in wave]
            data = datasets[runs[0].data]
            if _fitted(runs[0]):
                for folder, run in zip(wave, runs, strict=True):
                    means = classical.means(classical.fit(run, data), data.test)
                    records.write_json(folder / "test.json", means)
                    yield Tick(folder, 1)
                continue
            with memory.explained(_name(wave), runs[0]):
                program, like = _program(runs[0], data, mesh)
                carries = [_final(folder, like) for folder in wave]
                carry = _stack(mesh, carries, width)
                n = len(data.train.labels) + len(data.validation.labels)
                found = _evaluate(program, carry, _resident(data, mesh), n, len(data.test.labels))
            for folder, means in zip(wave, found, strict=False):
                records.write_json(folder / "test.json", means)
                yield Tick(folder, 0)


def final(folder: Path, run: Run, data: Dataset) -> step.State:
    """The state of a finished run at its last step."""
    _, like = _program(run, data, sharding.make_mesh(1, 1))
    return _final(folder, like).state


def _plan(
    group: list[Path],
    jobs: Mapping[Path, Run],
    datasets: Mapping[config.Data, Dataset],
    at_once: int | None,
    *,
    training: bool,
) -> tuple[int, Any]:
    """The width of a cohort's waves, and their mesh."""
    run = jobs[group[0]]
    data = datasets[run.data]
    if _fitted(run):
        return sharding.plan(len(group), at_once)
    problem = problem_of(run, data)
    name, n = _name(group), examples(data)
    with memory.explained(name, run):
        return memory.plan(name, run, problem, len(group), n, at_once, training)


def _name(folders: list[Path]) -> str:
    more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
    return f"{folders[0].parent.name} {folders[0].name}{more}"


def _claim(
    stack: contextlib.ExitStack, group: list[Path], width: int
) -> tuple[list[Path], list[Path]]:
    """(a wave of unfinished runs, locked until `stack` closes; the rest of the group)."""
    wave: list[Path] = []
    for i, folder in enumerate(group):
        folder.mkdir(parents=True, exist_ok=True)
        held = stack.enter_context(records.lock(folder))
        if held and not records.is_finished(folder):  # it may have ended while we waited
            wave.append(folder)
        if len(wave) == width:
            return wave, group[i + 1 :]
    return wave, []


def _fitted(run: Run) -> bool:
    """Whether the run's model is fitted at once, not trained by steps."""
    return run.model.name in config.CLASSICAL


def _wave_of(run: Run) -> tuple[Run, int]:
    """Equal for runs that can be trained side by side: one program, the same examples."""
    return step.static(run), run.data.split_seed


def _fit(
    runs: dict[Path, Run],
    infos: dict[Path, dict[str, Any]],
    data: Dataset,
    stop: Callable[[], bool],
) -> Iterator[Tick]:
    """Fit the runs one after the other. A fit is done or has not begun, so nothing is saved on the
    way, and its curve is the one point behind it.
    """
    for folder, run in runs.items():
        if stop():
            raise Interrupted
        yield Tick(folder, 0)
        began = time.monotonic()
        fitted = classical.fit(run, data)
        n = run.train.eval_train_examples
        row: dict[str, Any] = {"step": 1}
        row["train"] = classical.means(fitted, Split(data.train.images[:n], data.train.labels[:n]))
        if len(data.validation.labels) > 0:
            row["validation"] = classical.means(fitted, data.validation)
        seconds = round(time.monotonic() - began, 2)
        _begin(folder, run, infos[folder], data, classical.parameters(fitted))
        with records.open_metrics(folder) as f:
            records.append(f, row | {"seconds": seconds})
        result = {"status": "finished", "step": 1, "seconds": seconds}
        records.write_json(folder / "result.json", result)
        yield Tick(folder, 1, row)


def _resume(
    runs: dict[Path, Run],
    infos: dict[Path, dict[str, Any]],
    data: Dataset,
    mesh: Any,
    width: int,
    stop: Callable[[], bool],
    checkpoint_seconds: float,
) -> Iterator[Tick]:
    """Train the runs from their newest checkpoints, those of equal step side by side."""
    program, like = _program(next(iter(runs.values())), data, mesh)
    with contextlib.ExitStack() as stack:
        disks: dict[Path, Checkpoints] = {}
        found: dict[Path, tuple[int, Carry | None]] = {}
        for folder, run in runs.items():
            disks[folder] = Checkpoints(folder)
            stack.callback(disks[folder].close)
            _begin(folder, run, infos[folder], data)
            at, carry, complaints = disks[folder].restore(like)
            found[folder] = (at, carry)
            after = f"step {at}" if at >= 0 else "the start"
            for complaint in complaints:
                yield Tick(folder, max(at, 0), note=f"{folder}: {complaint}; going on from {after}")
        for equal in cohorts.group(runs, lambda f: found[f][0]):
            at = found[equal[0]][0]
            wave = _Wave(
                folders=equal,
                runs=[runs[f] for f in equal],
                disks=[disks[f] for f in equal],
                data=data,
                program=program,
                width=width,
                stop=stop,
                checkpoint_seconds=checkpoint_seconds,
            )
            carries = [c for f in equal if (c := found[f][1]) is not None]
            yield from wave.run(at, carries)


@dataclasses.dataclass(frozen=True)
class _Wave:
    """Runs of one program at one step, side by side; at most `width`, padded with copies of the
    last.
    """

    folders: list[Path]
    runs: list[Run]
    disks: list[Checkpoints]
    data: Dataset
    program: Program
    width: int
    stop: Callable[[], bool]
    checkpoint_seconds: float

    def run(self, at: int, carries: list[Carry]) -> Iterator[Tick]:
        """From step `at` (-1: not begun) to the end."""
        run, mesh = self.runs[0], self.program.mesh
        problem = problem_of(run, self.data)
        every = config.eval_interval(run, problem.train_examples)
        data = _resident(self.data, mesh)
        padded = self.runs + [self.runs[-1]] * (self.width - len(self.runs))
        values = sharding.put(mesh, cohorts.stack(padded), "run")
        carry = _stack(mesh, carries, self.width) if carries else self.program.init(values)
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
                means = _evaluate(self.program, carry, data, start, count)
                for i, row in enumerate(rows):
                    row[split] = means[i]
        if self.runs[0].train.probes:
            layers = probes.layers(self.runs[0], problem)
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


def _program(run: Run, data: Dataset, mesh: Any) -> tuple[Program, Carry]:
    """The program of a run's cohort, and one run's carry in the abstract."""
    program = cohorts.program(step.static(run), problem_of(run, data), mesh)
    devices = mesh.shape["run"]
    many = jax.eval_shape(program.init, cohorts.stack([run] * devices))
    return program, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), many)


def _begin(
    folder: Path, run: Run, info: dict[str, Any], data: Dataset, size: int | None = None
) -> None:
    """Write run.json, or see that the one there is of this run and these data. `size`: parameters
    of a fit.
    """
    old = records.read(folder)
    if old is None:
        problem = problem_of(run, data)
        sizes = {s: len(getattr(data, s).labels) for s in ("train", "validation", "test")}
        about = {
            "config": config.to_dict(run),
            "digest": config.digest(run),
            "steps": problem.steps,
            "parameters": size if _fitted(run) else parameters(run, problem),
            "data": {"fingerprint": data.fingerprint, **sizes, "classes": len(data.classes)},
        }
        records.write_json(folder / "run.json", {**info, **about})
    elif old.info["data"]["fingerprint"] != data.fingerprint:
        raise InputError(
            f"data.name: {run.data.name!r} has changed since {folder} was begun (fingerprint"
            f" {data.fingerprint}, then {old.info['data']['fingerprint']}). Move that folder away,"
            " or name another with --out."
        )


def _reset(carry: Carry, mesh: Any) -> Carry:
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), carry.sums)
    return Carry(carry.state, sharding.put(mesh, zeros, "run"))


def _evaluate(
    program: Program, carry: Carry, data: Resident, start: int, count: int
) -> list[dict[str, float]]:
    """Means over examples start .. start + count, one dict a run."""
    sums = jax.device_get(program.evaluate(carry.state, data, start, count))
    runs = len(sums["count"])
    return [losses.means({k: v[i] for k, v in sums.items()}) for i in range(runs)]


@functools.lru_cache(maxsize=1)
def _resident(data: Dataset, mesh: Any) -> Resident:
    """The data set on every device of the mesh; the last one is kept for the next wave."""
    parts = (data.train, data.validation, data.test)
    images = np.concatenate([p.images for p in parts])
    labels = np.concatenate([p.labels for p in parts])
    moments = (data.mean, data.std, data.covariance)
    return sharding.put(mesh, Resident(images, labels, *moments))  # type: ignore[arg-type]


def _stack(mesh: Any, carries: list[Carry], width: int) -> Carry:
    padded = carries + [carries[-1]] * (width - len(carries))
    return sharding.put(mesh, jax.tree.map(lambda *a: np.stack(a), *padded), "run")


def _final(folder: Path, like: Carry) -> Carry:
    disk = Checkpoints(folder)
    at, carry, complaints = disk.restore(like)
    disk.close()
    record = records.read(folder)
    if carry is None or record is None or record.result is None or at != record.result["step"]:
        why = "; ".join(complaints) or "no checkpoint of the last step"
        raise RuntimeError(f"{folder}: {why}. Move the folder away to train the run afresh.")
    return carry


def _seconds(folder: Path, at: int) -> float:
    """Seconds that the run had been training when it was at step `at`."""
    record = records.read(folder)
    rows = [r for r in record.rows if r["step"] <= at] if record else []
    return rows[-1]["seconds"] if rows else 0.0


def _diverged(folder: Path) -> bool:
    record = records.read(folder)
    return record is None or record.result is None or record.diverged


def _finite(row: Mapping[str, Any]) -> bool:
    parts = [row[k] for k in ("batch", "train", "validation") if k in row]
    return all(math.isfinite(part["loss"]) for part in parts)
