"""What the benchmarks share: contestants as processes that answer questions, ratios of neighbours
in time, and records.

Each contestant is a process of its own, so that it has its own flags and memory, and one that hangs
or dies is reported and takes no other with it. A script calls itself for that: `serve` in the new
process answers what `Worker.ask` asks in the old one.
"""

import contextlib
import json
import os
import platform
import queue
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "benchmarks" / "records"
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the latter for PyTorch's nets

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
TOY = "A toy run on a CPU: it shows that the script runs. Every GPU figure is empty (null)."
ORIGIN = """
import json
from jaxcnn import backend, provenance
backend.set_up()
print(json.dumps(provenance.collect()))
"""


class Failed(Exception):
    """A contestant could not answer: why, in a line."""


class Worker:
    """A contestant's process: `script` with `arguments`, which ends in `serve`; `python` is its
    interpreter, where that is another.
    """

    def __init__(
        self,
        name: str,
        script: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        python: str = sys.executable,
    ) -> None:
        self.name = name
        self.errors = tempfile.TemporaryFile(mode="w+", errors="replace")
        self.process = subprocess.Popen(
            [python, script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            start_new_session=True,
        )
        self.answers: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.last_words = "stopped"

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ask(self, what: str, seconds: float | None = None, **arguments: Any) -> Any:
        """The answer, or `Failed`; where there is none in `seconds`, the process is ended too."""
        self.send(what, **arguments)
        return self.receive(seconds)

    def send(self, what: str, **arguments: Any) -> None:
        assert self.process.stdin
        try:
            print(json.dumps([what, arguments]), file=self.process.stdin, flush=True)
        except (OSError, ValueError):  # it is over, or was stopped
            self.stop()
            raise Failed(f"{self.name}: {self.last_words}") from None

    def receive(self, seconds: float | None = None) -> Any:
        try:
            line = self.answers.get(timeout=None if seconds is None else max(seconds, 0.1))
        except queue.Empty:
            self.stop(patience=0.1)
            raise Failed(f"{self.name}: no answer in {seconds:.0f} s") from None
        if not line:
            self.stop()
            raise Failed(f"{self.name}: {self.last_words}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"{self.name}: {answer['error']}")
        return answer["answer"]

    def stop(self, patience: float = 5.0) -> None:
        """Ends the process, and its own: one that waits for questions goes by itself."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.reader.join(5)
        self._end()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put("")

    def _end(self) -> None:
        """Of a process that is over: how, and the last line of what it complained of."""
        if self.errors.closed:
            return
        self.errors.seek(0)
        lines = [line for line in self.errors.read().splitlines() if line.strip()]
        how = f"ended with {self.process.returncode}"
        self.last_words = f"{how}: {lines[-1][:200]}" if lines else how
        self.errors.close()
        self.process.stdout.close()  # type: ignore[union-attr]


def serve(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Answers a line of standard input, a name and arguments, by what that function returns."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        what, arguments = json.loads(line)
        try:
            answer = {"answer": functions[what](**arguments)}
        except Exception as error:  # reported in the table; the others go on
            words = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {words[0][:200]}"}
        print(json.dumps(answer), file=answers, flush=True)


def load() -> float:
    """Of the last minute; a warning where something else may be running."""
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"Warning: the load before the start is {busy:.1f}; an idle machine gives the truth.")
    return busy


def countdown(seconds: float) -> Callable[[], float]:
    """Seconds that are left."""
    end = time.monotonic() + seconds
    return lambda: end - time.monotonic()


def origin(environment: Mapping[str, str]) -> dict[str, Any]:
    """Commit, versions and hardware as a contestant sees them; a process, so that none holds a
    device here.
    """
    found = subprocess.run(
        [sys.executable, "-c", ORIGIN],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    if found.returncode != 0:
        sys.exit(f"jax does not start: {found.stderr.strip().splitlines()[-1]}")
    script = Path(sys.argv[0]).resolve()
    where = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name
    command = shlex.join(["python", str(where), *sys.argv[1:]])
    return {**json.loads(found.stdout.splitlines()[-1]), "command": command}


def gpu_environment(toy: bool) -> dict[str, str]:
    """Contestants share the GPU's memory, each taking what it needs; a toy sees no GPU."""
    if toy:
        return {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "JAX_NUM_CPU_DEVICES": "1"}
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    memory = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"}
    return {**memory, "CUDA_VISIBLE_DEVICES": first}


def gpu_or_toy(asked: bool) -> tuple[bool, dict[str, Any], dict[str, str]]:
    """Whether this is a toy run (asked for, or no GPU that jax sees), its origin, and what its
    contestants have in their environment.
    """
    if not asked:
        environment = gpu_environment(toy=False)
        found = origin(environment)
        if found["device"]["platform"] == "gpu":
            return False, found, environment
        print("jax sees no GPU here.")
    print(TOY)
    environment = gpu_environment(toy=True)
    return True, origin(environment), environment


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median and quartiles."""
    if len(values) == 1:
        values = [*values, *values]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median": round(middle, digits),
        "low": round(low, digits),
        "high": round(high, digits),
    }


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Of neighbours in time: median and quartiles."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def machine(device: Mapping[str, Any]) -> str:
    """As the name of a record has it: the accelerator, or the CPU and its cores."""
    if device["platform"] == "cpu":
        return f"{device['cpu'] or platform.machine()} {CORES} cores"
    return str(device["kind"])


def write(stem: str, words: str, record: Mapping[str, Any]) -> None:
    """The record of one machine: benchmarks/records/<stem>-<words>.json."""
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    path = RECORDS / f"{stem}-{slug}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"Written: {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")


def emptied(tree: Any) -> Any:
    """The same names, with nothing in the places of their figures."""
    if isinstance(tree, Mapping):
        return {name: emptied(value) for name, value in tree.items()}
    return None
