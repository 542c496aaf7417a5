"""How long does an exported net take for a picture, as C and in onnxruntime?

    python benchmarks/export_speed.py            # a table
    python benchmarks/export_speed.py --write    # and a record in benchmarks/records/

One picture a call, one thread, drawn weights: what `launch.py export --to c` and `--to onnx` write
of a net. The C is compiled by gcc -O3, for any processor of its kind and for this one
(-march=native); neither may change what is computed, so no -ffast-math. The contestants take turns,
a block of calls at a time. Needs gcc and the extra `test`; nothing else should be running.
"""

import argparse
import ctypes
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contest
import numpy as np

QUESTION = "How long does an exported net take for a picture, as C and in onnxruntime?"
NETS = {"lenet5": 200, "resnet20": 4, "alexnet_cifar": 2}  # calls of a block
PEER = "onnxruntime"
COMPILED = {"C, -O3": [], "C, -O3 -march=native": ["-march=native"]}
Call = Callable[[np.ndarray], np.ndarray]


def contestants(name: str, folder: Path) -> tuple[dict[str, Call], tuple[int, ...]]:
    """Each takes a picture [H, W, C] float32 and gives logits; and the picture's shape."""
    import jax
    import jax.numpy as jnp
    import onnxruntime

    from jaxcnn import models
    from jaxcnn.export import graph, to_c, to_onnx

    model, image = models.create_model(name), models.MODELS[name].image
    x = jnp.zeros((1, *image))
    variables = jax.jit(lambda: model.init(jax.random.key(0), x, train=False))()
    made = graph.read(lambda x: model.apply(variables, x / 255, train=False)[0], image)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = to_onnx.model(made, name).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found: dict[str, Call] = {PEER: lambda one: session.run(None, {"pixels": one[None]})[0][0]}

    for text, ending in zip(to_c.sources(made, name, name), ("c", "h"), strict=True):
        (folder / f"{name}.{ending}").write_text(text)
    header = (folder / f"{name}.h").read_text()
    work = np.zeros(int(header.partition("_WORK ")[2].split()[0]), np.float32)
    for i, (who, more) in enumerate(COMPILED.items()):
        library = folder / f"{name}{i}.so"
        sources = [str(folder / f"{name}.c"), "-o", str(library), "-lm"]
        subprocess.run(["gcc", "-std=c99", "-O3", *more, "-shared", "-fPIC", *sources], check=True)
        found[who] = _c(library, to_c.identifier(name), made.shape, work)
    return found, image


def _c(library: Path, name: str, shape: tuple[int, ...], work: np.ndarray) -> Call:
    call = getattr(ctypes.CDLL(str(library)), name)
    pointer, out = ctypes.POINTER(ctypes.c_float), np.zeros(shape, np.float32)

    def run(one: np.ndarray) -> np.ndarray:
        call(*(a.ctypes.data_as(pointer) for a in (one, out, work)))
        return out

    return run


def measure(name: str, repeats: int) -> dict[str, list[float]]:
    """Milliseconds a picture, of each block of calls."""
    with tempfile.TemporaryDirectory() as folder:
        calls, image = contestants(name, Path(folder))
        one = np.random.default_rng(0).integers(0, 256, image).astype(np.float32)
        wanted = calls[PEER](one).copy()
        for who, call in calls.items():
            np.testing.assert_allclose(call(one), wanted, rtol=1e-3, atol=1e-4, err_msg=who)
        found: dict[str, list[float]] = {who: [] for who in calls}
        for _ in range(repeats + 1):
            for who, call in calls.items():
                start = time.perf_counter()
                for _ in range(NETS[name]):
                    call(one)
                found[who].append(1e3 * (time.perf_counter() - start) / NETS[name])
        return {who: times[1:] for who, times in found.items()}  # the first warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--repeats", type=int, default=15, help="blocks of each contestant")
    parser.add_argument("--write", action="store_true", help="a record in benchmarks/records/")
    options = parser.parse_args()
    busy = contest.load()
    times = {name: measure(name, options.repeats) for name in NETS}
    nets: dict[str, Any] = {}
    for name, by in times.items():
        ratios = {f"{who} / {PEER}": contest.ratio(by[who], by[PEER]) for who in COMPILED}
        nets[name] = {
            "ms_per_picture": {who: round(statistics.median(t), 4) for who, t in by.items()},
            "ratios": ratios,
        }
        print(name, nets[name]["ms_per_picture"], {k: r["median"] for k, r in ratios.items()})
    if options.write:
        import onnxruntime

        origin = contest.origin({"JAX_PLATFORMS": "cpu"})
        settings = {"repeats": options.repeats, "load_before": busy}
        settings |= {"onnxruntime": onnxruntime.__version__, "gcc": _gcc()}
        record = {"question": QUESTION, **origin, "settings": settings, "nets": nets}
        contest.write("export_speed", contest.machine(origin["device"]), record)


def _gcc() -> str:
    done = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
