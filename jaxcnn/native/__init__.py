"""Convolutions by oneDNN on the CPU: optional, compiled on the spot, off unless they are there.

`python launch.py native` compiles convolution.cc with the machine's C++ compiler into the cache
folder, against the oneDNN of the Python environment (the extra `native`; conda: `onednn`), or else
the system's (Debian and Ubuntu: `apt install libdnnl-dev`, whose oneDNN 2 takes up to 1.4 times as
long as 3). From then on `backend.set_up` loads it, and kernels.py hands it each float32
convolution. JAXCNN_NATIVE=0 turns it off. Which one computed stands in run.json, since their
results differ in the last bits. 3x3 convolutions of stride 1, of 16, 32, 48 and so on maps in and
out, take Winograd's form (winograd.h) where a batch has 32 of its tiles: mostly 0.5 to 0.9 of the
time of oneDNN's convolution, which is at the processor's limit there (Zen 4; of 16 maps 0.8 to 1,
since those wait for memory). The gradient of pictures of up to 6 maps is made of products
(narrow.h): LeNet-5's second in 0.5 of the time. benchmarks/cpu_step.py times whole nets.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
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
    for name in ("convolution.cc", "narrow.h", "product.h", "winograd.h", "work.h")
)
FORWARD = "jaxcnn_conv"
BIASED = ("jaxcnn_conv_bias", "jaxcnn_conv_bias_relu")
ADDED = ("jaxcnn_conv_add", "jaxcnn_conv_add_relu")
MAX_POOL = "jaxcnn_max_pool"
TARGETS = (FORWARD, *BIASED, *ADDED, "jaxcnn_conv_input", "jaxcnn_conv_kernel", MAX_POOL)

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


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv(
    x: jax.Array, w: jax.Array, stride: Pair, pads: tuple[Pair, Pair], groups: int
) -> jax.Array:
    """x [B, H, W, C], w [h, w, C / groups, O] -> [B, H', W', O], all float32."""
    rows, columns = (
        (n + sum(pad) - k) // step + 1
        for n, pad, k, step in zip(x.shape[1:3], pads, w.shape[:2], stride, strict=True)
    )
    return forward(x, w, (x.shape[0], rows, columns, w.shape[3]), stride, pads, groups)


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
    if bias is None:
        return _call(FORWARD, shape, (x, w), stride, pads, groups)
    if beside is None:
        return _call(BIASED[relu], shape, (x, w, bias), stride, pads, groups)
    return _call(ADDED[relu], shape, (x, w, bias, beside), stride, pads, groups)


def max_pool(
    x: jax.Array, shape: tuple[int, ...], window: Pair, stride: Pair, pads: tuple[Pair, Pair]
) -> jax.Array:
    """Largest value of each window, x [B, H, W, C] float32 -> `shape`; it has no gradient."""
    attributes = {"window": window, "stride": stride, "pads": pads}
    call = jax.ffi.ffi_call(
        MAX_POOL, jax.ShapeDtypeStruct(shape, jnp.float32), vmap_method="sequential"
    )
    return call(x, **{k: np.array(v, np.int64).ravel() for k, v in attributes.items()})


def options(attributes: Any) -> dict[str, Any]:
    """stride, pads and groups of a call, from its attributes as jax keeps them."""
    found = {k: np.asarray(getattr(v, "val", v)) for k, v in dict(attributes).items()}
    stride, pads = found["stride"].tolist(), found["pads"].tolist()
    pairs = (pads[0], pads[1]), (pads[2], pads[3])
    return {"stride": tuple(stride), "pads": pairs, "groups": int(found["groups"])}


def _conv_forward(x, w, stride, pads, groups):
    return conv(x, w, stride, pads, groups), (x, w)


def _conv_backward(stride, pads, groups, saved, g):
    x, w = saved
    dx = _call("jaxcnn_conv_input", x.shape, (g, w), stride, pads, groups)
    return dx, _call("jaxcnn_conv_kernel", w.shape, (x, g), stride, pads, groups)


conv.defvjp(_conv_forward, _conv_backward)


def _call(
    target: str,
    shape: tuple[int, ...],
    inputs: tuple[jax.Array, ...],
    stride: Pair,
    pads: tuple[Pair, Pair],
    groups: int,
) -> jax.Array:
    attributes: dict[str, Any] = {
        "stride": np.array(stride, np.int64),
        "pads": np.array(pads, np.int64).ravel(),
        "groups": np.int64(groups),
    }
    out = jax.ShapeDtypeStruct(shape, jnp.float32)
    aliases = {3: 0} if target in ADDED else None  # the sum is written over the maps
    call = jax.ffi.ffi_call(target, out, vmap_method="sequential", input_output_aliases=aliases)
    return call(*inputs, **attributes)
