"""The loop: runs go in, records come out.

Runs are trained in waves of one cohort (`sharding.plan`; wave.py). A generator, so that its caller
draws the progress and hears of each new point of a curve; all that it promises stands on disk
before it says so.
"""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import (
    cohorts,
    config,
    feeds,
    hosts,
    memory,
    nets,
    probes,
    provenance,
    records,
    sharding,
    starts,
    step,
    transfer,
    weights,
)
from jaxcnn.checkpoint import BEST, USUAL, Checkpoints, Saving
from jaxcnn.cohorts import Carry
from jaxcnn.config import InputError, Run
from jaxcnn.data import sources, streamed
from jaxcnn.data.sources import Dataset, Split
from jaxcnn.data.streamed import Pictures
from jaxcnn.nets import Problem
from jaxcnn.starts import is_fitted, problem_of
from jaxcnn.wave import Interrupted, Tick, Wave, least_error


def load_data(runs: Iterable[Run], data_dir: Path | None) -> dict[config.Data, Pictures]:
    """The data of the runs; those that differ in augmentation alone are the same arrays."""

    def stored(data: config.Data) -> config.Data:
        same = ("name", "classes", "train_examples", "per_class", "validation_examples")
        same += ("test_per_class", "unseen", "split_seed", "resize", "stream", "side")
        return config.Data(**{field: getattr(data, field) for field in same})

    def load(data: config.Data) -> Pictures:
        return (streamed if data.stream else sources).load(data, data_dir)

    wanted = dict.fromkeys(run.data for run in runs)
    loaded = {s: load(s) for s in dict.fromkeys(map(stored, wanted))}
    return {data: loaded[stored(data)] for data in wanted}


def examples(data: Pictures, run: Run, problem: Problem) -> int:
    """How many stand on a device: of training, validation and test, or of a stream's chunk."""
    return feeds.rows(run, problem) if run.data.stream else sum(data.sizes.values())


def check(runs: list[Run], datasets: Mapping[config.Data, Pictures], *, best: bool = False) -> None:
    """Trace one step of each program, without compiling or making weights: errors come before any
    work. `best`: whether there is a validation error for the best checkpoint to be chosen by, too.
    """

    for run in runs if best else []:
        if not is_fitted(run) and datasets[run.data].sizes["validation"] == 0:
            raise InputError(
                f"--keep-best: {run.data.name!r} has no validation data to choose by;"
                f" data.validation_examples is {run.data.validation_examples}."
            )

    def kind(run: Run) -> Any:
        """Equal for runs of one program that start from runs of one program."""
        source = transfer.source(run)
        own = (run.start.features, run.start.weights, run.start.layers)
        return step.static(run), own, source and step.static(source)

    for run, *_ in cohorts.group(runs, kind):
        problem, source = problem_of(run, datasets[run.data]), transfer.source(run)
        feeds.check(run)
        if run.start.weights is not None:
            starts.net({}, datasets, run)
        if is_fitted(run):
            from jaxcnn import classical  # scikit-learn, a second: only who fits pays

            whole = _whole(datasets[run.data])
            classical.check(run, whole, starts.feature_size(run, problem))
            continue
        state, _ = trace(step.static(run), problem)
        if source is not None:
            theirs, _ = trace(step.static(source), problem_of(source, datasets[source.data]))
            step.started(run, problem, state, theirs)


@functools.lru_cache(maxsize=64)
def trace(run: Run, problem: Problem) -> tuple[Any, Any]:
    """The abstract (state, sums) after one training step; raises `InputError` for what does not
    fit.
    """
    values = {k: np.float32(v) for k, v in step.numbers(run).items() if k != "seed"}
    values |= {"seed": np.int32(run.seed)}
    batch = config.batch_size(run)
    images = jax.ShapeDtypeStruct((batch, *problem.image_shape), jnp.uint8)
    labels = nets.labels(run, problem, batch)
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
    if is_fitted(run):
        return None
    state, _ = trace(step.static(run), problem)
    return sum(math.prod(a.shape) for a in jax.tree.leaves(state.params))


def train(
    jobs: Mapping[Path, Run],
    labels: Mapping[Path, Mapping[str, Any]],
    datasets: Mapping[config.Data, Pictures],
    *,
    stop: Callable[[], bool] = lambda: False,
    saving: Saving = USUAL,
    at_once: int | None = None,
    sources: Mapping[Run, Path] | None = None,
) -> Iterator[Tick]:
    """Train what is not finished of `jobs` (folder -> run); `labels` goes into each run.json.
    `sources` are the folders of the finished runs that they start from.

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
                    infos = {
                        f: {**labels[f], **shared, **starts.about(run, datasets)}
                        for f, run in runs.items()
                    }
                    data = datasets[next(iter(runs.values())).data]
                    begin = functools.partial(starts.net, sources or {}, datasets)
                    if is_fitted(next(iter(runs.values()))):
                        yield from _fit(runs, infos, _whole(data), begin, stop)
                        continue
                    with memory.explained(_name(wave), runs[wave[0]]):
                        yield from _resume(runs, infos, data, mesh, width, begin, stop, saving)
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
    datasets: Mapping[config.Data, Pictures],
    *,
    at_once: int | None = None,
    sources: Mapping[Run, Path] | None = None,
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
            if is_fitted(runs[0]):
                from jaxcnn import classical  # slow, see above

                whole = _whole(data)
                for folder, run in zip(wave, runs, strict=True):
                    see = starts.see(run, functools.partial(starts.net, sources or {}, datasets))
                    means = classical.means(classical.fit(run, whole, see), whole.test)
                    records.write_json(folder / "test.json", means)
                    yield Tick(folder, 1)
                continue
            with memory.explained(_name(wave), runs[0]):
                program, like = starts.program(runs[0], data, mesh)
                carries = [starts.final_carry(folder, like) for folder in wave]
                problem = problem_of(runs[0], data)
                unread: list[tuple[str, str]] = []
                if runs[0].data.unseen is None:
                    what = (runs, problem, data, program, width)
                    with contextlib.closing(hosts.lanes(*what, carries)) as lanes:
                        found, unread = lanes.means("test"), lanes.unread()
                else:
                    from jaxcnn import faces  # scikit-learn, too

                    known = zip(runs, [c.state for c in carries], strict=True)
                    found = [faces.of_unseen(r, problem, s, _whole(data)) for r, s in known]
            for folder, means, final in zip(wave, found, carries, strict=False):
                if runs[0].compress.on:
                    size = weights.packed_bytes({"params": final.state.params})
                    means = {**means, "bytes": size}
                records.write_json(folder / "test.json", means)
                yield Tick(folder, 0, note=records.add_unreadable(folder, unread))


def _plan(
    group: list[Path],
    jobs: Mapping[Path, Run],
    datasets: Mapping[config.Data, Pictures],
    at_once: int | None,
    *,
    training: bool,
) -> tuple[int, Any]:
    """The width of a cohort's waves, and their mesh."""
    run = jobs[group[0]]
    data = datasets[run.data]
    if is_fitted(run):
        return sharding.plan(len(group), at_once)
    problem = problem_of(run, data)
    name, n = _name(group), examples(data, run, problem)
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


def _whole(data: Pictures) -> Dataset:
    assert isinstance(data, Dataset)  # `checks.check`: what takes pictures from memory has them
    return data


def _wave_of(run: Run) -> tuple[Run, int]:
    """Equal for runs that can be trained side by side: one program, the same examples. A stream is
    of one run: its order is that of the seed. Its batches are split over all accelerators.
    """
    return run if run.data.stream else step.static(run), run.data.split_seed


def _fit(
    runs: dict[Path, Run],
    infos: dict[Path, dict[str, Any]],
    data: Dataset,
    begin: starts.Begin,
    stop: Callable[[], bool],
) -> Iterator[Tick]:
    """Fit the runs one after the other. A fit is done or has not begun, so nothing is saved on the
    way, and its curve is the one point behind it.
    """
    from jaxcnn import classical  # slow, see above

    for folder, run in runs.items():
        if stop():
            raise Interrupted
        yield Tick(folder, 0)
        began = time.monotonic()
        fitted = classical.fit(run, data, starts.see(run, begin))
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
    data: Pictures,
    mesh: Any,
    width: int,
    begin: starts.Begin,
    stop: Callable[[], bool],
    saving: Saving,
) -> Iterator[Tick]:
    """Train the runs from their newest checkpoints, those of equal step side by side."""
    program, like = starts.program(next(iter(runs.values())), data, mesh)
    found: dict[Path, tuple[int, Carry | None]] = {}
    errors: dict[Path, float] = {}
    for folder, run in runs.items():
        with contextlib.closing(Checkpoints(folder)) as disk:
            _begin(folder, run, infos[folder], data)
            at, carry, complaints = disk.restore(like)
        found[folder] = (at, carry)
        if saving.best:
            with contextlib.closing(Checkpoints(folder, place=BEST)) as best:
                best.drop_after(at)  # it will come again
                errors[folder] = least_error(folder, best.steps())
        after = f"step {at}" if at >= 0 else "the start"
        for complaint in complaints:
            yield Tick(folder, max(at, 0), note=f"{folder}: {complaint}; going on from {after}")
    for equal in cohorts.group(runs, lambda f: found[f][0]):
        at = found[equal[0]][0]
        wave = Wave(
            folders=equal,
            runs=[runs[f] for f in equal],
            least=[errors[f] for f in equal if saving.best],
            data=data,
            problem=problem_of(next(iter(runs.values())), data),
            program=program,
            width=width,
            stop=stop,
            saving=saving,
        )
        carries = [c for f in equal if (c := found[f][1]) is not None]
        if at < 0:
            carries = starts.carries(wave, begin)
        yield from wave.run(at, carries)


def _begin(
    folder: Path, run: Run, info: dict[str, Any], data: Pictures, size: int | None = None
) -> None:
    """Write run.json, or see that the one there is of this run and these data. `size`: parameters
    of a fit.
    """
    old = records.read(folder)
    if old is None:
        problem = problem_of(run, data)
        about = {
            "config": config.to_dict(run),
            "digest": config.digest(run),
            "steps": problem.steps,
            "parameters": size if is_fitted(run) else parameters(run, problem),
            "data": {"fingerprint": data.fingerprint, **data.sizes, "classes": len(data.classes)},
        }
        records.write_json(folder / "run.json", {**info, **about})
    elif any(old.info.get(key) != info.get(key) for key in starts.ABOUT):
        raise InputError(
            f"start: what {folder} started from has changed since. Move that folder away, or name"
            " another with --out."
        )
    elif old.info["data"]["fingerprint"] != data.fingerprint:
        raise InputError(
            f"data.name: {run.data.name!r} has changed since {folder} was begun (fingerprint"
            f" {data.fingerprint}, then {old.info['data']['fingerprint']}). Move that folder away,"
            " or name another with --out."
        )


def _diverged(folder: Path) -> bool:
    record = records.read(folder)
    return record is None or record.result is None or record.diverged
