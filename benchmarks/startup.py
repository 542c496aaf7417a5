"""How long does a command take to answer, and a launch to train?

    python benchmarks/startup.py            # a table
    python benchmarks/startup.py --write    # and a record in benchmarks/records/

`--help` and `list`, from the start of the process to its exit, and a launch of an experiment, to
the first point of a curve behind step 0 that is on disk: once with nothing compiled, and again as
every later launch finds it. Beside them, in turn, what Python and jax take alone. Nothing else
should be running.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import contest

QUESTION = "How long does a command take to answer, and a launch to train?"
GOALS = {"launch.py --help": 0.5, "launch.py list": 0.5, "a later launch, to its first steps": 5.0}
EXPERIMENT = ("relu_vs_sigmoid", "--preset", "quick", "--arms", "relu", "--seeds", "0")
ANSWERS = {
    "python": ["-c", "pass"],
    "python, jax imported": ["-c", "import jax"],
    "launch.py --help": ["launch.py", "--help"],
    "launch.py list": ["launch.py", "list"],
}
FIRST, LATER = "a first launch, to its first steps", "a later launch, to its first steps"


def answer(words: list[str]) -> float:
    """Seconds until the process is over."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=contest.ROOT, check=True, capture_output=True)
    return time.perf_counter() - start


def launch(cache: Path) -> float:
    """Seconds until a run has trained some steps, with what `cache` keeps; then it is stopped."""
    with tempfile.TemporaryDirectory() as out:
        words = ["launch.py", "run", *EXPERIMENT, "--out", out]
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *words],
            **{"cwd": contest.ROOT, "env": os.environ | {"XDG_CACHE_HOME": str(cache)}},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
        )
        while not trained(Path(out)):
            if process.poll() is not None:
                sys.exit(process.communicate()[0].decode())
            time.sleep(0.01)
        took = time.perf_counter() - start
        process.send_signal(signal.SIGINT)
        process.communicate()
    return took


def trained(out: Path) -> bool:
    lines = [line for p in out.glob("*/*/*/metrics.jsonl") for line in p.read_text().splitlines()]
    return any(json.loads(line)["step"] > 0 for line in lines if line.endswith("}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="a record in benchmarks/records/")
    options = parser.parse_args()
    busy = contest.load()
    seconds: dict[str, list[float]] = {who: [] for who in (*ANSWERS, FIRST, LATER)}
    with tempfile.TemporaryDirectory() as cache:
        seconds[FIRST].append(launch(Path(cache)))
        for words in ANSWERS.values():  # Python keeps what it compiled, too
            answer(words)
        for _ in range(options.repeats):
            for who, words in ANSWERS.items():
                seconds[who].append(answer(words))
            seconds[LATER].append(launch(Path(cache)))
    for who, each in seconds.items():
        goal = f" (goal: under {GOALS[who]:g})" if who in GOALS else ""
        print(f"{who}: {statistics.median(each):.2f} s, {min(each):.2f} to {max(each):.2f}{goal}")
    if options.write:
        origin = contest.origin({"JAX_PLATFORMS": "cpu"})
        settings = {"repeats": options.repeats, "load_before": busy, "goals": GOALS}
        settings |= {"experiment": " ".join(EXPERIMENT)}
        rounded = {who: [round(s, 3) for s in each] for who, each in seconds.items()}
        record = {"question": QUESTION, **origin, "settings": settings, "seconds": rounded}
        contest.write("startup", contest.machine(origin["device"]), record)


if __name__ == "__main__":
    main()
