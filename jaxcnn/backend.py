"""What is set of jax before it starts, in one place. What the user has set stays as it is."""

import os
from pathlib import Path

import jax

CACHE_BYTES = 4 * 2**30  # the programs that were not used for longest go first


def set_up() -> None:
    """Each core is a device, and compiled programs are kept from launch to launch.

    The former so that runs stand side by side on a CPU too (sharding.plan); JAX_NUM_CPU_DEVICES
    gives another number. The latter in ~/.cache/jaxcnn; JAX_COMPILATION_CACHE_DIR moves it and
    JAX_ENABLE_COMPILATION_CACHE=0 turns it off.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ and (
        "host_platform_device_count" not in os.environ.get("XLA_FLAGS", "")
    ):
        limited = hasattr(
            os, "sched_getaffinity"
        )  # a scheduler may give fewer cores than there are
        cores = len(os.sched_getaffinity(0)) if limited else os.cpu_count() or 1
        jax.config.update("jax_num_cpu_devices", cores)
    if (
        jax.config.values["jax_compilation_cache_dir"] is None
        and (folder := _cache_folder()) is not None
    ):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _cache_folder() -> Path | None:
    """None where it cannot be written to: then every launch compiles, as without it."""
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(root) if root else Path.home() / ".cache") / "jaxcnn"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home
        return None
    return folder if os.access(folder, os.W_OK) else None
