"""How much memory a device has, how much programs take of it, and one clear error where it is too
small.

Nothing is tried out: XLA says what a compiled program takes before it runs. What is compiled for
that is compiled as it will be called, so it is compiled once.
"""

import contextlib
import dataclasses
import functools
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcnn import cohorts, models, nets, sharding, step
from jaxcnn.cohorts import Resident
from jaxcnn.config import Run, batch_size
from jaxcnn.nets import Problem

# The share of the memory that programs may fill. On a CPU the interpreter, the data as they were
# read and the rest of the machine need some; on accelerators it is the allocator's gaps.
SHARE = {"cpu": 0.8}
MOST = 0.95


class OutOfMemory(RuntimeError):
    """The device's memory is too small; the message says for what, and what needs less."""


@functools.cache
def total() -> int | None:
    """Bytes of one accelerator that can be allocated, or of the whole machine on a CPU; None where
    the device does not say.
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        return _host()
    return (device.memory_stats() or {}).get("bytes_limit")


def room(devices: int) -> int | None:
    """Bytes that programs may take of each device while so many are at work: those of a CPU share
    the machine's.
    """
    whole, platform = total(), jax.devices()[0].platform
    if whole is None:
        return None
    return int(whole * SHARE.get(platform, MOST)) // (devices if platform == "cpu" else 1)


@functools.lru_cache(maxsize=256)
def need(
    run: Run, problem: Problem, mesh: Mesh, width: int, examples: int, training: bool = True
) -> int:
    """Bytes of each device that `width` runs of a cohort take, data of `examples` included: while
    they train, or are evaluated. `run` is `step.static` of any of them.
    """
    program = cohorts.program(run, problem, mesh)

    def placed(tree: Any, *axes: str | None) -> Any:
        sharded = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharded), tree
        )

    numbers = cohorts.stack([run] * width)
    carry = placed(jax.eval_shape(program.init, numbers), "run")
    c = problem.image_shape[-1]
    moments = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((c,), (c,), (c, c)))
    images = jax.ShapeDtypeStruct((examples, *problem.image_shape), jnp.uint8)
    labels = nets.labels(run, problem, examples)
    data = placed(Resident(images, labels, *moments))  # type: ignore[arg-type]
    if run.data.stream:
        split, size = cohorts.chunk_axes(run, mesh), batch_size(run)
        own = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((examples // size, size, *a.shape[1:]), a.dtype),
            (images, labels),
        )
        images, labels = placed(own, *split)
        data = dataclasses.replace(data, images=images, labels=labels)
    if not training:
        return _taken(program.evaluate, carry.state, data, 0, 1)
    order = placed(jax.eval_shape(program.order, numbers, 0), "run")
    return _taken(program.advance, carry, placed(numbers, "run"), order, data, 0, 1)


def _taken(function: Any, *args: Any) -> int:
    found = function.lower(*args).compile().memory_analysis()
    if found is None:  # a backend that does not say
        return 0
    sizes = ("argument", "output", "temp", "generated_code")
    taken = sum(getattr(found, f"{name}_size_in_bytes") for name in sizes)
    return taken - found.alias_size_in_bytes


def plan(
    what: str,
    run: Run,
    problem: Problem,
    runs: int,
    examples: int,
    at_once: int | None = None,
    training: bool = True,
) -> tuple[int, Mesh]:
    """`sharding.plan` of `runs` runs like `run`, and fewer at once where not all of them fit.

    `at_once` is the user's own number, which is taken even if it leaves no reserve; of several
    processes it is all that counts. Raises
    `OutOfMemory` about `what` for more than there is: XLA may wait for ever for it on a CPU.
    """
    width, mesh = sharding.plan(runs, at_once)
    whole = total()
    # What several processes run, all compile together: XLA may share that work out among them.
    if whole is None or mesh.is_multi_process:
        return width, mesh
    cpu = jax.devices()[0].platform == "cpu"
    like = step.static(run)

    def taken(width: int, mesh: Mesh) -> int:
        kinds = (True, False) if training else (False,)
        return max(need(like, problem, mesh, width, examples, kind) for kind in kinds)

    while (asked := taken(width, mesh)) > (free := room(mesh.size) or 0):
        if width == 1 or at_once is not None:
            break
        lanes = width // mesh.shape["run"]
        if lanes > 1:  # each takes the same, and the data are there once
            one = taken(*sharding.plan(runs, mesh.shape["run"]))
            each = max(1, (asked - one) // (lanes - 1))
            fewer = mesh.shape["run"] * min(lanes - 1, max(1, (free - one) // each + 1))
        elif cpu:
            fewer = min(width - 1, max(1, (room(1) or 0) // asked))
        else:  # the devices set free split the batch
            fewer = width // 2
        width, mesh = sharding.plan(runs, fewer)
    asked *= mesh.size if cpu else 1
    if asked > whole:
        raise OutOfMemory(_words(what, run, asked))
    return width, mesh


def largest(need: Callable[[int], float], room: float, most: int) -> int:
    """The largest power of two up to `most` with need(size) <= room; 0 where there is none.

    Memory is about affine in the size: the two largest sizes known predict the one to look at next,
    so a handful of looks is enough. An infinite need is one that could not be told.
    """
    fits, bad = -1, most.bit_length()  # exponents: the largest that fits, the least that does not
    known: dict[int, float] = {}
    for exponent in sorted({min(4, bad - 1), min(6, bad - 1)}):
        known[2**exponent] = need(2**exponent)
        if known[2**exponent] > room:
            bad = exponent
            break
        fits = exponent
    while bad - fits > 1:
        finite = sorted((size, taken) for size, taken in known.items() if taken < math.inf)[-2:]
        if len(finite) == 2:
            (a, low), (b, high) = finite
            size = a + (room - low) / max((high - low) / (b - a), 1e-9)
            guess = math.floor(math.log2(size)) if size >= 1 else -1
        else:
            guess = (fits + bad) // 2
        if guess <= fits and fits >= 0:
            break
        guess = min(max(guess, fits + 1), bad - 1)
        known[2**guess] = need(2**guess)
        if known[2**guess] <= room:
            fits = guess
        else:
            bad = guess
    return 2**fits if fits >= 0 else 0


@contextlib.contextmanager
def explained(what: str, run: Run) -> Iterator[None]:
    """Within, a device or a machine that runs out of memory raises `OutOfMemory` about `what`."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not exhausted(error):
            raise
        number = re.search(r"(\d+) bytes", str(error))
        asked = int(number[1]) if number else None
        raise OutOfMemory(_words(what, run, asked, str(error))) from error


def exhausted(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def size(count: float) -> str:
    """So many bytes, in words."""
    return f"{count / 2**30:.4g} GiB" if count >= 2**27 else f"{count / 2**20:.3g} MiB"


def _words(what: str, run: Run, asked: int | None, said: str = "") -> str:
    whole = total()
    has = f" of {size(whole)}" if whole else ""
    wanted = f"asked for {size(asked)}{has}" if asked else (said.splitlines() or ["no more"])[0]
    fixes = [f"--set train.batch_size=auto or a number below {run.train.batch_size}"]
    parts = 2 * run.train.accumulate
    if run.train.batch_size != "auto" and run.train.batch_size % parts == 0:
        fixes.append(f"--set train.accumulate={parts}, the batch in parts")
    fixes.append("--at-once 1")
    module = models.from_config(run.model, classes=10)
    if getattr(module, "remat", None) is False:
        fixes.append("--set model.remat=true")
    return (
        f"{what}: the device's memory is too small: {wanted}. Less is needed with"
        f" {', or '.join(fixes)}. Nothing recorded is lost."
    )


def _host() -> int | None:
    """The machine's memory, or the least that a control group above this process allows."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None
    for file in _groups():
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
            whole = min(whole, int(file.read_text()))
    return whole


def _groups() -> list[Path]:
    """Files of limits: of cgroup v1 and v2, of this process's own group and those around it."""
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            root = Path("/sys/fs/cgroup", "memory" if "memory" in controllers.split(",") else "")
            if controllers and "memory" not in controllers.split(","):
                continue
            own = root / path.lstrip("/")
            for group in (own, *own.parents):
                if group == root or root in group.parents:
                    found += [group / "memory.max", group / "memory.limit_in_bytes"]
    return found
