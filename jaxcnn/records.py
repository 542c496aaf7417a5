"""One folder a run: append-only lines and small JSON files, the only thing that reports read.

    run.json        the resolved config and where it ran: commit, versions, device, data, command;
                    of what it started from, the data or the hash of the file
    metrics.jsonl   one row a point of the curve:
                    {"step": 50, "batch": M, "train": M, "validation": M, "seconds": 1.2,
                    "step_seconds": 0.02}: in all, and of each step since the last point, a run's
                    share of them where several stand side by side;
                    with train.probes also "probe": {"gradient_norm": {layer: number, ...}, ...},
                    the layers in the order in which a picture meets them
    result.json     {"status": "finished" | "diverged", "step": 430, "seconds": 9.7}, at the end
    test.json       M on the test split at the last step, once the table asked for it
    unreadable.json of a streamed data set: {split: {picture: why}, ...}, which no M counts

where M is {"loss": mean, "error": share, "count": examples}, one of the two missing where the model
has none; of more than 10 classes also "error5", top-5, but not of the training batches.
A number that is not finite is null, and its row has "nonfinite": true. After a crash the rows
behind the last checkpoint are made again, equal, so a reader takes the last row of each step; a
torn last line is passed over.
"""

import contextlib
import json
import math
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from jaxcnn.config import InputError, Run, from_dict


@dataclass(frozen=True)
class Record:
    """A run's folder as read from disk."""

    folder: Path
    info: dict[str, Any]  # run.json
    rows: list[dict[str, Any]]  # metrics.jsonl, in order of step
    result: dict[str, Any] | None
    test: dict[str, Any] | None

    @property
    def run(self) -> Run:
        return from_dict(Run, self.info["config"])

    @property
    def diverged(self) -> bool:
        return self.result is not None and self.result["status"] == "diverged"


def read(folder: Path) -> Record | None:
    """The record in `folder`, or None where no run has begun."""
    info = _read_json(folder / "run.json")
    if info is None:
        return None
    rows: dict[int, dict[str, Any]] = {}
    with (
        contextlib.suppress(FileNotFoundError),
        open(folder / "metrics.jsonl", encoding="utf-8") as lines,
    ):
        for line in lines:
            with contextlib.suppress(
                json.JSONDecodeError
            ):  # torn by a crash; its step is run again
                row = json.loads(line)
                rows[row["step"]] = row
    result, test = _read_json(folder / "result.json"), _read_json(folder / "test.json")
    if result is not None:  # rows behind a kill that an earlier point of divergence made void
        rows = {step: row for step, row in rows.items() if step <= result["step"]}
    return Record(folder, info, [rows[step] for step in sorted(rows)], result, test)


def is_finished(folder: Path) -> bool:
    return (folder / "result.json").is_file()


def status(folder: Path) -> Literal["absent", "begun", "finished", "diverged"]:
    """How far the run in `folder` is; 'begun' says nothing of whether anyone is at it."""
    result = _read_json(folder / "result.json")
    if result is not None:
        return result["status"]
    return "begun" if (folder / "run.json").is_file() else "absent"


def command() -> str:
    """The command line as typed, with the program's own folder left out."""
    return shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Atomically: a reader, or a crash, sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, "w", encoding="utf-8") as f:
            json.dump(finite(value), f, indent=1, allow_nan=False)
            f.write("\n")
            f.flush()
            os.fsync(f.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write(path: Path, content: str | bytes) -> Path:
    """Atomically too, for what can be made again: no waiting for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def add_unreadable(folder: Path, found: Sequence[tuple[str, str]]) -> str:
    """Note pictures that could not be read, each (split, 'NAME: why'), once in unreadable.json; a
    line to tell of those that are new, '' if none is.
    """
    if not found:
        return ""
    path = folder / "unreadable.json"
    known: dict[str, dict[str, str]] = _read_json(path) or {}
    new: list[str] = []
    for split, text in found:
        name, _, why = text.partition(": ")
        if name not in known.setdefault(split, {}):
            known[split][name] = why
            new.append(text)
    if not new:
        return ""
    write_json(path, known)
    more = f" and {len(new) - 1} more" if len(new) > 1 else ""
    return f"{new[0]}{more}: pictures that cannot be read are left out; {path} names them"


def open_metrics(folder: Path) -> TextIO:
    """metrics.jsonl for appending; a torn last line is ended first so that it spoils no other."""
    path = folder / "metrics.jsonl"
    torn = path.is_file() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
    f = open(path, "a", encoding="utf-8")
    if torn:
        f.write("\n")
    return f


def append(f: TextIO, row: dict[str, Any]) -> None:
    f.write(json.dumps(finite(row), allow_nan=False) + "\n")
    f.flush()


def finite(value: dict[str, Any]) -> dict[str, Any]:
    """Numbers that JSON cannot hold become null, and the row says so."""
    found = False

    def clean(v: Any) -> Any:
        nonlocal found
        if isinstance(v, dict):
            return {k: clean(w) for k, w in v.items()}
        if isinstance(v, list | tuple):
            return [clean(w) for w in v]
        if isinstance(v, float) and not math.isfinite(v):
            found = True
            return None
        return v

    out = clean(value)
    return out | {"nonfinite": True} if found else out


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[bool]:
    """Whether this process may write to `folder`; the lock ends with it, even by kill -9."""
    from filelock import FileLock, Timeout  # it imports asyncio, which `--help` can do without

    held = FileLock(folder / ".lock")
    try:
        held.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        held.release()


def is_held(folder: Path) -> bool:
    """Whether a launch is at the run in `folder`, wherever the file system shares locks."""
    if not (folder / ".lock").is_file():
        return False
    with lock(folder) as free:  # a launch that asks in this instant asks again
        return not free


def check_writable(root: Path) -> None:
    """Raise `InputError` now rather than after an hour of training."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as f:
            f.write(b"\0")
            f.flush()
    except OSError as error:
        raise InputError(
            f"--out: {root} cannot be written to: {error.strerror}. Name another folder."
        ) from error


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: damaged ({error}). Move the run's folder away to run it afresh."
        ) from error
