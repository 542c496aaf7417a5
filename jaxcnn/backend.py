"""What is set of jax, of XLA and of the C library, in one place. What the user has set stays as it
is.
"""

import contextlib
import ctypes
import functools
import os
from pathlib import Path

import jax

CACHE_BYTES = 4 * 2**30  # the programs that were not used for longest go first

# glibc gives large temporaries back to the system at each step and takes them anew, page by page:
# weight gradients took 1.4 to 2.3 times as long. From malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD,
# M_MMAP_MAX.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1), "MALLOC_TOP_PAD_": (-2, 64 * 2**20)}
MALLOC |= {"MALLOC_MMAP_MAX_": (-4, 0)}


# XLA hands single convolutions on a CPU to YNNPACK by default, whose layouts cost more than they
# gain: without, a step of ResNet-20 takes 0.68 of the time, of alexnet_cifar 0.74, of LeNet-5 the
# same. Everything else that it hands over stays there: BatchNorm's sums are 3 to 6 times faster so.
FLAG = "xla_cpu_experimental_ynn_fusion_type"
FUSED = ("DOT", "ELTWISE", "REDUCE", "INDIVIDUAL_DOT")


@functools.cache
def compiler_options() -> dict[str, str]:
    """What the programs of this backend are compiled with. XLA_FLAGS with the same flag wins."""
    if jax.default_backend() != "cpu" or FLAG in os.environ.get("XLA_FLAGS", ""):
        return {}
    options = {FLAG: ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in FUSED)}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # an XLA that does not know it
        return {}
    return options


def set_up() -> None:
    """Each core is a device, compiled programs are kept from launch to launch, and memory is kept
    from step to step.

    The first so that runs stand side by side on a CPU too (sharding.plan); JAX_NUM_CPU_DEVICES
    gives another number. The second in ~/.cache/jaxcnn; JAX_COMPILATION_CACHE_DIR moves it and
    JAX_ENABLE_COMPILATION_CACHE=0 turns it off. The third where the C library is glibc; any of its
    own variables (`MALLOC`) turns it off.
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
    if not any(name in os.environ for name in MALLOC):
        # Another C library, or none that can be asked, has no mallopt.
        with contextlib.suppress(OSError, AttributeError, TypeError):
            mallopt = ctypes.CDLL(None).mallopt
            for parameter, value in MALLOC.values():
                mallopt(parameter, value)


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
