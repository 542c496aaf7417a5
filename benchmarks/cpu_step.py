"""How long is a training step of LeNet-5 on this CPU, beside PyTorch's?

    python benchmarks/cpu_step.py                # a table
    python benchmarks/cpu_step.py --write        # and a record in benchmarks/records/

Both train the notes' LeNet-5 with ReLU and max pooling (61,706 parameters) in float32, batch 128,
by SGD with momentum 0.9, on 60,000 random pictures of 28x28 bytes that stay in memory and are
gathered and normalised in each step. Ours is the project's own program, with its metrics and its
shuffling. PyTorch is eager and channels_last, with one thread and with a thread a core: the faster
of the two counts.

Each contestant is a process of its own; they take turns, a block of steps at a time, so that a
ratio is one of neighbours in time. Needs the extra `parity`. Nothing else should be running: other
load slows PyTorch's several threads down more than anything else here.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BATCH, EXAMPLES, COHORT = 128, 60_000, 16
QUESTION = "How long is a training step of LeNet-5 on this CPU, beside PyTorch's?"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
OURS, ALONE, TOGETHER, PLAIN = "ours", "16 runs in turn", "cohort of 16", "ours, plain lax"
TORCH = {f"PyTorch, threads: {n}": n for n in (1, CORES)}
SHORTER = {PLAIN: 6, ALONE: 2, TOGETHER: 2}  # their blocks are long: a slow step, or 16 runs

Block = Callable[[int], float]  # takes some steps of every run; seconds for a step of one run


# The contestants, each in its own process -----------------------------------------------------


def ours(runs: int, wave: int | None = None) -> tuple[Block, Callable[[], dict[str, Any]]]:
    """`runs` runs, `wave` of them at a time (None: as `sharding.plan` has it)."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    jax.config.update("jax_num_cpu_devices", CORES)
    from jaxcnn import cohorts, config, sharding, step

    changes = {"model.activation": "relu", "model.pool": "max", "data.normalize": "unit"}
    first = config.override(config.Run(), {**changes, "train.batch_size": BATCH, "optim.lr": 0.01})
    width, mesh = sharding.plan(wave or runs)
    program = cohorts.program(
        step.static(first), step.Problem((28, 28, 1), 10, EXAMPLES, 10**6), mesh
    )
    advance: Any = program.advance
    random = np.random.default_rng(0)
    data = cohorts.Resident(
        images=jnp.asarray(random.integers(0, 256, (EXAMPLES, 28, 28, 1), np.uint8)),
        labels=jnp.asarray(random.integers(0, 10, EXAMPLES, np.int32)),
        mean=jnp.zeros(1),
        std=jnp.ones(1),
    )
    data = sharding.put(mesh, data)
    seeds = [config.override(first, {"seed": i, "optim.lr": 0.01 + i / 1e4}) for i in range(runs)]
    waves = [cohorts.stack(seeds[i : i + width]) for i in range(0, runs, width)]
    values = [sharding.put(mesh, wave, "run") for wave in waves]
    carries = [program.init(v) for v in values]

    def block(steps: int) -> float:
        start = time.perf_counter()
        for i, v in enumerate(values):
            at = (jnp.int32(0), jnp.int32(0), jnp.int32(steps))
            carries[i] = jax.block_until_ready(advance(carries[i], v, data, *at))
        return (time.perf_counter() - start) / steps / runs

    def facts() -> dict[str, Any]:
        loss = [float(x) for c in carries for x in c.sums["loss"] / c.sums["count"]]
        parameters = sum(a[0].size for a in jax.tree.leaves(carries[0].state.params))
        return {
            "side_by_side": width,
            "parameters": parameters,
            "loss": loss[0],
            "finite": all(map(np.isfinite, loss)),
            "compilations": advance._cache_size(),
        }

    return block, facts


def plain() -> tuple[Block, Callable[[], dict[str, Any]]]:
    """Ours without jaxcnn/kernels.py: what Flax would do."""
    from jaxcnn import kernels

    with kernels.plain():
        found = ours(1)
        found[0](1)  # traced here
    return found


def pytorch(threads: int) -> tuple[Block, Callable[[], dict[str, Any]]]:
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net: Any = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    net = net.to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (EXAMPLES, 1, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (EXAMPLES,))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    last = torch.zeros(())

    def block(steps: int) -> float:
        nonlocal last
        start = time.perf_counter()
        order = torch.randperm(EXAMPLES)
        for i in range(steps):
            rows = order[i * BATCH : (i + 1) * BATCH]
            x = images[rows].float().div_(255).to(memory_format=torch.channels_last)
            optimizer.zero_grad()
            last = nn.functional.cross_entropy(net(x), labels[rows])
            last.backward()
            optimizer.step()
        return (time.perf_counter() - start) / steps

    def facts() -> dict[str, Any]:
        parameters = sum(p.numel() for p in net.parameters())
        return {"parameters": parameters, "loss": last.item(), "torch": torch.__version__}

    return block, facts


CONTESTANTS: dict[str, Callable[[], tuple[Block, Callable[[], dict[str, Any]]]]] = {
    OURS: lambda: ours(1),
    PLAIN: plain,
    ALONE: lambda: ours(COHORT, 1),
    TOGETHER: lambda: ours(COHORT),
    **{name: lambda n=n: pytorch(n) for name, n in TORCH.items()},
}


def work(name: str) -> None:
    """Answers a line of standard input: a number of steps by seconds a step, else by facts."""
    block, facts = CONTESTANTS[name]()
    for _ in range(2):
        block(5)  # compiled and warm
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(block(int(line)) if line.strip() else facts()), flush=True)


# The contest ----------------------------------------------------------------------------------


@contextmanager
def contestant(name: str) -> Iterator[Callable[[object], Any]]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, __file__, "--work", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin and process.stdout
    inlet, outlet = process.stdin, process.stdout

    def ask(question: object) -> Any:
        print(question, file=inlet, flush=True)
        return json.loads(outlet.readline())

    if outlet.readline().strip() != "ready":
        sys.exit(f"{name}: did not start")
    yield ask
    inlet.close()
    process.wait()


def measure(repeats: int, steps: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds a step of every block, and facts, by contestant; one process at a time is at work."""
    with ExitStack() as stack:
        asks = {name: stack.enter_context(contestant(name)) for name in CONTESTANTS}
        seconds: dict[str, list[float]] = {name: [] for name in asks}
        for _ in range(repeats):
            for name, ask in asks.items():
                seconds[name].append(ask(max(1, steps // SHORTER.get(name, 1))))
        return seconds, {name: ask("") for name, ask in asks.items()}


def ratio(above: list[float], below: list[float]) -> dict[str, float]:
    """Of neighbours in time: median and quartiles."""
    low, middle, high = statistics.quantiles(
        [a / b for a, b in zip(above, below, strict=True)], n=4, method="inclusive"
    )
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--repeats", type=int, default=15, help="blocks of each contestant")
    parser.add_argument("--steps", type=int, default=60, help="steps of a block")
    parser.add_argument("--write", action="store_true", help="a record in benchmarks/records/")
    parser.add_argument("--work", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work)
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"Warning: the load before the start is {busy:.1f}; an idle machine gives the truth.")
    seconds, facts = measure(options.repeats, options.steps)
    median = {name: statistics.median(s) for name, s in seconds.items()}
    peer = min(TORCH, key=lambda name: median[name])
    ratios = {
        "ours / PyTorch": ratio(seconds[OURS], seconds[peer]),
        "plain lax / PyTorch": ratio(seconds[PLAIN], seconds[peer]),
        "cohort of 16 / 16 runs in turn": ratio(seconds[TOGETHER], seconds[ALONE]),
    }
    show(median, seconds, ratios, peer)
    if options.write:
        settings = {"batch": BATCH, "repeats": options.repeats, "steps": options.steps}
        write(settings | {"load_before": busy, "peer": peer}, median, seconds, ratios, facts)
    return None


def show(median: Any, seconds: Any, ratios: Any, peer: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    times = Table("contestant", "ms a run-step (median)", "fastest block")
    for name, s in seconds.items():
        mark = " (counts)" if name == peer else ""
        times.add_row(name + mark, f"{median[name] * 1e3:.2f}", f"{min(s) * 1e3:.2f}")
    table = Table("ratio", "median", "middle half")
    for name, r in ratios.items():
        table.add_row(name, f"{r['median']:.2f}", f"{r['low']:.2f} to {r['high']:.2f}")
    console.print(times, table)


def write(settings: Any, median: Any, seconds: Any, ratios: Any, facts: Any) -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"
    from jaxcnn import provenance

    origin = provenance.collect()
    machine = f"{origin['device']['cpu'] or platform.machine()} {CORES} cores"
    slug = re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
    record = {
        "question": QUESTION,
        **origin,
        "settings": settings,
        "ms_per_run_step": {name: round(m * 1e3, 3) for name, m in median.items()},
        "fastest_block_ms": {name: round(min(s) * 1e3, 3) for name, s in seconds.items()},
        "ratios": ratios,
        "facts": facts,
    }
    path = ROOT / "benchmarks" / "records" / f"cpu_step-{slug}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"Written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
