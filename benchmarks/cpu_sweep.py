"""How long does a whole sweep of 16 LeNet-5 runs take on this CPU, beside PyTorch's?

    python benchmarks/cpu_sweep.py             # a table
    python benchmarks/cpu_sweep.py --write     # and a record in benchmarks/records/
    python benchmarks/cpu_sweep.py --toy       # that it runs: two seeds of some steps

Whole processes from start to exit: imports, data, compiling, 16 seeds of training on MNIST, a point
of the curve (training and validation error) each epoch, the test error, what is written. Ours is
`launch.py run`, with its checkpoints and its report: once with no compiled program kept, once with
those of the launch before; and that again with convolutions by oneDNN where `launch.py native` can
compile them. PyTorch is the best loop known for it: a process a core, each with one
thread and its share of the seeds, channels_last, data kept in memory as bytes, results as JSON; and
one process with a thread a core. The fastest of PyTorch's counts. Needs the extra `parity`; nothing
else should be running.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import contest
from contest import CORES, ROOT

QUESTION = "How long does a whole sweep of 16 LeNet-5 runs take on this CPU, beside PyTorch's?"
COLD, WARM, NATIVE = "ours, first launch", "ours, later launch", "ours, oneDNN, later launch"
APART, TOGETHER = "PyTorch, a process a core", "PyTorch, a thread a core"


class Size(NamedTuple):
    seeds: int = 16
    batch: int = 128
    validation: int = 2000
    point: int = 2000  # training examples of a point of the curve
    epochs: float = 1.0  # of each run


TOY = Size(seeds=2, validation=250, point=250, epochs=0.02)

EXPERIMENT = """
from jaxcnn.config import Data, Model, Optim, Run, Train
from jaxcnn.experiment import Experiment

EXPERIMENT = Experiment(
    claim="a sweep",
    source="a benchmark",
    base=Run(
        model=Model(name="lenet5", activation="relu", pool="max"),
        data=Data(validation_examples={validation}),
        optim=Optim(lr=0.03),
        train=Train(batch_size={batch}, epochs={epochs}, eval_train_examples={point}),
    ),
    arms={{"lenet5": {{}}}},
    seeds=range({seeds}),
    predictions=(),
)
"""


def ours(folder: Path, size: Size, native: bool = False) -> None:
    path = folder / "sweep.py"
    path.write_text(EXPERIMENT.format(**size._asdict()))
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, str(ROOT / "launch.py"), "run", str(path), "--out", out]
        environment = _environment(folder) | {"JAXCNN_NATIVE": str(int(native))}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        done = list(Path(out).glob("sweep/*/*/test.json"))
        assert len(done) == size.seeds, f"{len(done)} of {size.seeds} runs have a test error"


def pytorch(folder: Path, size: Size, processes: int) -> None:
    shares = [range(size.seeds)[i::processes] for i in range(processes)]
    command = [sys.executable, __file__, "--work", json.dumps(size)]
    running = [
        subprocess.Popen(
            [*command, ",".join(map(str, share)), str(CORES // processes), str(folder)],
            env=_environment(folder),
        )
        for share in shares
        if share
    ]
    assert all(process.wait() == 0 for process in running)
    assert len(list(folder.glob("torch-*.json"))) == size.seeds


def work(size: Size, seeds: list[int], threads: int, folder: Path) -> None:
    """PyTorch's side, in its own process."""
    import numpy as np
    import torch
    from torch import nn

    from jaxcnn.data import readers

    torch.set_num_threads(threads)
    splits, _ = readers.packaged_mnist()

    def tensors(split: Any, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.from_numpy(split.images[rows].transpose(0, 3, 1, 2).copy())
        return images, torch.from_numpy(split.labels[rows].astype(np.int64))

    train = tensors(splits["train"], slice(size.validation, None))
    validation, test = (
        tensors(splits["train"], slice(size.validation)),
        tensors(splits["test"], slice(None)),
    )
    mean = (train[0].float() / 255).mean()
    std = (train[0].float() / 255).std()

    def prepared(images: torch.Tensor) -> torch.Tensor:
        x = images.float().div_(255).sub_(mean).div_(std)
        return x.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def error(net: nn.Module, data: tuple[torch.Tensor, torch.Tensor], count: int) -> float:
        wrong = 0
        for at in range(0, count, 250):
            images, labels = data[0][at : at + 250], data[1][at : at + 250]
            wrong += int((net(prepared(images)).argmax(1) != labels).sum())
        return wrong / count

    for seed in seeds:
        torch.manual_seed(seed)
        net = nn.Sequential(
            *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
        n = len(train[1])
        steps, each = round(size.epochs * (n // size.batch)), n // size.batch
        curve: list[Any] = []
        for step in range(steps):
            if step % each == 0:
                order = torch.randperm(n)
                curve.append(
                    (error(net, train, size.point), error(net, validation, size.validation))
                )
            rows = order[step % each * size.batch :][: size.batch]  # type: ignore[possibly-undefined]
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(prepared(train[0][rows])), train[1][rows]).backward()
            optimizer.step()
        curve.append((error(net, train, size.point), error(net, validation, size.validation)))
        result = {"curve": curve, "test": error(net, test, len(test[1]))}
        (folder / f"torch-{seed}.json").write_text(json.dumps(result))


def _environment(folder: Path) -> dict[str, str]:
    """Compiled programs are kept in `folder` alone."""
    clean = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    return {**clean, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(folder / "cache")}


def compiled(folder: Path) -> bool:
    """Whether convolutions by oneDNN could be compiled for the launches of `folder`."""
    command = [sys.executable, str(ROOT / "launch.py"), "native"]
    return subprocess.run(command, capture_output=True, env=_environment(folder)).returncode == 0


def measure(repeats: int, size: Size) -> dict[str, list[float]]:
    """Seconds of each whole sweep, in turn."""
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            contestants: dict[str, Callable[[], None]] = {
                COLD: lambda f=folder: ours(f, size),
                WARM: lambda f=folder: ours(f, size),
                APART: lambda f=folder: pytorch(f, size, CORES),
                TOGETHER: lambda f=folder: pytorch(f, size, 1),
            }
            if compiled(folder):
                contestants[NATIVE] = lambda f=folder: ours(f, size, native=True)
                contestants[NATIVE]()  # its programs are kept, as those of WARM are
            for who, sweep in contestants.items():
                start = time.perf_counter()
                sweep()
                seconds.setdefault(who, []).append(time.perf_counter() - start)
                print(f"{who}: {seconds[who][-1]:.1f} s", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=Size().epochs, help="of each run")
    parser.add_argument("--toy", action="store_true", help="small, and once: that it runs")
    parser.add_argument("--write", action="store_true", help="a record in benchmarks/records/")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        size, seeds, threads, folder = options.work
        sizes = Size(*json.loads(size))
        return work(sizes, [*map(int, seeds.split(","))], int(threads), Path(folder))
    busy = contest.load()
    size = TOY if options.toy else Size(epochs=options.epochs)
    seconds = measure(1 if options.toy else options.repeats, size)
    median = {who: statistics.median(s) for who, s in seconds.items()}
    peer = min(APART, TOGETHER, key=lambda who: median[who])
    ratios = {
        f"{who} / {peer}": round(median[who] / median[peer], 3)
        for who in median
        if who.startswith("ours")
    }
    for what, value in ratios.items():
        print(f"{what}: {value:.2f}")
    if options.write:
        origin = contest.origin({"JAX_PLATFORMS": "cpu"})
        record = {"question": QUESTION, "toy": options.toy, **origin}
        record |= {"settings": {**size._asdict(), "load_before": busy}}
        record |= {"seconds": seconds, "ratios": ratios}
        words = [*(["toy"] if options.toy else []), contest.machine(origin["device"])]
        contest.write("cpu_sweep", " ".join(words), record)
    return None


if __name__ == "__main__":
    main()
