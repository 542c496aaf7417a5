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
    split the batch.
    """
    devices = jax.devices()
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
    device.
    """
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))
