"""What is set of jax before it starts, seen in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jaxcnn import backend

REPOSITORY = Path(__file__).resolve().parent.parent
CODE = """
import json, jax
from jaxcnn import backend
backend.set_up()
jax.jit(lambda x: x * 2 + 1)(1.0)
c = jax.config
print(json.dumps({"devices": len(jax.devices()), "cache": c.jax_compilation_cache_dir}))
"""


def found(home: Path, **own: str) -> dict[str, Any]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XDG_", "XLA_"))}
    out = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=REPOSITORY,
        env={**clean, "HOME": str(home), "JAX_PLATFORMS": "cpu", **own},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not out.stderr
    return json.loads(out.stdout)


def test_every_core_is_a_device_and_programs_are_kept(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert found(tmp_path) == {"devices": cores, "cache": str(tmp_path / ".cache" / "jaxcnn")}


@pytest.mark.parametrize(
    ("own", "devices", "cache"),
    [
        ({"JAX_NUM_CPU_DEVICES": "3"}, 3, ".cache/jaxcnn"),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}, 5, ".cache/jaxcnn"),
        ({"XDG_CACHE_HOME": "{home}/x", "JAX_NUM_CPU_DEVICES": "1"}, 1, "x/jaxcnn"),
        ({"JAX_COMPILATION_CACHE_DIR": "{home}/own", "JAX_NUM_CPU_DEVICES": "1"}, 1, "own"),
    ],
)
def test_what_the_user_has_set_stays(
    own: dict[str, str], devices: int, cache: str, tmp_path: Path
) -> None:
    own = {k: v.replace("{home}", str(tmp_path)) for k, v in own.items()}
    assert found(tmp_path, **own) == {"devices": devices, "cache": str(tmp_path / cache)}


def test_without_a_folder_to_write_to_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("a file where the folder should be")
    assert found(tmp_path)["cache"] is None


def test_xla_is_told_once_and_the_users_word_is_the_last() -> None:
    """The option changes what is compiled: single convolutions are XLA's own."""
    code = """
import json, jax, jax.numpy as jnp
from jaxcnn import backend
names = ("NHWC", "HWIO", "NHWC")
conv = lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=names)
shapes = jnp.ones((8, 16, 16, 64)), jnp.ones((3, 3, 64, 64))
options = backend.compiler_options()
compiled = [jax.jit(conv, compiler_options=o).lower(*shapes).compile() for o in ({}, options)]
print(json.dumps([options, *("ynn" in c.as_text() for c in compiled)]))
"""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}

    def answer(**own: str) -> list[Any]:
        out = subprocess.run(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            env={**clean, "JAX_PLATFORMS": "cpu", **own},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(out.stdout)

    options, before, after = answer()
    if not options:
        pytest.skip("this XLA does not know the option")
    assert list(options) == [backend.FLAG] and before and not after
    assert answer(XLA_FLAGS=f"--{backend.FLAG}=LIBRARY_FUSION_TYPE_DOT")[0] == {}
