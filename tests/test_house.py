"""Imports point one way, and the quick rooms stay quick."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "jaxcnn"
FILES = sorted(PACKAGE.rglob("*.py"))
ONLY_IN = {
    "flax": ("ops.py", "models/"),
    "tensorflow_datasets": ("data/",),
    "tensorflow": ("data/prepare.py",),
    "orbax": ("checkpoint.py",),
    "matplotlib": ("plots.py",),
    "grain": ("data/stream.py",),
    "array_record": ("data/photos.py", "data/shards.py"),
    "sklearn": ("classical.py", "faces.py"),
    "onnx": ("export/",),
    "submitit": ("slurm.py",),
}
# A room may import rooms to its left.
ORDER = [
    *("config", "checks", "experiment", "landmarks", "native", "kernels", "ops", "models"),
    *("weights", "losses", "optim", "quantization", "compress", "transfer"),
    *("analysis", "published", "wordnet"),
    *("backend", "data", "crops", "nets", "step", "probes"),
    *("sharding", "cohorts", "feeds", "memory"),
    *("records", "checkpoint", "provenance", "classical", "stats", "lanes", "spawn", "hosts"),
    *("wave", "starts", "faces", "train", "trained"),
    "export",
    *("auto", "sweep", "findings"),
    *("page", "plots", "report"),
    *("recomputed", "errata", "calculated", "listing", "tables", "results", "overview"),
    *("jobs", "evaluate", "recognition", "console", "slurm", "submit", "status", "show"),
    *("tensorboard", "commands"),
]
PURE = (
    *("config.py", "checks.py", "ops.py", "kernels.py", "losses.py", "optim.py", "step.py"),
    "probes.py",
    *("quantization.py", "compress.py", "transfer.py"),
    *("cohorts.py", "analysis", "models", "published.py"),
)


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    return names


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports(path: Path) -> None:
    where = str(path.relative_to(PACKAGE))
    found = imports(path)
    for library, homes in ONLY_IN.items():
        used = any(name == library or name.startswith(library + ".") for name in found)
        assert not used or where.startswith(homes), f"{where} imports {library}"
    if room(path) == "__init__":
        return
    for name in found:
        parts = name.split(".")
        if parts[0] == "jaxcnn" and len(parts) > 1 and parts[1] in ORDER:
            later = ORDER.index(parts[1]) > ORDER.index(room(path))
            assert not later, f"{where} imports {name}, which comes after it"


@pytest.mark.parametrize("name", PURE)
def test_pure_rooms_touch_no_file(name: str) -> None:
    path = PACKAGE / name
    files = path.glob("*.py") if path.is_dir() else [path]
    text = "".join(file.read_text() for file in files)
    for word in ("open(", "Path(", "import os", "print(", "import time"):
        assert word not in text, f"{name}: {word}"


def imported(program: str, **options: Any) -> tuple[set[str], str]:
    """What a program has imported at its end, and what it printed."""
    code = f"import sys\ntry:\n    {program}\nfinally:\n    print(*sys.modules)"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, **options)
    *said, modules = out.stdout.splitlines()
    return set(modules.split()), "\n".join([*said, out.stderr])


@pytest.mark.parametrize(
    ("argument", "said"), [("--help", "python launch.py list"), ("list", "ReLU networks train")]
)
def test_the_command_line_imports_neither_jax_nor_numpy(argument: str, said: str) -> None:
    """Nor what its own libraries can do without."""
    modules, printed = imported(f"import launch; launch._call([{argument!r}])")
    assert said in printed
    heavy = {"jax", "numpy", "flax", "scipy", "sklearn", "matplotlib", "asyncio", "typeguard"}
    assert modules.isdisjoint(heavy), heavy & modules


def test_a_net_comes_to_its_first_step_without_what_fits_saves_tests_and_draws(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    words = ["run", "relu_vs_sigmoid", "--preset", "quick", "--arms", "relu", "--out"]
    modules, printed = imported(
        "import gc, launch; from jaxcnn import console; console.Display.tick = lambda *tick:"
        "tick[2] and sys.exit(f'a step is done; {gc.isenabled()=}, {gc.get_freeze_count() > 0=}');"
        f"launch._call({[*words, str(tmp_path)]!r})",
        env=environment,
    )
    assert "a step is done; gc.isenabled()=True, gc.get_freeze_count() > 0=True" in printed
    assert "jax" in modules
    heavy = {"sklearn", "statsmodels", "pandas", "pyarrow", "matplotlib", "tensorflow_datasets"}
    heavy |= {"grain", "orbax", "PIL", "scipy.stats", "scipy.optimize"}
    assert modules.isdisjoint(heavy), heavy & modules
