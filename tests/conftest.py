"""A strict session: 8 CPU devices, no silent rank promotion; warnings are errors."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

# Before jax is imported, here and in the processes that tests start.
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAXCNN_NATIVE"] = "0"  # what this machine's user compiled is no matter of the tests
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Most of the time is compiling's. What tests compile in their own process runs once or twice, so
# LLVM makes no effort there; commands in processes of their own are compiled as users' are, and
# with an empty XLA_FLAGS everything is.
QUICKLY = "--xla_backend_optimization_level=0"
os.environ.setdefault("XLA_FLAGS", QUICKLY)
# Compiled programs are kept, from test to test and from process to process.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(REPOSITORY / ".pytest_cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import gc  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402

import pytest  # noqa: E402

sys.path.insert(0, str(REPOSITORY))

import launch  # noqa: E402

Launch = Callable[..., tuple[int, str, str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no core waits for one at the end."""
    longest = ("test_hosts.py", "test_slurm.py", "test_resume.py", "test_parity.py")
    longest += ("test_weights.py", "test_parameters.py", "test_models.py", "test_knobs.py")
    places = {name: i for i, name in enumerate(longest)}
    items.sort(key=lambda item: places.get(item.path.name, len(longest)))


def pytest_collection_finish() -> None:
    """What imports left is never garbage: not to look through it takes a tenth off the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Launch:
    """`python launch.py ARGUMENTS...` in this process -> (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "200")
        console = launch.Console(highlight=False, width=200)
        for module in (launch, launch.commands):
            monkeypatch.setattr(module, "console", console)
        monkeypatch.setattr(sys, "argv", ["launch.py", *map(str, arguments)])
        monkeypatch.setattr(gc, "freeze", lambda: None)  # what an earlier test left is garbage
        capsys.readouterr()
        try:
            code = launch.main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For the project's own commands in a process of their own, on two CPU cores."""
    own = {"JAX_NUM_CPU_DEVICES": "2", "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    own |= {"XLA_FLAGS": os.environ["XLA_FLAGS"].replace(QUICKLY, "")}
    return {**os.environ, **own}
