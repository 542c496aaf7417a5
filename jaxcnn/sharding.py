"""The mesh: two named axes, `run` and `data`, for runs side by side and for one run's batch."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# Runs that share a device: on CPU one (batched convolutions are 2 times slower there than one run
# after the other), on accelerators as many as there are, since small nets are bound by launches.
LANES = {"cpu": 1}
MANY = 256


def make_mesh(run: int, data: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Auto axes: under Explicit ones, jax.make_mesh's default, Linen's layers raise."""
    devices = list(devices or jax.devices())[: run * data]
    grid = np.asarray(devices).reshape(run, data)
    return Mesh(grid, ("run", "data"), axis_types=(AxisType.Auto, AxisType.Auto))


def plan(runs: int, at_once: int | None = None) -> tuple[int, Mesh]:
    """How `runs` runs of one cohort stand side by side: the width of a wave, at most `at_once`, and
    its mesh.

    On CPU a device is a core, and each run has one to itself, so its numbers never depend on how
    many there are. On accelerators the runs are spread over the devices, and devices left over
    split the batch. Of several processes (hosts.py) all devices split the batch, and `at_once` runs
    stand side by side, else one.
    """
    devices = jax.devices()
    if jax.process_count() > 1:
        return min(runs, at_once or 1), make_mesh(1, len(devices))
    most = min(runs, at_once or runs)
    lanes = LANES.get(devices[0].platform, MANY)
    if lanes == 1:
        width = min(most, len(devices))
        return width, make_mesh(width, 1)
    run = max(d for d in range(1, len(devices) + 1) if len(devices) % d == 0 and d <= most)
    width = min(-(-runs // run), at_once // run if at_once else lanes) * run
    return width, make_mesh(run, len(devices) // run)


def put(mesh: Mesh, tree: Any, *axes: str) -> Any:
    """The arrays of `tree` on the mesh: their first axis split over `axes`, or whole on each
    device. Of several processes each has the whole of `tree`, and puts what is its own.
    """
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    if not mesh.is_multi_process:
        return jax.device_put(tree, sharding)

    def own(a: Any) -> jax.Array:
        whole = np.asarray(a)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])

    return jax.tree.map(own, tree)


def put_shares(mesh: Mesh, tree: Any, *axes: str | None) -> Any:
    """Likewise; of several processes each has its own part of what the mesh's data axis splits."""
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    if not mesh.is_multi_process:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, a), tree)


def split(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Of an array: over all devices, along its first axis that they divide; whole on each where
    there is none.
    """
    axis = next((k for k, n in enumerate(shape) if n > 0 and n % mesh.size == 0), None)
    over = () if axis is None else (*[None] * axis, ("run", "data"))
    return NamedSharding(mesh, PartitionSpec(*over))


def shares(mesh: Mesh) -> tuple[int, int]:
    """(which part of a batch this process has, of how many)."""
    return (jax.process_index(), jax.process_count()) if mesh.is_multi_process else (0, 1)
