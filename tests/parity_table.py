"""Our models beside their PyTorch twins, with the same weights: `python tests/parity_table.py`.

Weights and statistics are random, carried over by `jaxcnn.weights`. Errors are the largest
difference over the largest value: of the logits (in training of the side heads' too), and of the
gradients of a random sum of these by the picture and by the first layer's kernel.

In float32 a unit within rounding of a ReLU's corner, or two of a pooling's window, may go either
way, and a gradient through it differs by per cents. Where one differs, float64 decides: there
rounding is too small for that, and what is wrong stays wrong.
"""

import contextlib
import importlib.util
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_nets as twins
from torch import nn

from jaxcnn import kernels, models, weights
from jaxcnn.models import lenet

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("JAXCNN_TEST_DATA", ROOT.parent / "shared" / "data"))
CIFAR_WEIGHTS = SHARED / "weights" / "cifar10_resnet20_fp32.npz"

HEAD, CLASSES = (64, 48), 10
SMALL = {"head": HEAD, "classes": CLASSES, "dropout": 0.0}
HALF = (32, 64, 128, 256)


class Case(NamedTuple):
    model: str
    fields: dict[str, Any]
    image: tuple[int, int, int]
    twin: Callable[[], nn.Module]
    trust: bool = False  # names that stand for another net: the paper's strides, appended zeros
    train: bool = False  # batch statistics, side heads
    keras: str | None = None
    plain: bool = False  # `lax` alone in place of the CPU's kernels
    gradients: str = "float32"
    batch: int = 2


class Errors(NamedTuple):
    logits: float
    picture: float = math.inf
    kernel: float = math.inf
    dtype: str = ""  # of the gradients


def _resnet(blocks: tuple[int, ...], *, widths: tuple[int, ...], **fields: Any) -> Any:
    return lambda: twins.ResNet(blocks, widths, CLASSES, **fields)


def _cifar(blocks: int, shortcut: str | None, zeros_at: str = "end") -> Any:
    fields = {"shortcut": shortcut, "zeros_at": zeros_at, "cifar": True}
    return _resnet((blocks,) * 3, widths=(16, 32, 64), **fields)


FULL = (64, 128, 256, 512)
TEN, SCAN = {"classes": CLASSES}, {"classes": CLASSES, "widths": HALF, "scan": True}
DEEP = {101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BOTTLENECK = {"bottleneck": True, "stride_at": "1x1"}
PHOTO, SMALL_PHOTO, CIFAR = (224, 224, 3), (64, 64, 3), (32, 32, 3)

CASES = {
    "alexnet": Case("alexnet", SMALL, (131, 131, 3), lambda: twins.alexnet(HEAD, CLASSES, 3)),
    "alexnet, plain": Case(
        "alexnet", SMALL, (131, 131, 3), lambda: twins.alexnet(HEAD, CLASSES, 3), plain=True
    ),
    "alexnet_owt": Case(
        "alexnet_owt", SMALL, (127, 127, 3), lambda: twins.alexnet_owt(HEAD, CLASSES, 3)
    ),
    "zfnet": Case("zfnet", SMALL, (128, 128, 3), lambda: twins.zfnet(HEAD, CLASSES, 3)),
    **{
        name: Case(
            name, SMALL, SMALL_PHOTO, lambda d=depth, b=bn: twins.vgg(d, b, HEAD, CLASSES, 2)
        )
        for name, depth, bn in (
            *(("vgg11", 11, False), ("vgg11_bn", 11, True), ("vgg13", 13, False)),
            *(("vgg16", 16, False), ("vgg16_c", "16C", False), ("vgg19_bn", 19, True)),
        )
    },
    "googlenet, training": Case(
        "googlenet",
        {**TEN, "dropout": 0.0},
        PHOTO,
        lambda: twins.GoogLeNet(False, CLASSES),
        trust=True,
        train=True,
        gradients="float64",
        batch=1,
    ),
    "googlenet_bn": Case(
        "googlenet_bn",
        {**TEN, "transform_input": True},
        SMALL_PHOTO,
        lambda: twins.GoogLeNet(True, CLASSES, transform_input=True),
        gradients="float64",
    ),
    "googlenet_bn, training": Case(
        "googlenet_bn",
        {**TEN, "dropout": 0.0},
        (80, 80, 3),  # maps of 5x5 before the side heads' 4x4 cells
        lambda: twins.GoogLeNet(True, CLASSES),
        trust=True,
        train=True,
        gradients="float64",
    ),
    "resnet18": Case("resnet18", TEN, SMALL_PHOTO, _resnet((2, 2, 2, 2), widths=FULL)),
    "resnet34": Case("resnet34", SCAN, SMALL_PHOTO, _resnet((3, 4, 6, 3), widths=HALF)),
    "resnet50": Case(
        "resnet50", SCAN, SMALL_PHOTO, _resnet((3, 4, 6, 3), widths=HALF, **BOTTLENECK), trust=True
    ),
    "resnet50_v1.5": Case(
        "resnet50_v1.5", TEN, SMALL_PHOTO, _resnet((3, 4, 6, 3), widths=FULL, bottleneck=True)
    ),
    "resnet101": Case(
        "resnet101", SCAN, SMALL_PHOTO, _resnet(DEEP[101], widths=HALF, **BOTTLENECK), trust=True
    ),
    "resnet152_v1.5": Case(
        "resnet152_v1.5",
        SCAN,
        SMALL_PHOTO,
        _resnet(DEEP[152], widths=HALF, bottleneck=True),
        gradients="float64",
    ),
    "resnet50_keras, old names": Case(
        "resnet50_keras",
        SCAN,
        SMALL_PHOTO,
        _resnet((3, 4, 6, 3), widths=HALF, **BOTTLENECK, keras=True),
        keras="old",
    ),
    "plain18": Case(
        "plain18", SCAN, SMALL_PHOTO, _resnet((2, 2, 2, 2), widths=HALF, shortcut=None)
    ),
    "plain34": Case(
        "plain34", SCAN, SMALL_PHOTO, _resnet((3, 4, 6, 3), widths=HALF, shortcut=None)
    ),
    "resnet20, zeros at both": Case(
        "resnet20", {"zeros_at": "both"}, CIFAR, _cifar(3, "A", "both")
    ),
    "resnet20, zeros at end": Case("resnet20", {}, CIFAR, _cifar(3, "A"), trust=True),
    "resnet20, option B": Case("resnet20", {"shortcut": "B"}, CIFAR, _cifar(3, "B")),
    "resnet20, training": Case(
        "resnet20", {"zeros_at": "both"}, CIFAR, _cifar(3, "A", "both"), train=True, batch=4
    ),
    "resnet56": Case("resnet56", {"zeros_at": "both", "scan": True}, CIFAR, _cifar(9, "A", "both")),
    "plain20": Case("plain20", {}, CIFAR, _cifar(3, None), trust=True),
    "lenet5": Case("lenet5", {}, (28, 28, 1), twins.LeNet),
    "lenet5_1998": Case(
        "lenet5_1998",
        {},
        (32, 32, 1),
        lambda: twins.LeNet(
            lenet.C3_MAPS, torch.from_numpy(np.array(lenet.codes())), twins.scaled_tanh
        ),
    ),
    "mlp": Case(
        "mlp", {}, (28, 28, 1), lambda: twins.MLP((784, 300, 100, 10), twins.scaled_tanh, False)
    ),
}


def error(ours: Any, theirs: Any) -> float:
    """The largest difference over the largest value."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape and np.abs(theirs).max() > 0
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def variables(case: Case, net: nn.Module, folder: Path) -> tuple[Any, Any]:
    """Our model of a case, and its variables from its twin's state."""
    model = models.create_model(case.model, **case.fields)
    state = dict(net.state_dict())
    if case.keras is not None:
        state = twins.keras_names(state, old=case.keras == "old")
    path = folder / "weights.npz"
    np.savez(path, allow_pickle=False, **{name: t.numpy() for name, t in state.items()})
    loaded = weights.load(path, model, image=case.image, trust=case.trust)
    assert loaded.left == ()
    return model, loaded.variables


def compare(case: Case, folder: Path, *, gradients: bool = True) -> Errors:
    """Logits in float32; gradients too, but in float64 where float32 is known not to decide, or
    does not.
    """
    single = gradients and case.gradients == "float32"
    found = _compare(case, folder, np.float32, gradients=single)
    if not gradients or max(found.picture, found.kernel) < 1e-3:
        return found
    with jax.enable_x64(True):
        exact = _compare(case, folder, np.float64, gradients=True)
    return exact._replace(logits=found.logits)


def _compare(case: Case, folder: Path, dtype: Any, *, gradients: bool) -> Errors:
    case = case._replace(fields={**case.fields, "dtype": dtype})
    net = twins.randomised(case.twin()).train(case.train)
    model, ours = variables(case, net, folder)
    ours = jax.tree.map(lambda a: a.astype(dtype), ours)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((case.batch, *case.image), np.float32).astype(dtype)

    def outputs(params: Any, x: jax.Array) -> tuple[jax.Array, ...]:
        mutable = ["batch_stats"] if case.train else []
        (logits, extras), _ = model.apply(
            {**ours, "params": params}, x, train=case.train, mutable=mutable
        )
        return logits, *(extras[name] for name in sorted(extras))

    factors = [
        rng.standard_normal(a.shape).astype(dtype)
        for a in jax.eval_shape(outputs, ours["params"], x)
    ]

    def loss(params: Any, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        out = outputs(params, x)
        return sum(jnp.sum(a * r) for a, r in zip(out, factors, strict=True)), out

    f = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True) if gradients else loss
    with kernels.plain() if case.plain else contextlib.nullcontext():
        traced = jax.jit(f).lower(ours["params"], x)
    # Most of the time goes into compiling: XLA is spared what makes no other numbers.
    quick = {"xla_backend_optimization_level": "0"}
    out = traced.compile(compiler_options=quick)(ours["params"], x)

    picture = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    theirs = net.to(picture.dtype)(picture)
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    logits = out[0][1] if gradients else out[1]
    worst = max(error(a, b.detach()) for a, b in zip(logits, theirs, strict=True))
    if not gradients:
        return Errors(worst)
    sum((a * torch.from_numpy(r)).sum() for a, r in zip(theirs, factors, strict=True)).backward()
    by_params, by_x = out[1]
    first = next(p for p in net.parameters() if p.ndim > 1)
    name = next(n for n in ("conv1", "conv1_1", "C1", "fc1") if n in by_params)
    kernel = np.asarray(by_params[name]["kernel"])
    kernel = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
    by_x = np.asarray(by_x).transpose(0, 3, 1, 2)
    return Errors(worst, error(by_x, picture.grad), error(kernel, first.grad), str(np.dtype(dtype)))


def cifar10_test() -> tuple[np.ndarray, np.ndarray]:
    """Normalised as the weights want it."""
    spec = importlib.util.spec_from_file_location("shared_data", SHARED / "load.py")
    assert spec is not None and spec.loader is not None
    data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(data)
    sets = data.cifar10()
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return (sets["test_images"] / np.float32(255) - mean) / std, sets["test_labels"]


def cifar_logits(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ours and PyTorch's, in batches of 500."""
    model = models.create_model("resnet20", zeros_at="both")
    variables = weights.load(CIFAR_WEIGHTS, model).variables
    forward = jax.jit(lambda x: model.apply(variables, x, train=False)[0])
    net = CASES["resnet20, zeros at both"].twin().eval()
    with np.load(CIFAR_WEIGHTS) as file:
        net.load_state_dict(
            {name: torch.from_numpy(file[name]) for name in file.files}, strict=True
        )
    batches = [images[i : i + 500] for i in range(0, len(images), 500)]
    with torch.no_grad():
        theirs = [net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy() for x in batches]
    return np.concatenate([forward(x) for x in batches]), np.concatenate(theirs)


def main() -> None:
    print("| model | logits | gradient, picture | gradient, first kernel | of gradients | s |")
    print(f"|{'---|' * 6}")
    for name in sys.argv[1:] or list(CASES):
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            e = compare(CASES[name], Path(folder))
        seconds = time.monotonic() - start
        figures = " | ".join(f"{v:.1e}" for v in e[:3])
        print(f"| {name} | {figures} | {e.dtype} | {seconds:.1f} |", flush=True)
    if CIFAR_WEIGHTS.is_file():
        images, labels = cifar10_test()
        ours, theirs = ((a.argmax(-1) != labels).sum() for a in cifar_logits(images))
        print(f"\nThe public CIFAR ResNet-20, wrong of 10,000: {ours}, in PyTorch {theirs}.")


if __name__ == "__main__":
    main()
