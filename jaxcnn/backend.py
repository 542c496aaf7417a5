"""What is set of jax, of XLA and of the C library, in one place. What the user has set stays as it
is.
"""

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

import jax

from jaxcnn import native
from jaxcnn.config import InputError

CACHE_BYTES = 4 * 2**30  # the programs that were not used for longest go first

# glibc gives large temporaries back to the system at each step and takes them anew, page by page:
# weight gradients took 1.4 to 2.3 times as long. From malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD,
# M_MMAP_MAX.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1), "MALLOC_TOP_PAD_": (-2, 64 * 2**20)}
MALLOC |= {"MALLOC_MMAP_MAX_": (-4, 0)}
_done: dict[str, Any] = {"allocator": None}  # the C library cannot be asked what it was told


# XLA hands single convolutions on a CPU to YNNPACK by default, whose layouts cost more than they
# gain: without, a step of ResNet-20 takes 0.68 of the time, of alexnet_cifar 0.74, of LeNet-5 the
# same. Everything else that it hands over stays there: BatchNorm's sums are 3 to 6 times faster so.
# Beside oneDNN's convolutions the elementwise rest is XLA's, too: 0.84 of ResNet-20's step with
# them, 0.87 of LeNet-5's; beside XLA's own it would be 1.1 to 1.2.
FLAG = "xla_cpu_experimental_ynn_fusion_type"
# Of LLVM; initial weights, equal to the bit, are compiled in 0.3 to 0.75 of the time with 1.
EFFORT = "xla_backend_optimization_level"
FUSED = ("DOT", "ELTWISE", "REDUCE", "INDIVIDUAL_DOT")


def compiler_options(*, once: bool = False) -> dict[str, str]:
    """What the programs of this backend are compiled with; `once`: one that runs once, so that most
    of its time is LLVM's. XLA_FLAGS with the same flag wins.
    """
    if jax.default_backend() != "cpu":
        return {}
    kinds = [kind for kind in FUSED if kind != "ELTWISE" or not native.version()]
    wanted = {FLAG: ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in kinds)}
    if once:
        wanted[EFFORT] = "1"
    return {
        flag: value
        for flag, value in wanted.items()
        if flag not in os.environ.get("XLA_FLAGS", "") and _known(flag, value)
    }


@functools.cache
def _known(flag: str, value: str) -> bool:
    """Whether this XLA does."""
    try:
        jax.jit(lambda x: x, compiler_options={flag: value}).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


@functools.cache  # what it sets cannot be set again once devices have been asked for
def set_up() -> None:
    """Each core is a device, compiled programs are kept from launch to launch, memory is kept from
    step to step, and convolutions go to oneDNN where it was compiled (native/).

    The first so that runs stand side by side on a CPU too (sharding.plan); JAX_NUM_CPU_DEVICES
    gives another number. The second in ~/.cache/jaxcnn; JAX_COMPILATION_CACHE_DIR moves it and
    JAX_ENABLE_COMPILATION_CACHE=0 turns it off. The third where the C library is glibc; any of its
    own variables (`MALLOC`, GLIBC_TUNABLES) turns it off. `settings` says what came of it.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ and (
        "host_platform_device_count" not in os.environ.get("XLA_FLAGS", "")
    ):
        jax.config.update("jax_num_cpu_devices", _cores())
    folder = _cache_folder()
    if folder is not None and jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    _done["allocator"] = _keep_memory()
    if folder is not None:
        native.load(folder)


def build_native() -> Path:
    """Compile the convolutions by oneDNN for this machine; see native/."""
    folder = _cache_folder()
    if folder is None:
        raise InputError("native: no folder to keep it in; XDG_CACHE_HOME names another.")
    return native.build(folder)


def settings() -> dict[str, Any]:
    """What is set, for records: `compiler_options`; `cpu_devices`, None where XLA_FLAGS decides;
    `convolutions`, whose they are on a CPU; `allocator`, None where it is as the C library has it.
    No folder of this machine.
    """
    devices = jax.config.values["jax_num_cpu_devices"]
    return {
        "compiler_options": compiler_options(),
        "cpu_devices": devices if devices > 0 else None,
        "convolutions": f"oneDNN {native.version()}" if native.version() else "XLA",
        **_done,
    }


def kept_programs() -> str | None:
    """The folder of compiled programs; None where none are kept."""
    on = jax.config.values["jax_enable_compilation_cache"]
    return jax.config.values["jax_compilation_cache_dir"] if on else None


def _keep_memory() -> dict[str, int] | str | None:
    """M_... -> value as the C library took it, or the user's own variable, or None: another C
    library, or none that can be asked, has no mallopt.
    """
    own = [name for name in MALLOC if name in os.environ]
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        own.append("GLIBC_TUNABLES")
    if own:
        return "the user's own: " + ", ".join(f"{name}={os.environ[name]}" for name in own)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return None
    taken = {}
    for name, (parameter, value) in MALLOC.items():
        if mallopt(parameter, value) == 1:
            taken[name.strip("_").replace("MALLOC", "M")] = value
    return taken or None


def _cores() -> int:
    limited = hasattr(os, "sched_getaffinity")  # a scheduler may give fewer cores than there are
    return len(os.sched_getaffinity(0)) if limited else os.cpu_count() or 1


def _cache_folder() -> Path | None:
    """None where it cannot be written to: then every launch compiles, as without it."""
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(root) if root else Path.home() / ".cache") / "jaxcnn"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home
        return None
    return folder if os.access(folder, os.W_OK) else None
