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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import (
    classical,
    cohorts,
    config,
    feeds,
    memory,
    ops,
    probes,
    provenance,
    records,
    sharding,
    step,
    transfer,
    weights,
)
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.cohorts import Carry, Program
from jaxcnn.config import InputError, Run
from jaxcnn.data import sources, streamed
from jaxcnn.data.sources import Dataset, Split
from jaxcnn.data.streamed import Pictures
from jaxcnn.step import Problem
from jaxcnn.wave import Interrupted, Tick, Wave, stacked


def load_data(runs: Iterable[Run], data_dir: Path | None) -> dict[config.Data, Pictures]:
    """The data of the runs; those that differ in augmentation alone are the same arrays."""

    def stored(data: config.Data) -> config.Data:
        same = ("name", "classes", "train_examples", "per_class", "validation_examples")
        same += ("test_per_class", "split_seed", "resize", "stream", "side")
        return config.Data(**{field: getattr(data, field) for field in same})

    def load(data: config.Data) -> Pictures:
        return (streamed if data.stream else sources).load(data, data_dir)

    wanted = dict.fromkeys(run.data for run in runs)
    loaded = {s: load(s) for s in dict.fromkeys(map(stored, wanted))}
    return {data: loaded[stored(data)] for data in wanted}


def problem_of(run: Run, data: Pictures) -> Problem:
    """Raises `InputError` for a run that its data cannot feed."""
    n = data.sizes["train"]
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
    told, asked = _has_points(data), run.train.objective == "landmarks"
    if told != asked:
        found = "the points of faces" if told else "classes"
        raise InputError(
            f"train.objective: {run.train.objective!r} is not of {run.data.name!r}, whose pictures"
            f" have {found}."
        )
    return Problem(data.image_shape, len(data.classes), n, config.total_steps(run, n))


def _has_points(data: Pictures) -> bool:
    return isinstance(data, Dataset) and data.train.labels.ndim > 1


def examples(data: Pictures, run: Run, problem: Problem) -> int:
    """How many stand on a device: of training, validation and test, or of a stream's chunk."""
    return feeds.rows(run, problem) if run.data.stream else sum(data.sizes.values())


def check(runs: list[Run], datasets: Mapping[config.Data, Pictures]) -> None:
    """Trace one step of each program, without compiling or making weights: errors come before any
    work.
    """

    def kind(run: Run) -> Any:
        """Equal for runs of one program that start from runs of one program."""
        source = transfer.source(run)
        return step.static(run), run.start.features, source and step.static(source)

    for run, *_ in cohorts.group(runs, kind):
        problem, source = problem_of(run, datasets[run.data]), transfer.source(run)
        theirs = None if source is None else problem_of(source, datasets[source.data])
        if _fitted(run):
            classical.check(run, _whole(datasets[run.data]), _feature_size(run, source, theirs))
            continue
        state, _ = trace(run, problem)
        if source is not None and theirs is not None:
            step.started(run, problem, state, trace(source, theirs)[0])


def _feature_size(run: Run, source: Run | None, problem: Problem | None) -> int | None:
    """How many numbers `start.features` gives of a picture."""
    if source is None or problem is None:
        return None
    found = transfer.shapes(step.module(source, problem, {}), step.seen(source, problem))
    return math.prod(ops.lookup(found, run.start.features, "start.features"))


def trace(run: Run, problem: Problem) -> tuple[Any, Any]:
    """The abstract (state, sums) after one training step; raises `InputError` for what does not
    fit.
    """
    values = {k: np.float32(v) for k, v in step.numbers(run).items() if k != "seed"}
    values |= {"seed": np.int32(run.seed)}
    batch = config.batch_size(run)
    images = jax.ShapeDtypeStruct((batch, *problem.image_shape), jnp.uint8)
    labels = step.labels(run, problem, batch)
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
    datasets: Mapping[config.Data, Pictures],
    *,
    stop: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float = 30.0,
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
                        f: {**labels[f], **shared, **_source_data(run, datasets)}
                        for f, run in runs.items()
                    }
                    data = datasets[next(iter(runs.values())).data]
                    begin = functools.partial(_source, sources or {}, datasets)
                    if _fitted(next(iter(runs.values()))):
                        yield from _fit(runs, infos, _whole(data), begin, stop)
                        continue
                    with memory.explained(_name(wave), runs[wave[0]]):
                        yield from _resume(
                            runs, infos, data, mesh, width, begin, stop, checkpoint_seconds
                        )
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
            if _fitted(runs[0]):
                whole = _whole(data)
                for folder, run in zip(wave, runs, strict=True):
                    see = _see(run, functools.partial(_source, sources or {}, datasets))
                    means = classical.means(classical.fit(run, whole, see), whole.test)
                    records.write_json(folder / "test.json", means)
                    yield Tick(folder, 1)
                continue
            with memory.explained(_name(wave), runs[0]):
                program, like = _program(runs[0], data, mesh)
                carries = [_final(folder, like) for folder in wave]
                state = stacked(mesh, carries, width).state
                problem = problem_of(runs[0], data)
                unread: list[tuple[str, str]] = []
                what = (program, runs[0], problem, state, data, "test")
                found = feeds.evaluate(*what, unread.append)
            for folder, means, final in zip(wave, found, carries, strict=False):
                if runs[0].compress.sparsity or runs[0].compress.bits:
                    size = weights.packed_bytes({"params": final.state.params})
                    means = {**means, "bytes": size}
                records.write_json(folder / "test.json", means)
                yield Tick(folder, 0, note=records.add_unreadable(folder, unread))


def final(folder: Path, run: Run, data: Pictures) -> step.State:
    """The state of a finished run at its last step."""
    _, like = _program(run, data, sharding.make_mesh(1, 1))
    return _final(folder, like).state


class Net(NamedTuple):
    """A source run's: how it is built, and its state at the last step."""

    run: Run
    problem: Problem
    state: step.State


def _source(
    sources: Mapping[Run, Path], datasets: Mapping[config.Data, Pictures], run: Run
) -> Net | None:
    """Of the run's source; None where it has none. Raises `InputError` where that has no weights to
    give, or was trained on other data than there are now.
    """
    source = transfer.source(run)
    if source is None:
        return None
    folder, data = sources[source], datasets[source.data]
    record = records.read(folder)
    if record is None or record.result is None:
        raise RuntimeError(f"{folder}: the source run is not finished.")
    if record.diverged:
        raise InputError(
            f"start.lr: {source.optim.lr}; the source run {folder} diverged at step"
            f" {record.result['step']} and has no weights to start from."
        )
    if record.info["data"]["fingerprint"] != data.fingerprint:
        raise InputError(
            f"start.data: {source.data.name!r} has changed since {folder} was trained (fingerprint"
            f" {data.fingerprint}, then {record.info['data']['fingerprint']}). Move that folder"
            " away, or name another with --out."
        )
    return Net(source, problem_of(source, data), final(folder, source, data))


def _source_data(run: Run, datasets: Mapping[config.Data, Pictures]) -> dict[str, str]:
    source = transfer.source(run)
    return {} if source is None else {"source_data": datasets[source.data].fingerprint}


def _see(run: Run, begin: Callable[[Run], Net | None]) -> classical.See | None:
    """What a model that is fitted at once sees in place of pixels; None for the pixels."""
    layer, net = run.start.features, begin(run)
    if layer is None or net is None:
        return None
    model = step.module(net.run, net.problem, {})
    variables = {"params": net.state.params, "batch_stats": net.state.batch_stats}
    return lambda images: transfer.features(model, variables, images, layer)


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
    if _fitted(run):
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


def _fitted(run: Run) -> bool:
    """Whether the run's model is fitted at once, not trained by steps."""
    return run.model.name in config.CLASSICAL


def _whole(data: Pictures) -> Dataset:
    assert isinstance(data, Dataset)  # `config.check`: what takes pictures from memory has them
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
    begin: Callable[[Run], Net | None],
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
        fitted = classical.fit(run, data, _see(run, begin))
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
    begin: Callable[[Run], Net | None],
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
            wave = Wave(
                folders=equal,
                runs=[runs[f] for f in equal],
                disks=[disks[f] for f in equal],
                data=data,
                problem=problem_of(next(iter(runs.values())), data),
                program=program,
                width=width,
                stop=stop,
                checkpoint_seconds=checkpoint_seconds,
            )
            carries = [c for f in equal if (c := found[f][1]) is not None]
            if at < 0:
                carries = _started(wave, begin)
            yield from wave.run(at, carries)


def _started(wave: Wave, begin: Callable[[Run], Net | None]) -> list[Carry]:
    """The runs' carries before the first step; [] where they start from no other's weights."""
    nets = [begin(run) for run in wave.runs]
    if not any(nets):
        return []
    mesh = wave.program.mesh
    values = sharding.put(mesh, cohorts.stack(wave.padded), "run")
    whole = jax.device_get(wave.program.init(values))
    out = []
    for i, (run, net) in enumerate(zip(wave.runs, nets, strict=True)):
        carry = jax.tree.map(lambda a, i=i: a[i], whole)
        if net is not None:
            carry = carry._replace(state=step.started(run, wave.problem, carry.state, net.state))
        out.append(carry)
    return out


def _program(run: Run, data: Pictures, mesh: Any) -> tuple[Program, Carry]:
    """The program of a run's cohort, and one run's carry in the abstract."""
    program = cohorts.program(step.static(run), problem_of(run, data), mesh)
    devices = mesh.shape["run"]
    many = jax.eval_shape(program.init, cohorts.stack([run] * devices))
    return program, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), many)


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
            "parameters": size if _fitted(run) else parameters(run, problem),
            "data": {"fingerprint": data.fingerprint, **data.sizes, "classes": len(data.classes)},
        }
        records.write_json(folder / "run.json", {**info, **about})
    elif old.info["data"]["fingerprint"] != data.fingerprint:
        raise InputError(
            f"data.name: {run.data.name!r} has changed since {folder} was begun (fingerprint"
            f" {data.fingerprint}, then {old.info['data']['fingerprint']}). Move that folder away,"
            " or name another with --out."
        )


def _final(folder: Path, like: Carry) -> Carry:
    disk = Checkpoints(folder)
    at, carry, complaints = disk.restore(like)
    disk.close()
    record = records.read(folder)
    if carry is None or record is None or record.result is None or at != record.result["step"]:
        why = "; ".join(complaints) or "no checkpoint of the last step"
        raise RuntimeError(f"{folder}: {why}. Move the folder away to train the run afresh.")
    return carry


def _diverged(folder: Path) -> bool:
    record = records.read(folder)
    return record is None or record.result is None or record.diverged
