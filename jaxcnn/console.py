"""What the terminal shows while runs are trained, and how a run is asked to stop."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_SECONDS = 5.0  # between lines of progress where the output is no terminal


class Display:
    """Run-steps done of all, the run that last spoke, and the time left.

    On a terminal a bar; elsewhere (a log file, a scheduler) a line now and then.
    """

    def __init__(self, console: Console, title: str, done: int, total: int) -> None:
        self._console, self._title = console, title
        self._done, self._total = done, total
        self._at: dict[Path, int] = {}
        self._errors: dict[Path, str] = {}
        self._spoke = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("run-steps"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[news]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "Display":
        self._progress.start()
        self._task = self._progress.add_task("", total=self._total)
        self.begin(self._title, self._done)
        return self

    def begin(self, title: str, done: int) -> None:
        """Another experiment; `done` run-steps of all are behind it, or given up."""
        self._title, self._done = title, done
        self._progress.update(self._task, description=title, completed=done, news="compiling")
        if not self._console.is_terminal:
            self._console.print(f"{title}: {done} of {self._total} run-steps done")

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tick(self, folder: Path, step: int, row: dict[str, Any] | None, note: str) -> None:
        """A run has come to `step`; `row` is a new point of its curve, `note` a thing to know."""
        if note:
            self._console.print(f"[yellow]note:[/] {note}")
        # A run that goes on from a checkpoint brings its earlier steps along at its first tick.
        self._done += max(0, step - self._at.get(folder, 0))
        self._at[folder] = max(step, self._at.get(folder, 0))
        if row is not None:
            split = "validation" if "validation" in row else "train"
            self._errors[folder] = f"{split} {_quality(row[split])}"
        news = f"{folder.parent.name} {folder.name.split('-')[0]}  step {step}"
        if folder in self._errors:
            news += f"  {self._errors[folder]}"
        done = min(self._done, self._total)
        self._progress.update(self._task, completed=done, news=news)
        if not self._console.is_terminal and time.monotonic() - self._spoke > LINE_SECONDS:
            self._spoke = time.monotonic()
            share = 100 * done / max(1, self._total)
            line = f"{self._title}: {share:3.0f} % of {self._total} run-steps; {news}"
            self._console.print(line, soft_wrap=True)


@contextlib.contextmanager
def counted(console: Console, title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Within, the function given is told (done, total): a bar on a terminal, else a line now and
    then.
    """
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
    times = (TextColumn(unit), TimeElapsedColumn(), TimeRemainingColumn())
    on = console.is_terminal
    bar = Progress(*columns, *times, console=console, transient=True, disable=not on)
    spoke = time.monotonic()
    task = bar.add_task(title, total=None)

    def tell(done: int, total: int) -> None:
        nonlocal spoke
        bar.update(task, completed=done, total=total)
        if not on and time.monotonic() - spoke > LINE_SECONDS:
            spoke = time.monotonic()
            share = 100 * done / max(1, total)
            console.print(f"{title}: {share:3.0f} % of {total:,} {unit}", soft_wrap=True)

    with bar:
        yield tell


def _quality(means: dict[str, Any]) -> str:
    if "error" in means:
        five = f", top-5 {100 * means['error5']:.1f} %" if "error5" in means else ""
        return f"error {100 * means['error']:.1f} %{five}"
    return f"loss {means['loss']:.3g}"


class Stop:
    """True once a signal came, the first of which counts; a second SIGINT does not wait for the
    saving.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    def receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within, SIGINT, SIGTERM and SIGUSR2, a scheduler's word that time is nearly up, set the
    `Stop` instead of ending the process.
    """
    stop = Stop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    old = {s: signal.signal(s, stop.receive) for s in signals}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
