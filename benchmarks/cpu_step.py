"""How long is a step on this CPU, beside PyTorch's?

    python benchmarks/cpu_step.py                          # LeNet-5, a table
    python benchmarks/cpu_step.py --net resnet20           # another net
    python benchmarks/cpu_step.py --net lenet5 --write     # and a record in benchmarks/records/

Both train the same net in float32 by SGD with momentum 0.9, on random pictures of bytes that stay
in memory and are gathered and normalised in each step; then both evaluate it. Ours is the project's
own program, with its metrics and its shuffling. PyTorch is channels_last: eager with one thread and
with a thread a core, and through torch.compile where there is a C++ compiler. The fastest counts.
"ours, oneDNN" is there where `python launch.py native` was run before.

| net | pictures | batch |
|---|---|---|
| lenet5, the notes' with ReLU and max pooling | 28x28x1 | 128 |
| alexnet_cifar without LRN, vgg11_cifar, resnet20 | 32x32x3 | 128, 64, 64 |

Each contestant is a process of its own; they take turns, a block of steps at a time, so that a
ratio is one of neighbours in time. Needs the extra `parity`. Nothing else should be running: other
load slows PyTorch's several threads down more than anything else here.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any, NamedTuple

import contest
from contest import CORES, Failed, Worker, ratio

EXAMPLES, EVAL_BATCH, COHORT = 25_000, 250, 16
QUESTION = "How long is a step on this CPU, beside PyTorch's?"
OURS, NATIVE, PLAIN = "ours", "ours, oneDNN", "ours, plain lax"
ALONE, TOGETHER = "16 runs in turn", "cohort of 16"
COMPILED = "PyTorch, compiled"
TORCH = {f"PyTorch, threads: {n}": n for n in (1, CORES)}
PEERS = [*TORCH, *([COMPILED] if shutil.which("g++") else [])]
SHORTER = {PLAIN: 6, ALONE: 2, TOGETHER: 2}  # their blocks are long: a slow step, or 16 runs
TASKS = ("train", "evaluate")

Block = Callable[[str, int], float]  # does steps of a task; seconds for a step of one run
Contestant = tuple[Block, Callable[[], dict[str, Any]]]


class Net(NamedTuple):
    changes: dict[str, Any]
    image: tuple[int, int, int]
    batch: int
    steps: int  # of a block


NETS = {
    "lenet5": Net({"model.pool": "max", "model.activation": "relu"}, (28, 28, 1), 128, 60),
    "alexnet_cifar": Net({"model.lrn": None}, (32, 32, 3), 128, 3),
    "vgg11_cifar": Net({}, (32, 32, 3), 64, 3),
    "resnet20": Net({}, (32, 32, 3), 64, 4),
}


# The contestants, each in its own process -----------------------------------------------------


def ours(net: Net, name: str, runs: int = 1, wave: int | None = None) -> Contestant:
    """`runs` runs, `wave` of them at a time (None: as `sharding.plan` has it)."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxcnn import backend, cohorts, config, nets, sharding, step

    backend.set_up()
    same = {"model.name": name, "data.normalize": "unit", "optim.lr": 0.01}
    same |= {"train.batch_size": net.batch}
    first = config.override(config.Run(), same | net.changes)
    width, mesh = sharding.plan(wave or runs)
    problem = nets.Problem(net.image, 10, EXAMPLES, 10**6)
    program = cohorts.program(step.static(first), problem, mesh)
    advance: Any = program.advance
    random = np.random.default_rng(0)
    data = cohorts.Resident(
        images=jnp.asarray(random.integers(0, 256, (EXAMPLES, *net.image), np.uint8)),
        labels=jnp.asarray(random.integers(0, 10, EXAMPLES, np.int32)),
        mean=jnp.zeros(net.image[-1]),
        std=jnp.ones(net.image[-1]),
        covariance=jnp.eye(net.image[-1]),
    )
    data = sharding.put(mesh, data)
    seeds = [config.override(first, {"seed": i, "optim.lr": 0.01 + i / 1e4}) for i in range(runs)]
    waves = [cohorts.stack(seeds[i : i + width]) for i in range(0, runs, width)]
    values = [sharding.put(mesh, wave, "run") for wave in waves]
    carries = [program.init(v) for v in values]
    orders = [program.order(v, 0) for v in values]  # once an epoch, as in training

    def block(task: str, steps: int) -> float:
        start = time.perf_counter()
        for i, v in enumerate(values):
            if task == "train":
                at = (jnp.int32(0), jnp.int32(steps))
                carries[i] = jax.block_until_ready(advance(carries[i], v, orders[i], data, *at))
            else:
                count = jnp.int32(steps * EVAL_BATCH)
                jax.block_until_ready(program.evaluate(carries[i].state, data, jnp.int32(0), count))
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


def plain(net: Net, name: str) -> Contestant:
    """Ours without jaxcnn/kernels.py: what Flax would do."""
    from jaxcnn import kernels

    with kernels.plain():
        found = ours(net, name)
        for task in TASKS:
            found[0](task, 1)  # traced here
    return found


def pytorch(net: Net, name: str, threads: int, compiled: bool = False) -> Contestant:
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model: Any = _twin(name).to(memory_format=torch.channels_last)
    forward = torch.compile(model) if compiled else model
    height, width, channels = net.image
    images = torch.randint(0, 256, (EXAMPLES, channels, height, width), dtype=torch.uint8)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (EXAMPLES,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    last = torch.zeros(())

    def train(rows: Any) -> None:
        nonlocal last
        x = images[rows].float().div_(255).to(memory_format=torch.channels_last)
        optimizer.zero_grad()
        last = nn.functional.cross_entropy(forward(x), labels[rows])
        last.backward()
        optimizer.step()

    def evaluate(rows: Any) -> None:
        x = images[rows].float().div_(255).to(memory_format=torch.channels_last)
        logits = forward(x)
        nn.functional.cross_entropy(logits, labels[rows], reduction="sum")
        (logits.argmax(1) != labels[rows]).sum()

    def block(task: str, steps: int) -> float:
        model.train(task == "train")
        order = torch.randperm(EXAMPLES)
        step, size = (train, net.batch) if task == "train" else (evaluate, EVAL_BATCH)
        with nullcontext() if task == "train" else torch.inference_mode():
            start = time.perf_counter()
            for i in range(steps):
                step(order[i * size : (i + 1) * size])
            return (time.perf_counter() - start) / steps

    def facts() -> dict[str, Any]:
        parameters = sum(p.numel() for p in model.parameters())
        return {"parameters": parameters, "loss": last.item(), "torch": torch.__version__}

    return block, facts


def _twin(name: str) -> Any:
    import torch_nets
    from torch import nn

    def conv(i: int, o: int, k: int, pool: bool) -> list[nn.Module]:
        """alexnet_cifar's pooling rounds up."""
        after = [nn.MaxPool2d(3, 2, ceil_mode=True)] if pool else []
        return [nn.Conv2d(i, o, k, padding=k // 2), nn.ReLU(), *after]

    if name == "lenet5":
        return nn.Sequential(
            *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
        )
    if name == "alexnet_cifar":
        return nn.Sequential(
            *(*conv(3, 64, 5, True), *conv(64, 192, 5, True), *conv(192, 384, 3, False)),
            *(*conv(384, 256, 3, False), *conv(256, 256, 3, True), nn.Flatten()),
            *(nn.Linear(4096, 512), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10)),
        )
    if name == "vgg11_cifar":
        net = torch_nets.vgg(11, True, (512,), 10, 1)
        for i, layer in enumerate(net.classifier):  # the twins of the tests drop nothing
            if isinstance(layer, nn.Dropout):
                net.classifier[i] = nn.Dropout(0.5)
        return net
    return torch_nets.ResNet((3, 3, 3), (16, 32, 64), 10, shortcut="A", cifar=True)


CONTESTANTS: dict[str, Callable[[Net, str], Contestant]] = {
    OURS: ours,
    NATIVE: ours,
    PLAIN: plain,
    ALONE: lambda net, name: ours(net, name, COHORT, 1),
    TOGETHER: lambda net, name: ours(net, name, COHORT),
    **{who: lambda net, name, n=n: pytorch(net, name, n) for who, n in TORCH.items()},
    COMPILED: lambda net, name: pytorch(net, name, CORES, compiled=True),
}


def work(who: str, name: str) -> None:
    block, facts = CONTESTANTS[who](NETS[name], name)
    for task in TASKS:
        for _ in range(2):
            block(task, 2)  # compiled and warm
    contest.serve({"block": block, "facts": facts})


# The contest ----------------------------------------------------------------------------------


def contestant(who: str, name: str) -> Worker:
    arguments = ["--work", who, "--net", name]
    environment = {"JAX_PLATFORMS": "cpu", "JAXCNN_NATIVE": "1" if who == NATIVE else "0"}
    return Worker(who, __file__, arguments, environment)


Seconds = dict[str, dict[str, list[float]]]  # task -> contestant -> a block's


def measure(name: str, repeats: int, steps: int) -> tuple[Seconds, dict[str, Any]]:
    """Seconds a step of every block, and facts, by contestant; one process at a time is at work."""
    cohort = [ALONE, TOGETHER] if name == "lenet5" else []
    # A step by plain lax takes half a minute in the larger nets.
    ours = [OURS, *([NATIVE] if built() else [])]
    names = [*ours, *([PLAIN] if name == "lenet5" else []), *cohort, *PEERS]
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for who in names:  # each is warm before the next begins
            workers[who] = stack.enter_context(contestant(who, name))
            workers[who].ask("facts")
        seconds: Seconds = {
            task: {who: [] for who in names if task == "train" or who not in cohort}
            for task in TASKS
        }
        for _ in range(repeats):
            for task, by in seconds.items():
                for who in by:
                    n = max(1, steps // SHORTER.get(who, 1))
                    by[who].append(workers[who].ask("block", task=task, steps=n))
        return seconds, {who: worker.ask("facts") for who, worker in workers.items()}


def built() -> bool:
    """Whether there are convolutions by oneDNN, as a new process sees it."""
    code = "from jaxcnn import backend, native; backend.set_up(); print(native.version())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=contest.ROOT
    )
    return done.stdout.strip() not in ("", "None")


def ratios(by: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    peer = min(PEERS, key=lambda who: statistics.median(by[who]))
    found = {
        f"{who} / {peer}": ratio(by[who], by[peer]) for who in (OURS, NATIVE, PLAIN) if who in by
    }
    if TOGETHER in by:
        found["cohort of 16 / 16 runs in turn"] = ratio(by[TOGETHER], by[ALONE])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--net", choices=NETS, default="lenet5")
    parser.add_argument("--repeats", type=int, default=9, help="blocks of each contestant")
    parser.add_argument("--steps", type=int, help="steps of a block")
    parser.add_argument("--write", action="store_true", help="a record in benchmarks/records/")
    parser.add_argument("--work", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work, options.net)
    busy = contest.load()
    steps = options.steps or NETS[options.net].steps
    try:
        seconds, facts = measure(options.net, options.repeats, steps)
    except Failed as error:
        sys.exit(str(error))
    show(options.net, seconds)
    if options.write:
        settings = {"net": options.net, **NETS[options.net]._asdict(), "repeats": options.repeats}
        write(settings | {"steps": steps, "load_before": busy}, seconds, facts)
    return None


def show(name: str, seconds: Seconds) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for task, by in seconds.items():
        times = Table(
            "contestant", "ms a run-step (median)", "fastest block", title=f"{name}, {task}"
        )
        for who, s in by.items():
            times.add_row(who, f"{statistics.median(s) * 1e3:.2f}", f"{min(s) * 1e3:.2f}")
        table = Table("ratio", "median", "middle half")
        for what, r in ratios(by).items():
            table.add_row(what, f"{r['median']:.2f}", f"{r['low']:.2f} to {r['high']:.2f}")
        console.print(times, table)


def write(settings: dict[str, Any], seconds: Seconds, facts: dict[str, Any]) -> None:
    origin = contest.origin({"JAX_PLATFORMS": "cpu"})
    tasks = {
        task: {
            "ms_per_run_step": {w: round(statistics.median(s) * 1e3, 3) for w, s in by.items()},
            "fastest_block_ms": {w: round(min(s) * 1e3, 3) for w, s in by.items()},
            "ratios": ratios(by),
        }
        for task, by in seconds.items()
    }
    record = {"question": QUESTION, **origin, "settings": settings, **tasks, "facts": facts}
    contest.write("cpu_step", f"{settings['net']} {contest.machine(origin['device'])}", record)


if __name__ == "__main__":
    main()
