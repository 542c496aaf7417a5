"""Convolutions on the CPU by oneDNN, and forms of our own: optional, compiled on the spot, off
unless they are there.

`python launch.py native` compiles convolution.cc with the machine's C++ compiler into the cache
folder, against the oneDNN of the Python environment (the extra `native`; conda: `onednn`), or else
the system's (Debian and Ubuntu: `apt install libdnnl-dev`, whose oneDNN 2 takes up to 1.4 times as
long as 3). From then on `backend.set_up` loads it, and kernels.py hands it each convolution and max
pooling of float32. JAXCNN_NATIVE=0 turns it off. Which one computed stands in run.json, since their
results differ in the last bits. Its own forms, and how long they take on a Zen 4:

| file | what | of the time of |
|---|---|---|
| winograd.h | 3x3 of stride 1, maps in and out by the 16, 32 tiles and more | oneDNN: 0.5 to 1 |
| narrow.h | the gradient of pictures of up to 6 maps | oneDNN: 0.5 in LeNet-5 |
| planes.h | gray pictures to up to 8 maps | oneDNN: 0.6 and 0.8 in LeNet-5; 3x3 to 8: 1 |
| pooling.h | max pooling and its gradient | XLA: 0.2 to 1 |

benchmarks/cpu_step.py times whole nets.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.config import InputError

SOURCES = tuple(
    Path(__file__).with_name(name)
    for name in (
        "convolution.cc",
        "narrow.h",
        "planes.h",
        "pooling.h",
        "product.h",
        "winograd.h",
        "work.h",
    )
)
FORWARD = "jaxcnn_conv"
BIASED = ("jaxcnn_conv_bias", "jaxcnn_conv_bias_relu")
ADDED = ("jaxcnn_conv_add", "jaxcnn_conv_add_relu")
MAX_POOL, MAX_POOL_GRADIENT = "jaxcnn_max_pool", "jaxcnn_max_pool_gradient"
BIAS_GRADIENT = "jaxcnn_conv_bias_gradient"
TARGETS = (FORWARD, *BIASED, *ADDED, "jaxcnn_conv_input", "jaxcnn_conv_kernel", BIAS_GRADIENT)
TARGETS += (MAX_POOL, MAX_POOL_GRADIENT)

Pair = tuple[int, int]

_version: str | None = None  # of oneDNN, once loaded


def version() -> str | None:
    """oneDNN's, where convolutions go to it; None: they are XLA's."""
    return _version


def path(folder: Path) -> Path:
    """Where the library of this source and this jaxlib is in the cache folder."""
    made_of = b"".join(source.read_bytes() for source in SOURCES)
    made_of += metadata.version("jaxlib").encode()
    return folder / "native" / f"convolution-{hashlib.sha256(made_of).hexdigest()[:12]}.so"


def build(folder: Path) -> Path:
    """Compile the library into the cache folder. Raises `InputError` with what the compiler said
    where there is none, or no oneDNN.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    needs = "It needs g++ and oneDNN (the extra 'native'; Debian, Ubuntu: apt install libdnnl-dev)."
    if compiler is None:
        raise InputError(f"native: no C++ compiler. {needs}")
    target = path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / target.name
        flags = ["-std=c++20", "-O3", "-fPIC", "-shared", "-fopenmp", "-w"]
        command = [compiler, *flags, f"-I{jax.ffi.include_dir()}", str(SOURCES[0]), "-o", str(made)]
        command += [*_of_the_environment(), "-ldnnl"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr)
            raise InputError(f"native: {compiler} failed: {said.strip()} {needs}")
        made.replace(target)
    return target


def _of_the_environment() -> list[str]:
    """For the compiler: where the Python environment has oneDNN, if it does."""
    headers, libraries = Path(sys.prefix, "include"), Path(sys.prefix, "lib")
    if not (headers / "dnnl.hpp").is_file():
        return []
    return [f"-I{headers}", f"-L{libraries}", f"-Wl,-rpath,{libraries}"]


def load(folder: Path) -> None:
    """Hand convolutions to the library in the cache folder, if it is there and not turned off."""
    global _version
    if _version is not None or os.environ.get("JAXCNN_NATIVE") == "0":
        return
    if not path(folder).is_file():
        return
    try:
        library = ctypes.CDLL(str(path(folder)))
    except OSError:  # oneDNN was removed since
        return
    for name in TARGETS:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    library.jaxcnn_onednn.restype = ctypes.c_char_p
    _version = library.jaxcnn_onednn().decode()


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def conv(
    x: jax.Array,
    w: jax.Array,
    bias: jax.Array | None,
    stride: Pair,
    pads: tuple[Pair, Pair],
    groups: int,
) -> jax.Array:
    """x [B, H, W, C], w [h, w, C / groups, O], bias [O] -> [B, H', W', O], all float32."""
    shape = (x.shape[0], *_places(x, w.shape[:2], stride, pads), w.shape[3])
    return forward(x, w, shape, stride, pads, groups, bias)


def forward(
    x: jax.Array,
    w: jax.Array,
    shape: tuple[int, ...],
    stride: Pair,
    pads: tuple[Pair, Pair],
    groups: int,
    bias: jax.Array | None = None,
    beside: jax.Array | None = None,
    relu: bool = False,
) -> jax.Array:
    """`conv`, which has no gradient here, and behind it a bias [O] that is added, then maps of
    `shape` that are, then ReLU.
    """
    where = {"stride": stride, "pads": pads, "groups": groups}
    if bias is None:
        return _call(FORWARD, shape, (x, w), **where)
    if beside is None:
        return _call(BIASED[relu], shape, (x, w, bias), **where)
    return _call(ADDED[relu], shape, (x, w, bias, beside), **where)


def options(attributes: Any) -> dict[str, Any]:
    """stride, pads and groups of a call, from its attributes as jax keeps them."""
    found = {k: np.asarray(getattr(v, "val", v)) for k, v in dict(attributes).items()}
    stride, pads = found["stride"].tolist(), found["pads"].tolist()
    pairs = (pads[0], pads[1]), (pads[2], pads[3])
    return {"stride": tuple(stride), "pads": pairs, "groups": int(found["groups"])}


def _conv_forward(x, w, bias, stride, pads, groups):
    return conv(x, w, bias, stride, pads, groups), (x, w, bias)


def _conv_backward(stride, pads, groups, saved, g):
    x, w, bias = saved
    where = {"stride": stride, "pads": pads, "groups": groups}
    dx = _call("jaxcnn_conv_input", x.shape, (g, w), **where)
    dw = _call("jaxcnn_conv_kernel", w.shape, (x, g), **where)
    return dx, dw, None if bias is None else _call(BIAS_GRADIENT, bias.shape, (g,))


conv.defvjp(_conv_forward, _conv_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: jax.Array, window: Pair, stride: Pair, pads: tuple[Pair, Pair]) -> jax.Array:
    """Largest value of each window, x [B, H, W, C] float32 -> [B, H', W', C]."""
    shape = (x.shape[0], *_places(x, window, stride, pads), x.shape[3])
    return _call(MAX_POOL, shape, (x,), window=window, stride=stride, pads=pads)


def _max_pool_forward(x, window, stride, pads):
    y = max_pool(x, window, stride, pads)
    return y, (x, y)


def _max_pool_backward(window, stride, pads, saved, g):
    inputs, where = (*saved, g), {"window": window, "stride": stride, "pads": pads}
    return (_call(MAX_POOL_GRADIENT, saved[0].shape, inputs, **where),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _places(
    x: jax.Array, window: Sequence[int], stride: Pair, pads: tuple[Pair, Pair]
) -> tuple[int, ...]:
    """Over how many rows and columns a window slides."""
    sizes = zip(x.shape[1:3], pads, window, stride, strict=True)
    return tuple((n + sum(pad) - k) // step + 1 for n, pad, k, step in sizes)


def _call(
    target: str, shape: tuple[int, ...], inputs: tuple[jax.Array, ...], **attributes: Any
) -> jax.Array:
    numbers = {k: np.array(v, np.int64) for k, v in attributes.items()}
    out = jax.ShapeDtypeStruct(shape, jnp.float32)
    aliases = {3: 0} if target in ADDED else None  # the sum is written over the maps
    call = jax.ffi.ffi_call(target, out, vmap_method="sequential", input_output_aliases=aliases)
    return call(*inputs, **{k: v.ravel() if v.ndim else v[()] for k, v in numbers.items()})
