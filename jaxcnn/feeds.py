"""Where the pictures of steps and evaluations come from: all of them stand on the device, or, of
`data.stream`, the next ones are read and sent there while it computes.

What a program computes does not depend on it: a chunk of a stream is a small `Resident` of batches
in the order in which they came. Of several processes each reads its share of every batch.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxcnn import cohorts, losses, sharding
from jaxcnn.cohorts import Program, Resident
from jaxcnn.config import InputError, Run, batch_size
from jaxcnn.data.sources import Dataset
from jaxcnn.data.stream import LEFT_OUT, Stream
from jaxcnn.data.streamed import Part, Pictures, Streamed
from jaxcnn.nets import Numbers, Problem
from jaxcnn.step import State

# Takes a split and "NAME: why", of a picture of it that cannot be read.
Tell = Callable[[tuple[str, str]], None]


class Steps(NamedTuple):
    """What `Program.advance` takes for the steps from one on."""

    order: jax.Array
    data: Resident
    position: int
    left: int  # steps that there are pictures for


class Feed(Protocol):
    def steps(self, at: int) -> Steps:
        """For step `at`; steps are asked for in their order."""
        ...

    def close(self) -> None: ...


def feed(
    run: Run,
    problem: Problem,
    program: Program,
    values: Numbers,
    data: Pictures,
    at: int,
    tell: Tell,
) -> Feed:
    """The training pictures of a wave of runs like `run` from step `at` on; of a stream a wave is
    one run.
    """
    if isinstance(data, Streamed):
        return Ahead(run, problem, program, values, data, at, tell)
    return Whole(run, problem, program, values, data)


class Whole:
    """The data set on the device."""

    def __init__(
        self, run: Run, problem: Problem, program: Program, values: Numbers, data: Dataset
    ) -> None:
        self._run, self._problem, self._program, self._values = run, problem, program, values
        self._data = resident(data, program.mesh)
        self._order: Any = None
        self._ordered = -1  # the epoch of that order

    def steps(self, at: int) -> Steps:
        epoch, position, left = cohorts.position(self._run, self._problem, at)
        if epoch != self._ordered:
            self._order, self._ordered = self._program.order(self._values, epoch), epoch
        return Steps(self._order, self._data, position, left)

    def close(self) -> None:
        pass


class Ahead:
    """A chunk of batches on the device, and the next on its way there: read by a thread, decoded
    by grain's. Step n takes batch n of the stream of the run's seed, however steps are chunked.
    """

    def __init__(
        self,
        run: Run,
        problem: Problem,
        program: Program,
        values: Numbers,
        data: Streamed,
        at: int,
        tell: Tell,
    ) -> None:
        self._data, self._mesh, self._end = data, program.mesh, problem.steps
        self._run, self._size = run, cohorts.chunk(run, problem)
        self._order = program.order(values, 0)
        index, count = sharding.shares(program.mesh)
        share: dict[str, Any] = {"process_index": index, "process_count": count}
        own = batch_size(run) // count
        stream = Stream(data.train, own, run.seed, training=True, epochs=None, **share)
        self._batches = stream.batches(at, tell=lambda why: tell(("train", why)))
        self._pool = ThreadPoolExecutor(1)
        self._first = self._last = at  # the steps of the chunk at hand, the last one excluded
        self._chunk: Any = None
        self._coming = self._pool.submit(self._read, at)

    def steps(self, at: int) -> Steps:
        if at == self._last:
            self._first, (self._chunk, count) = at, self._coming.result()
            self._last = at + count
            self._coming = self._pool.submit(self._read, self._last)
        return Steps(self._order, self._chunk, at - self._first, self._last - at)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._batches.close()

    def _read(self, at: int) -> tuple[Resident | None, int]:
        """The chunk from step `at` on, and how many steps it is."""
        count = min(self._size, self._end - at)
        if count <= 0:
            return None, 0
        taken = [next(self._batches) for _ in range(count)]
        images, labels = map(np.concatenate, zip(*taken, strict=True)) if count > 1 else taken[0]
        return _chunk(self._run, self._data, self._mesh, images, labels, self._size), count


def evaluate(
    program: Program,
    run: Run,
    problem: Problem,
    state: State,
    data: Pictures,
    split: str,
    tell: Tell = lambda _: None,
) -> list[dict[str, float]]:
    """Means over a split, one dict a run; of train, over its first `train.eval_train_examples`.

    Each example counts once. Of a stream those that cannot be read are told of and left out; raises
    `InputError` where that leaves none.
    """
    count = run.train.eval_train_examples if split == "train" else data.sizes[split]
    if isinstance(data, Streamed):
        parts = _streamed(program, run, problem, state, data, split, count, tell)
    else:
        n, v = data.sizes["train"], data.sizes["validation"]
        start = {"train": 0, "validation": n, "test": n + v}[split]
        parts = [program.evaluate(state, resident(data, program.mesh), start, count)]
    found = [jax.device_get(part) for part in parts]
    sums = {name: np.sum([part[name] for part in found], 0, float) for name in found[0]}
    if not sums["count"].all():
        raise InputError(f"data.name: none of the {split} pictures of {run.data.name!r} is read.")
    return [losses.means({k: v[i] for k, v in sums.items()}) for i in range(len(sums["count"]))]


def check(run: Run) -> None:
    """Raise `InputError` for a stream whose batches the processes cannot share."""
    devices = jax.device_count()
    if run.data.stream and jax.process_count() > 1 and batch_size(run) % devices:
        raise InputError(
            f"train.batch_size: {batch_size(run)} is not a multiple of {devices}, the devices of"
            f" {jax.process_count()} processes that share each batch of data.stream."
        )


def rows(run: Run, problem: Problem) -> int:
    """Pictures of a chunk."""
    return cohorts.chunk(run, problem) * batch_size(run)


@functools.lru_cache(maxsize=1)
def resident(data: Dataset, mesh: Any) -> Resident:
    """The data set on every device of the mesh; the last one is kept for the next wave."""
    parts = (data.train, data.validation, data.test)
    images = np.concatenate([p.images for p in parts])
    labels = np.concatenate([p.labels for p in parts])
    moments = (data.mean, data.std, data.covariance)
    return sharding.put(mesh, Resident(images, labels, *moments))  # type: ignore[arg-type]


def _streamed(
    program: Program,
    run: Run,
    problem: Problem,
    state: State,
    data: Streamed,
    split: str,
    count: int,
    tell: Tell,
) -> list[Any]:
    """The sums of each chunk of a split."""
    part: Part = getattr(data, split)
    part = Part(part.source, part.index[:count])
    index, processes = sharding.shares(program.mesh)
    batch, size = batch_size(run) // processes, cohorts.chunk(run, problem)
    share: dict[str, Any] = {"process_index": index, "process_count": processes}
    stream = Stream(part, size * batch, **share)
    left = -(-len(part) // processes)  # of the process that has most
    black = np.zeros((0, part.side, part.side, 3), np.uint8), np.zeros(0, np.int32)
    sums: list[Any] = []
    with stream.batches(tell=lambda why: tell((split, why))) as batches:
        while left > 0:
            images, labels = next(batches, black)
            chunk = _chunk(run, data, program.mesh, images, labels, size)
            used = -(-min(left, size * batch) // batch)
            sums.append(program.evaluate(state, chunk, 0, used * batch_size(run)))
            if len(sums) > 1:  # one is computed while the next is decoded, and no more wait
                jax.block_until_ready(sums[-2])
            left -= size * batch
    return sums


def _chunk(
    run: Run, data: Streamed, mesh: Any, images: np.ndarray, labels: np.ndarray, size: int
) -> Resident:
    """On the device as `size` batches, of this process's share of each and rows of nothing."""
    batch = batch_size(run) // sharding.shares(mesh)[1]
    missing = size * batch - len(labels)
    if missing:
        images = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        labels = np.pad(labels, (0, missing), constant_values=LEFT_OUT)
    own = images.reshape(size, batch, *images.shape[1:]), labels.reshape(size, batch)
    moments = sharding.put(mesh, (data.mean, data.std, data.covariance))
    return Resident(*sharding.put_shares(mesh, own, *cohorts.chunk_axes(run, mesh)), *moments)
