"""What is set of jax before it starts, seen in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
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


def test_memory_is_kept_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*backend.MALLOC, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    asked: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *option: asked.append(option) or option[0] != -4)
    monkeypatch.setattr(backend.ctypes, "CDLL", lambda _: library)
    backend.set_up.__wrapped__()
    assert asked == [(-1, 2**31 - 1), (-2, 64 * 2**20), (-4, 0)]  # glibc's malloc.h
    # what the library refused is not said
    kept = {"M_TRIM_THRESHOLD": 2**31 - 1, "M_TOP_PAD": 64 * 2**20}
    assert backend.settings()["allocator"] == kept
    for name, value in (("MALLOC_TOP_PAD_", "0"), ("GLIBC_TUNABLES", "glibc.malloc.top_pad=0")):
        with monkeypatch.context() as own:
            own.setenv(name, value)
            backend.set_up.__wrapped__()
        assert backend.settings()["allocator"] == f"the user's own: {name}={value}"
    assert len(asked) == 3
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.cpu.x86_ibt=off")  # nothing of malloc's
    monkeypatch.setattr(backend.ctypes, "CDLL", lambda _: SimpleNamespace())  # musl has none
    backend.set_up.__wrapped__()
    assert backend.settings()["allocator"] is None


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


PROGRAMS = """
import json, jax, numpy as np
from jaxcnn import backend, cohorts, config, sharding, step
from jaxcnn.nets import Problem
backend.set_up()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # these are tiny
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
run = config.override(config.Run(), {"model.name": "mlp", "model.widths": (8,)})
run = config.override(run, {"train.batch_size": 4})
mesh = sharding.make_mesh(1, 1)
program = cohorts.program(step.static(run), Problem((4, 4, 1), 3, 8, 6), mesh)
pixels = np.zeros((8, 4, 4, 1), np.uint8)
data = cohorts.Resident(pixels, np.zeros(8, np.int32), np.zeros(1), np.ones(1), np.eye(1))
values = cohorts.stack([run])
order, carry = program.order(values, 0), program.init(values)
carry = program.advance(carry, values, order, data, np.int32(0), np.int32(2))
loss = program.evaluate(carry.state, data, np.int32(0), np.int32(8))["loss"]
counts = [events.count("/jax/compilation_cache/" + e)
          for e in ("compile_requests_use_cache", "cache_hits")]
print(json.dumps([*counts, float(loss[0])]))
"""


def test_launches_share_what_was_compiled_and_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Two at once on one empty folder; a third compiles nothing, and its numbers are theirs."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    environment = {**clean, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path)}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAMS],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def answer(process: subprocess.Popen[str]) -> list[Any]:
        out, complaints = process.communicate(timeout=120)
        assert (process.returncode, complaints) == (0, "")
        return json.loads(out)

    (asked, _, loss), second = map(answer, [start(), start()])
    asked_again, hits, same = answer(start())
    assert asked_again == hits == asked >= 4
    assert same == loss == second[2]
