"""What does ResNet-50 on ImageNet need on a thousand accelerators? Reckoned, not run.

    python benchmarks/at_scale.py                          # the table of docs/scaling.md
    python benchmarks/at_scale.py --rate 7006 --bandwidth 12.5e9
    python benchmarks/at_scale.py --measure SHARDS         # what this machine can say of it

Every number is an option. Those that are measured are of this project's own code on one machine
and say so in docs/scaling.md; the size of the state is read off the traced program.
"""

import argparse
import dataclasses
import functools
import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PICTURES = 1_281_167  # ILSVRC 2012's training split
SIDE, CLASSES = 224, 1000
PIXELS = 256 * 256 * 3  # bytes of a picture in shards of `--form pixels`
HOURS = 3600.0


def option(default: float, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Assumptions:
    """SI units: seconds, bytes, pictures."""

    epochs: float = option(90, "He 2016; Goyal 2017")
    batch: float = option(32, "pictures a step and accelerator; 32,000 in all on 1,000: You 2017")
    rate: float = option(
        7138, "pictures/s of an accelerator: one H200, ours, bfloat16, batches of 256"
    )
    bandwidth: float = option(25e9, "bytes/s that an accelerator sends: half of 400 Gbit/s")
    per_host: float = option(8, "accelerators of a host")
    decoded: float = option(1025, "pictures/s that a core decodes and crops; measured")
    stored: float = option(23.9e3, "bytes of a stored JPEG, shorter side 256; measured")
    saving: float = option(0.174, "seconds that training waits for a save; measured")
    failing: float = option(
        54 * 24 * HOURS * 16_384 / 419,
        "seconds between failures of one accelerator with its share of host and network: 419 in 54"
        " days on 16,384 (Grattafiori 2024, section 3.3.4)",
    )
    restart: float = option(300, "seconds from a failure to the first step after it; a guess")


@functools.cache
def state() -> Any:
    """ResNet-50's State with momentum, float32, in the abstract."""
    from jaxcnn import train
    from jaxcnn.config import Model, Run, Train
    from jaxcnn.nets import Problem

    run = Run(model=Model(name="resnet50_v1.5"), train=Train(batch_size=2))
    return train.trace(run, Problem((SIDE, SIDE, 3), CLASSES, PICTURES, 1))[0]


def size(tree: Any) -> int:
    """Bytes."""
    import jax

    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def reckon(a: Assumptions, accelerators: int) -> dict[str, str]:
    """What `accelerators` need, in words."""
    gradients, checkpoint = size(state().params), size(state())
    batch = int(a.batch * accelerators)
    steps = round(a.epochs * (PICTURES // batch))
    reduced = 2 * (accelerators - 1) / accelerators * gradients / a.bandwidth
    step = a.batch / a.rate + reduced
    rate = batch / step
    seconds = steps * step
    failure = a.failing / accelerators
    interval = math.sqrt(2 * a.saving * failure)
    failures = seconds / failure
    lost = failures * (interval / 2 + a.restart) + seconds / interval * a.saving
    hosts = math.ceil(accelerators / a.per_host)
    return {
        "batch of a step": f"{batch:,}",
        "steps in all, an epoch": f"{steps:,}, {PICTURES // batch:,}",
        "learning rate by the linear rule, 0.1 for 256": f"{0.1 * batch / 256:.3g}",
        "seconds of a step": f"{step:.3g}",
        "of which summing gradients, if nothing hides it": f"{100 * reduced / step:.0f} %",
        "pictures/s": f"{rate:,.0f}",
        "whole training": _duration(seconds),
        "stored pictures read, bytes/s": f"{_bytes(rate * a.stored)}; a host"
        f" {_bytes(rate * a.stored / hosts)}",
        "cores that decode, of each host": f"{rate / a.decoded / hosts:,.0f}",
        "or, of pixels that need no decoding, bytes/s a host": _bytes(rate * PIXELS / hosts),
        "a checkpoint": _bytes(checkpoint),
        "time between failures": _duration(failure),
        "failures to be expected in a training": f"{failures:.2g}",
        "best time between checkpoints (Young 1974)": _duration(interval),
        "time lost to failures, restarts and saves": f"{100 * lost / seconds:.2g} %",
    }


def table(a: Assumptions, sizes: tuple[int, ...]) -> str:
    """As Markdown: a column a number of accelerators, then the assumptions."""
    columns = [reckon(a, size) for size in sizes]
    head = " | ".join(f"{size:,}" for size in sizes)
    lines = [f"| accelerators | {head} |", "|---" * (1 + len(sizes)) + "|"]
    lines += [f"| {name} | {' | '.join(c[name] for c in columns)} |" for name in columns[0]]
    lines += ["", "| assumed | value | of |", "|---|---|---|"]
    for f in dataclasses.fields(a):
        lines.append(f"| `--{_name(f.name)}` | {getattr(a, f.name):.4g} | {f.metadata['help']} |")
    return "\n".join(lines) + "\n"


def measure(shards: Path) -> dict[str, float]:
    """On this machine: pictures/s of a core that decodes the training split of `shards`, the bytes
    of a stored picture, and how long a save holds ResNet-50's training up.
    """
    import jax
    import numpy as np

    from jaxcnn.checkpoint import Checkpoints
    from jaxcnn.data.photos import open_split

    source = open_split(shards, "train", 256)
    count = min(len(source), 1000)
    began = time.process_time()
    for i in range(count):
        source.read(i)
    decoded = count / (time.process_time() - began)
    stored = sum(p.stat().st_size for p in shards.rglob("*.array_record")) / len(source)

    arrays = jax.tree.map(lambda a: np.ones(a.shape, a.dtype), state())
    held, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        disk = Checkpoints(Path(folder))
        for step in range(5):
            began = time.perf_counter()
            disk.save(step, arrays)
            held.append(time.perf_counter() - began)
            disk.wait()
            whole.append(time.perf_counter() - began)
        disk.close()
    found = {"decoded": decoded, "stored": stored, "saving": statistics.median(held)}
    return found | {"a save until it is on disk": statistics.median(whole)}


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def _name(text: str) -> str:
    return text.replace("_", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for f in dataclasses.fields(Assumptions):
        about = f.metadata["help"].replace("%", "%%")
        parser.add_argument(f"--{_name(f.name)}", type=float, default=f.default, help=about)
    parser.add_argument("--accelerators", type=int, nargs=3, default=(8, 64, 1000))
    parser.add_argument("--measure", type=Path, metavar="SHARDS", help="of `launch.py prepare`")
    given = vars(parser.parse_args())
    sizes, shards = tuple(given.pop("accelerators")), given.pop("measure")
    if shards is None:
        print(table(Assumptions(**given), sizes), end="")
        return
    for name, value in measure(shards).items():
        print(f"{name}: {value:.4g}")


if __name__ == "__main__":
    main()
