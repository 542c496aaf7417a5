"""Checkpoints of a run: orbax, asynchronous and atomic. The only room that knows orbax."""

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging as absl_logging

NEWEST, BEST = "checkpoints", "best"  # folders of a run's


class Saving(NamedTuple):
    """When checkpoints are written and which of them stay. No result depends on it."""

    seconds: float = 30.0  # between two of them
    keep: int = 2  # so many of the newest
    best: bool = False  # and that of the point of the curve with the least validation error


USUAL = Saving()


class Checkpoints:
    """The checkpoints in one place of a run's folder, the newest `keep`: those that it goes on
    from, or the best.
    """

    def __init__(self, folder: Path, keep: int = USUAL.keep, place: str = NEWEST) -> None:
        self._folder, self._keep, self._path = folder, keep, _prepared(folder, place)
        self._made: Any = None  # orbax's CheckpointManager, once there is something to manage

    def _manager(self) -> Any:
        if self._made is None:
            ocp = _orbax()
            own: dict[str, Any] = {}
            if jax.process_count() > 1:  # process 0 alone is here; orbax would wait for the others
                alone = {"primary_host": 0, "active_processes": {0}, "barrier_sync_key_prefix": "0"}
                own = {"multiprocessing_options": ocp.options.MultiprocessingOptions(**alone)}
            options = ocp.CheckpointManagerOptions(max_to_keep=self._keep, create=False, **own)
            self._made = ocp.CheckpointManager(self._path, options=options)
        return self._made

    def save(self, step: int, tree: Any) -> None:
        """Returns once `tree` (numpy leaves) is copied; `wait` for it to be on disk."""
        with _in_one_line(self._folder):
            if step not in self._manager().all_steps():
                self._manager().save(step, args=_orbax().args.StandardSave(tree))

    def steps(self) -> list[int]:
        if self._made is None and not any(self._path.iterdir()):
            return []
        return sorted(self._manager().all_steps())

    def wait(self) -> None:
        """Until all is on disk; raises what went wrong there."""
        if self._made is not None:
            with _in_one_line(self._folder):
                self._made.wait_until_finished()
                self._made.check_for_errors()

    def close(self) -> None:
        if self._made is not None:
            with _in_one_line(self._folder):
                self._made.close()

    def drop_after(self, step: int) -> None:
        """What was saved behind it."""
        for each in self.steps():
            if each > step:
                self._manager().delete(each)

    def restore(self, like: Any, step: int | None = None) -> tuple[int, Any, list[str]]:
        """(step, tree, complaints) of the newest whole checkpoint, or of that of `step`; step -1
        and None where there is none.

        `like` has the shapes and dtypes; the leaves of `tree` are of numpy, however many processes
        wrote them. A damaged checkpoint is passed over for the one before, deleted, and named in
        the complaints.
        """
        complaints = []
        like = jax.tree.map(lambda a: np.broadcast_to(np.zeros((), a.dtype), a.shape), like)
        for at in reversed(self.steps() if step is None else [step]):
            try:
                tree = self._manager().restore(at, args=_orbax().args.StandardRestore(like))
                _same_shapes(like, tree)
                return at, tree, complaints
            except Exception as error:  # whatever orbax, tensorstore or json raise on damaged files
                reason = str(error).strip().split("\n")[0][:120]
                complaints.append(f"checkpoint at step {at} is damaged ({reason})")
                self._manager().delete(at)
        return -1, None, complaints


class Shared:
    """`Checkpoints` that all processes of a launch write, each its share of every one; they make
    the same calls.

    Not by orbax's manager: where the writing of one process fails, that makes it wait for the
    others, which wait for its share, for 20 minutes. Here it raises, and who waits for a process
    that has ended is told so.
    """

    def __init__(self, folder: Path, keep: int, place: str) -> None:
        self._folder, self._keep, self._path = folder, keep, _prepared(folder, place)
        name = f"{folder.parent.name}/{folder.name}/{place}"  # of where its processes wait
        ocp = _orbax()
        self._writer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler("default"),  # the layout of the manager's
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                barrier_sync_key_prefix=name
            ),
        )

    def save(self, step: int, tree: Any) -> None:
        """Returns once this process's share of `tree` (leaves on the devices of all) is copied."""
        self.wait()
        with _in_one_line(self._folder):
            args = _orbax().args
            args = args.Composite(default=args.StandardSave(tree))
            self._writer.save(self._path / str(step), args=args, force=True)

    def wait(self) -> None:
        """Until all is on disk, what others write too; raises what went wrong there."""
        with _in_one_line(self._folder):
            self._writer.wait_until_finished()
            if jax.process_index() == 0:
                steps = sorted(int(p.name) for p in self._path.iterdir() if p.name.isdigit())
                for step in steps[: -self._keep]:
                    shutil.rmtree(self._path / str(step))

    def close(self) -> None:
        with _in_one_line(self._folder):
            self._writer.close()


def _orbax() -> Any:
    """Not before the first checkpoint: its import takes a third of a second."""
    import orbax.checkpoint

    return orbax.checkpoint


def _prepared(folder: Path, place: str) -> Path:
    """The place, without what a killed launch was in the midst of writing: done here and now, not
    by orbax, whose thread could meet the next save of that step.
    """
    # What goes wrong is raised, and told once.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    path = (folder / place).resolve()
    if jax.process_index() == 0:
        path.mkdir(parents=True, exist_ok=True)
        for torn in path.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(torn)
    return path


@contextlib.contextmanager
def _in_one_line(folder: Path) -> Iterator[None]:
    """Raise OSError for a full disk, JaxRuntimeError for a process that is gone (hosts.py says it
    better) and RuntimeError for the rest, in words that fit a line.
    """
    try:
        yield
    except Exception as error:
        text = str(error)
        if "No space left" in text or "RESOURCE_EXHAUSTED" in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        if isinstance(cause := error.__cause__ or error, jax.errors.JaxRuntimeError):
            raise cause from None
        raise RuntimeError(f"{folder}: {text.strip().splitlines()[0][:200]}") from error


def _same_shapes(like: Any, tree: Any) -> None:
    """Orbax casts dtypes silently; here another shape or dtype is damage."""

    def same(a: Any, b: Any) -> None:
        b = np.asarray(b)
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ValueError(f"found {b.dtype}{b.shape}, expected {a.dtype}{a.shape}")

    jax.tree.map(same, like, tree)
