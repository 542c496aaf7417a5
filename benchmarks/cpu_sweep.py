"""How long does a whole sweep of 16 LeNet-5 runs take on this CPU, beside PyTorch's?

    python benchmarks/cpu_sweep.py             # a table
    python benchmarks/cpu_sweep.py --write     # and a record in benchmarks/records/

Whole processes from start to exit: imports, data, compiling, 16 seeds of training on MNIST, a point
of the curve (training and validation error) each epoch, the test error, what is written. Ours is
`launch.py run`, with its checkpoints and its report: once with no compiled program kept, once with
those of the launch before. PyTorch is the best loop known for it: a process a core, each with one
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
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

QUESTION = "How long does a whole sweep of 16 LeNet-5 runs take on this CPU, beside PyTorch's?"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SEEDS, BATCH, VALIDATION, POINT = 16, 128, 2000, 2000
COLD, WARM = "ours, first launch", "ours, later launch"
APART, TOGETHER = "PyTorch, a process a core", "PyTorch, a thread a core"

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


def ours(folder: Path, epochs: float) -> None:
    path = folder / "sweep.py"
    known = {"validation": VALIDATION, "batch": BATCH, "point": POINT, "seeds": SEEDS}
    path.write_text(EXPERIMENT.format(epochs=epochs, **known))
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, str(ROOT / "launch.py"), "run", str(path), "--out", out]
        subprocess.run(command, check=True, capture_output=True, env=_environment(folder))
        done = list(Path(out).glob("sweep/*/*/test.json"))
        assert len(done) == SEEDS, f"{len(done)} of {SEEDS} runs have a test error"


def pytorch(folder: Path, epochs: float, processes: int) -> None:
    shares = [range(SEEDS)[i::processes] for i in range(processes)]
    command = [sys.executable, __file__, "--epochs", str(epochs), "--work"]
    running = [
        subprocess.Popen(
            [*command, ",".join(map(str, share)), str(CORES // processes), str(folder)],
            env=_environment(folder),
        )
        for share in shares
    ]
    assert all(process.wait() == 0 for process in running)
    assert len(list(folder.glob("torch-*.json"))) == SEEDS


def work(seeds: list[int], threads: int, folder: Path, epochs: float) -> None:
    """PyTorch's side, in its own process."""
    import numpy as np
    import torch
    from torch import nn

    from jaxcnn.data import readers

    torch.set_num_threads(threads)
    splits, _ = readers.packaged_mnist()

    def tensors(split: Any, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.from_numpy(np.ascontiguousarray(split.images[rows].transpose(0, 3, 1, 2)))
        return images, torch.from_numpy(split.labels[rows].astype(np.int64))

    train = tensors(splits["train"], slice(VALIDATION, None))
    validation, test = (
        tensors(splits["train"], slice(VALIDATION)),
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
        steps, each = round(epochs * (n // BATCH)), n // BATCH
        curve: list[Any] = []
        for step in range(steps):
            if step % each == 0:
                order = torch.randperm(n)
                curve.append((error(net, train, POINT), error(net, validation, VALIDATION)))
            rows = order[step % each * BATCH :][:BATCH]  # type: ignore[possibly-undefined]
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(prepared(train[0][rows])), train[1][rows]).backward()
            optimizer.step()
        curve.append((error(net, train, POINT), error(net, validation, VALIDATION)))
        result = {"curve": curve, "test": error(net, test, len(test[1]))}
        (folder / f"torch-{seed}.json").write_text(json.dumps(result))


def _environment(folder: Path) -> dict[str, str]:
    """Compiled programs are kept in `folder` alone."""
    clean = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    return {**clean, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(folder / "cache")}


def measure(repeats: int, epochs: float) -> dict[str, list[float]]:
    """Seconds of each whole sweep, in turn."""
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            contestants: dict[str, Callable[[], None]] = {
                COLD: lambda f=folder: ours(f, epochs),
                WARM: lambda f=folder: ours(f, epochs),
                APART: lambda f=folder: pytorch(f, epochs, CORES),
                TOGETHER: lambda f=folder: pytorch(f, epochs, 1),
            }
            for who, sweep in contestants.items():
                start = time.perf_counter()
                sweep()
                seconds.setdefault(who, []).append(time.perf_counter() - start)
                print(f"{who}: {seconds[who][-1]:.1f} s", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=1.0, help="of each run")
    parser.add_argument("--write", action="store_true", help="a record in benchmarks/records/")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        seeds, threads, folder = options.work
        work([*map(int, seeds.split(","))], int(threads), Path(folder), options.epochs)
        return
    seconds = measure(options.repeats, options.epochs)
    median = {who: statistics.median(s) for who, s in seconds.items()}
    peer = min(APART, TOGETHER, key=lambda who: median[who])
    ratios = {f"{who} / {peer}": round(median[who] / median[peer], 3) for who in (COLD, WARM)}
    for what, value in ratios.items():
        print(f"{what}: {value:.2f}")
    if options.write:
        from jaxcnn import provenance

        settings = {"seeds": SEEDS, "batch": BATCH, "epochs": options.epochs}
        record = {"question": QUESTION, **provenance.collect(), "settings": settings}
        record |= {"seconds": seconds, "ratios": ratios}
        path = ROOT / "benchmarks" / "records" / "cpu_sweep.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=2) + "\n")
        print(f"Written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
