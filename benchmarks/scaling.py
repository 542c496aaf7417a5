"""How do time and memory grow with runs side by side, batch, depth and the size of the data set?

    python benchmarks/scaling.py             # tables, in some minutes
    python benchmarks/scaling.py --write     # and a record in benchmarks/records/
    python benchmarks/scaling.py --toy       # that it runs, in some seconds

The project's own programs, in float32, on random pictures of bytes that stay on the device. Each
point is a process of its own, so that its largest resident memory is its own. They share a folder
of compiled programs that starts empty: a program that an earlier point compiled is read from it
(more runs than devices need no new one), so `compile_s` means compiling only at the first.

The memory of the program is what XLA's buffer assignment says it needs, arguments and temporaries,
times the devices that it runs on. Nothing else should be running.
"""

import argparse
import functools
import sys
import tempfile
import time
from contextlib import ExitStack, nullcontext
from typing import Any, NamedTuple

import contest
from contest import Failed, Worker
from cpu_step import NETS

QUESTION = "How do time and memory grow with runs, batch, depth and the size of the data set?"
BLOCKS = 5


class Point(NamedTuple):
    net: str = "lenet5"
    runs: int = 1
    batch: int = 128
    examples: int = 2048
    timed: bool = True  # False: compiled alone
    block_s: float = 0.3  # at least


Series = dict[str, dict[int, Point]]  # net -> where along the axis -> what is measured there

PANELS: dict[str, Series] = {
    "runs": {"lenet5": {n: Point(runs=n) for n in (1, 2, 4, 8, 16)}},
    "batch": {
        "lenet5": {n: Point(batch=n) for n in (16, 64, 128, 256, 1024)},
        "resnet20": {n: Point("resnet20", batch=n) for n in (16, 64, 256, 1024)},
    },
    "depth": {
        "resnet": {n: Point(f"resnet{n}", batch=64, timed=n < 110) for n in (20, 32, 44, 56, 110)}
    },
    "data": {"lenet5": {n: Point(examples=n) for n in (1000, 4000, 16_000, 60_000)}},
}
SMALL = Point(batch=4, examples=64, block_s=0.0)
TOY: dict[str, Series] = {
    "runs": {"lenet5": {1: SMALL, 2: SMALL._replace(runs=2)}},
    "batch": {"lenet5": {4: SMALL}},
    "depth": {"lenet5": {5: SMALL, 6: SMALL._replace(timed=False)}},
    "data": {"lenet5": {64: SMALL}},
}


def measure(
    net: str, runs: int, batch: int, examples: int, timed: bool, block_s: float
) -> dict[str, Any]:
    """A point's figures. A step is one of all runs, and so is the making of an epoch's order."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxcnn import backend, cohorts, config, nets, sharding, step

    backend.set_up()
    image = (28, 28, 1) if net == "lenet5" else (32, 32, 3)
    changes = {"model.name": net, "data.normalize": "unit", "train.batch_size": batch}
    changes |= NETS[net].changes if net in NETS else {}
    first = config.override(config.Run(), changes)
    width, mesh = sharding.plan(runs)
    program = cohorts.program(step.static(first), nets.Problem(image, 10, examples, 10**6), mesh)
    random = np.random.default_rng(0)
    data = cohorts.Resident(
        images=jnp.asarray(random.integers(0, 256, (examples, *image), np.uint8)),
        labels=jnp.asarray(random.integers(0, 10, examples, np.int32)),
        mean=jnp.zeros(image[-1]),
        std=jnp.ones(image[-1]),
        covariance=jnp.eye(image[-1]),
    )
    data = sharding.put(mesh, data)
    different = [config.override(first, {"seed": i, "optim.lr": 0.01}) for i in range(runs)]
    waves = [cohorts.stack(different[i : i + width]) for i in range(0, runs, width)]
    values = [sharding.put(mesh, wave, "run") for wave in waves]
    make = (lambda f, *a: f(*a)) if timed else jax.eval_shape
    carries: list[Any] = [make(program.init, v) for v in values]
    orders = [make(program.order, v, np.int32(0)) for v in values]

    def arguments(i: int, steps: int) -> tuple[Any, ...]:
        return carries[i], values[i], orders[i], data, jnp.int32(0), jnp.int32(steps)

    def advance(steps: int) -> float:
        start = time.perf_counter()
        for i in range(len(waves)):
            carries[i] = jax.block_until_ready(compiled(*arguments(i, steps)))
        return time.perf_counter() - start

    def order() -> float:
        start = time.perf_counter()
        for v in values:
            jax.block_until_ready(program.order(v, np.int32(1)))
        return time.perf_counter() - start

    def block(steps: int) -> float:
        took, done = 0.0, 0
        while not done or took < block_s:
            took += advance(steps)
            done += steps
        return took / done

    start = time.perf_counter()
    lowered = program.advance.lower(*arguments(0, 1))  # type: ignore[attr-defined]
    compiled = lowered.compile()
    compiling = time.perf_counter() - start
    needs = compiled.memory_analysis()
    found = {
        "side_by_side": width,
        "compile_s": round(compiling, 2),
        "argument_mb": _mb(needs.argument_size_in_bytes * mesh.size),
        "program_mb": _mb((needs.argument_size_in_bytes + needs.temp_size_in_bytes) * mesh.size),
        "data_mb": _mb(data.images.nbytes + data.labels.nbytes),
    }
    if timed:
        once = min(advance(1) for _ in range(2))
        steps = max(1, min(examples // batch, round(block_s / once)))
        found["ms_per_step"] = contest.spread([block(steps) * 1e3 for _ in range(BLOCKS)])
        found["order_ms"] = contest.spread([order() * 1e3 for _ in range(BLOCKS)])
        losses = [c.sums["loss"] / c.sums["count"] for c in carries]
        found["finite"] = all(bool(jnp.isfinite(loss).all()) for loss in losses)
    return found | {"resident_mb": _resident()}


def _mb(size: int) -> float:
    return round(size / 1e6, 2)


def _resident() -> float | None:
    """The most that this process has held in memory; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _mb(most if sys.platform == "darwin" else most * 1024)


ONE_CPU = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}


# The points -----------------------------------------------------------------------------------


def collect(panels: dict[str, Series], toy: bool) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """panel -> net -> the figures of each point; a point of two panels is measured once, and all
    of a toy's by one process.
    """
    points = dict.fromkeys(p for s in panels.values() for by in s.values() for p in by.values())
    known: dict[Point, dict[str, Any]] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        environment = {"JAX_COMPILATION_CACHE_DIR": folder, **(ONE_CPU if toy else {})}
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
        start = functools.partial(Worker, "ours", __file__, ["--work"], environment)
        shared = stack.enter_context(start()) if toy else None
        for point in points:
            with nullcontext(shared) if shared else start() as worker:
                try:
                    known[point] = worker.ask("measure", 200, **point._asdict())
                except Failed as error:
                    known[point] = {"failed": str(error)}
            print(f"{point.net}, {point[1:]}: {known[point]}", flush=True)
    return {
        panel: {
            net: [{"at": at, **known[point]} for at, point in by.items()]
            for net, by in series.items()
        }
        for panel, series in panels.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--toy", action="store_true", help="small, on a CPU: that it runs")
    parser.add_argument("--write", action="store_true", help="a record in benchmarks/records/")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return contest.serve({"measure": measure})
    toy = options.toy
    busy = contest.load()
    origin = contest.origin(ONE_CPU if toy else {})
    found = collect(TOY if toy else PANELS, toy)
    show(found)
    if options.write:
        settings = {"usual": Point()._asdict(), "blocks": BLOCKS, "load_before": busy}
        record = {"question": QUESTION, "toy": toy, **origin, "settings": settings, "points": found}
        words = [*(["toy"] if toy else []), contest.machine(origin["device"])]
        contest.write("scaling", " ".join(words), record)
    return None


def show(found: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    def words(spread: dict[str, float] | None) -> str:
        return "" if spread is None else f"{spread['median']:,.2f}"

    console = Console(highlight=False)
    for panel, series in found.items():
        table = Table(
            *("net", panel, "step of all runs, ms", "epoch's order, ms", "compiling, s"),
            *("program, MB", "data, MB", "resident, MB"),
        )
        for net, points in series.items():
            for point in points:
                where = (net, f"{point['at']:,}")
                if "failed" in point:
                    table.add_row(*where, point["failed"])
                    continue
                table.add_row(
                    *(*where, words(point.get("ms_per_step")), words(point.get("order_ms"))),
                    *(f"{point['compile_s']:.1f}", f"{point['program_mb']:,.1f}"),
                    *(f"{point['data_mb']:,.1f}", f"{point['resident_mb'] or 0:,.0f}"),
                )
        console.print(table)


if __name__ == "__main__":
    main()
