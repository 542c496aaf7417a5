"""Runs -> cohorts -> compiled programs.

Runs that differ only in numbers (`step.TRACED` and the seed) are a cohort: one compiled program
trains them side by side, each with its own numbers, keys and data order. A run axis R stands first
in every leaf.
"""

import functools
import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcnn import backend, losses, nets, probes, step
from jaxcnn.config import Run, batch_size, steps_per_epoch
from jaxcnn.losses import Sums
from jaxcnn.native.fused import fused
from jaxcnn.nets import Numbers, Problem
from jaxcnn.step import State

T = TypeVar("T")
EVAL_BATCH = 250
# Of streamed pictures, how much goes to the device at once: of large ones a batch.
CHUNK_BYTES = 2**26
MOST = 32  # batches in a chunk
# In a loop of unknown length a GPU asks the host after each step whether there is another: a tenth
# of the time of LeNet-5's. So many steps stand in a loop of their own, which asks nothing.
TOGETHER = 64


class Carry(NamedTuple):
    """What training carries from dispatch to dispatch, and all that a checkpoint holds."""

    state: State
    sums: Sums  # of the steps since the last point of the curve


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Resident:
    """A data set on the device: train, validation and test, in this order, N examples in all; or a
    chunk of a stream, N batches of B, each split over the mesh's data axis, with rows to leave out
    labelled -1.
    """

    images: jax.Array  # uint8 [N, H, W, C], or [N, B, H, W, C]
    labels: jax.Array  # int32 [N], or [N, B]
    mean: jax.Array  # [C]
    std: jax.Array  # [C]
    covariance: jax.Array  # [C, C]

    @property
    def moments(self) -> step.Moments:
        return self.mean, self.std, self.covariance


class Program(NamedTuple):
    """A cohort's compiled functions. R runs; numbers is a dict of [R] arrays."""

    init: Callable[[Numbers], Carry]
    # order(numbers, epoch): each run's order of the examples; once an epoch, for sorting them takes
    # as long as some steps of a small net. Of a chunk: as they come.
    order: Callable[..., jax.Array]
    # advance(carry, numbers, order, data, position, n): n steps from `position` in the order's
    # epoch; donates carry.
    advance: Callable[..., Carry]
    # evaluate(state, data, start, count): sums over examples start .. start + count, each counted
    # once; of a chunk over those of its first batches that there are, `start` 0.
    evaluate: Callable[..., Sums]
    # probe(state, numbers, data): each of train.probes -> [R, L], a number for each layer. Compiled
    # at its first call, so never for a run without probes.
    probe: Callable[..., dict[str, jax.Array]]
    mesh: Mesh


def group(items: Iterable[T], kind: Callable[[T], Hashable]) -> list[list[T]]:
    """Items of equal kind together, in order of first appearance."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(kind(item), []).append(item)
    return list(groups.values())


def stack(runs: list[Run]) -> Numbers:
    """The traced numbers of a cohort's runs, each [R]."""
    rows = [step.numbers(run) for run in runs]
    return {
        name: np.array([row[name] for row in rows], np.int32 if name == "seed" else np.float32)
        for name in rows[0]
    }


@functools.lru_cache(maxsize=64)
def program(run: Run, problem: Problem, mesh: Mesh) -> Program:
    """The program of a cohort. `run` is `step.static` of any of its members."""

    def init(values: Numbers) -> Carry:
        return Carry(step.init_state(run, problem, values), losses.zeros(run.train.objective))

    def order(values: Numbers, epoch: jax.Array) -> jax.Array:
        if run.data.stream:
            return jnp.arange(chunk(run, problem))
        return step.epoch_order(run, problem, values, epoch)

    def advance(
        carry: Carry,
        values: Numbers,
        order: jax.Array,
        data: Resident,
        position: jax.Array,
        n: jax.Array,
    ) -> Carry:
        size = batch_size(run)

        def one(i: jax.Array, carry: Carry) -> Carry:
            if run.data.stream:
                rows = order[position + i]
            else:
                rows = lax.dynamic_slice(order, ((position + i) * size,), (size,))
            images, labels = _batch(mesh, data, rows)
            state, sums = step.train_step(
                run, problem, carry.state, images, labels, data.moments, values
            )
            return Carry(state, jax.tree.map(jnp.add, carry.sums, sums))

        known = _together(run, problem)
        if known == 1:
            return lax.fori_loop(0, n, one, carry)

        def some(k: jax.Array, carry: Carry) -> Carry:
            def next(i: jax.Array, carry: Carry) -> Carry:
                return one(k * known + i, carry)

            return lax.fori_loop(0, known, next, carry)

        carry = lax.fori_loop(0, n // known, some, carry)
        return lax.fori_loop(n // known * known, n, one, carry)

    judge = fused(functools.partial(step.eval_step, run, problem))
    nothing = functools.partial(losses.zeros, run.train.objective, nets.five(run, problem))
    # Large pictures: what there is memory for in training is enough here.
    at_once = batch_size(run) if run.data.stream else EVAL_BATCH

    def evaluate(state: State, data: Resident, start: jax.Array, count: jax.Array) -> Sums:
        def one(i: jax.Array, sums: Sums) -> Sums:
            if run.data.stream:
                images, labels = _batch(mesh, data, i)
                mask, labels = (labels >= 0).astype(jnp.float32), jnp.maximum(labels, 0)
            else:
                rows = start + i * at_once + jnp.arange(at_once)
                mask = (rows < start + count).astype(jnp.float32)
                images, labels = _batch(mesh, data, jnp.minimum(rows, data.labels.shape[0] - 1))
            new = judge(state, images, labels, data.moments, mask)
            return jax.tree.map(jnp.add, sums, new)

        return lax.fori_loop(0, -(-count // at_once), one, nothing())

    def probe(state: State, values: Numbers, data: Resident) -> dict[str, jax.Array]:
        def batch(i: jax.Array | int) -> tuple[jax.Array, jax.Array]:
            size = batch_size(run)
            return _batch(mesh, data, i * size + jnp.arange(size))

        return probes.probe(run, problem, state, batch, data.moments, values)

    side_by_side = functools.partial(_side_by_side, mesh)
    # Whole on all devices of a run: of several processes each can fetch it.
    whole = NamedSharding(mesh, P("run"))
    jit = functools.partial(
        jax.jit, compiler_options=backend.compiler_options(), out_shardings=whole
    )
    once = backend.compiler_options(once=True)
    return Program(
        init=jax.jit(side_by_side(init, 1, 0), compiler_options=once, out_shardings=whole),
        order=jit(side_by_side(order, 1, 1)),
        advance=jit(side_by_side(advance, 3, 3), donate_argnums=0),
        evaluate=jit(side_by_side(evaluate, 1, 3)),
        probe=jit(side_by_side(probe, 2, 1)),
        mesh=mesh,
    )


def _together(run: Run, problem: Problem) -> int:
    """Steps in a loop of known length: on a GPU, of nets so small that it shows."""
    small = math.prod(problem.image_shape[:2]) <= 32 * 32 and len(nets.layers(run, problem)) <= 8
    return TOGETHER if jax.default_backend() == "gpu" and small else 1


def chunk(run: Run, problem: Problem) -> int:
    """Batches of a stream that go to the device at once."""
    batch_bytes = batch_size(run) * math.prod(problem.image_shape)
    return max(1, min(CHUNK_BYTES // batch_bytes, MOST, problem.steps))


def chunk_axes(run: Run, mesh: Mesh) -> tuple[str | None, ...]:
    """How a chunk [N, B, ...] lies on the mesh: each device has its share of the batches, or, where
    they cannot be shared evenly, all.
    """
    return (None, "data") if batch_size(run) % mesh.shape["data"] == 0 else ()


def position(run: Run, problem: Problem, at: int) -> tuple[int, int, int]:
    """Where step `at` stands: its epoch, its place in that epoch, and how many steps the epoch
    still has.
    """
    each = steps_per_epoch(run, problem.train_examples)
    return at // each, at % each, each - at % each


def _side_by_side(mesh: Mesh, f: Callable[..., Any], runs: int, shared: int) -> Callable[..., Any]:
    """`f` of one run -> the same over R runs, split over the mesh's run axis.

    The first `runs` arguments have a run axis and the next `shared` have none. A device with a
    single run calls `f` itself, so that on CPU a run is the same program alone and in company.
    """

    def block(*args: Any) -> Any:
        if jax.tree.leaves(args[0])[0].shape[0] > 1:
            return jax.vmap(f, in_axes=(0,) * runs + (None,) * shared)(*args)
        own = jax.tree.map(lambda a: a[0], args[:runs])
        return jax.tree.map(lambda a: a[None], f(*own, *args[runs:]))

    specs = (P("run"),) * runs + (P(),) * shared
    return jax.shard_map(
        block, mesh=mesh, in_specs=specs, out_specs=P("run"), axis_names={"run"}, check_vma=False
    )


def _batch(mesh: Mesh, data: Resident, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The examples of `rows` [B], or of batch `rows` [] of a chunk, split over the mesh's data axis
    where it has several devices.
    """
    images, labels = data.images[rows], data.labels[rows]
    if mesh.shape["data"] == 1:
        return images, labels
    split = functools.partial(lax.with_sharding_constraint, shardings=P("data"))
    return split(images), split(labels)
