"""`Lanes`: what of a wave stands on devices, its programs at work on it, and its checkpoints."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn import cohorts, feeds, sharding
from jaxcnn.checkpoint import BEST, NEWEST, Checkpoints, Saving, Shared
from jaxcnn.cohorts import Carry, Program
from jaxcnn.config import Run
from jaxcnn.data.streamed import Pictures
from jaxcnn.feeds import Feed
from jaxcnn.nets import Problem


class Lanes:
    """Runs of one program side by side, padded with copies of the last to `width`, at the step of
    their carries; without any at the start. What methods return is on the host.

    It decides nothing: all that depends on clocks, files or signals comes as an argument, so that
    several processes that hear the same calls run the same programs (hosts.py).
    """

    def __init__(
        self,
        runs: list[Run],
        problem: Problem,
        data: Pictures,
        program: Program,
        width: int,
        carries: list[Carry],
    ) -> None:
        self._run, self._problem, self._data, self._program = runs[0], problem, data, program
        more = width - len(runs)
        values = cohorts.stack(runs + [runs[-1]] * more)
        self._values = sharding.put(program.mesh, values, "run")
        if carries:
            whole = jax.tree.map(lambda *a: np.stack(a), *carries, *[carries[-1]] * more)
            self._carry = sharding.put(program.mesh, whole, "run")
        else:
            self._carry = program.init(self._values)
        self._feed: Feed | None = None
        self._disks: dict[str, list[Checkpoints | Shared]] = {}
        # of streamed pictures, those that could not be read and are not told of yet: split,
        # NAME: why; the thread that reads ahead appends to it, too
        self._unread: list[tuple[str, str]] = []

    def advance(self, at: int, most: int) -> int:
        """Take up to `most` steps from step `at` on, to their end -> how many there were pictures
        for; from the second call on `at` is where the last one ended.
        """
        if self._feed is None:
            source = (self._run, self._problem, self._program, self._values, self._data)
            self._feed = feeds.feed(*source, at, self._unread.append)
        order, data, position, left = self._feed.steps(at)
        n = min(most, left)
        self._carry = self._program.advance(self._carry, self._values, order, data, position, n)
        jax.block_until_ready(self._carry)
        return n

    def sums(self) -> dict[str, Any]:
        """Each [R], of the steps since `reset`."""
        return jax.device_get(self._carry.sums)

    def reset(self) -> None:
        zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), self._carry.sums)
        zeros = sharding.put(self._program.mesh, zeros, "run")
        self._carry = Carry(self._carry.state, zeros)

    def means(self, split: str) -> list[dict[str, float]]:
        """Over a split, one a run."""
        what = (self._program, self._run, self._problem, self._carry.state, self._data, split)
        return feeds.evaluate(*what, self._unread.append)

    def probe(self) -> dict[str, Any]:
        """Each of train.probes -> [R, L], a number for each layer."""
        whole = feeds.resident(self._data, self._program.mesh)  # type: ignore[arg-type]
        return jax.device_get(self._program.probe(self._carry.state, self._values, whole))

    def carry(self) -> Carry:
        """Leaves [R, ...]."""
        return jax.device_get(self._carry)

    def unread(self) -> list[tuple[str, str]]:
        """The pictures, (split, 'NAME: why'), that could not be read since the last call."""
        met = self._unread[:]
        del self._unread[: len(met)]
        return met

    def open(self, folders: list[Path], saving: Saving) -> None:
        """The folders of the runs, before the first `save`."""
        mesh = self._program.mesh
        kind = Shared if mesh.is_multi_process else Checkpoints
        keep = {NEWEST: saving.keep} | ({BEST: 1} if saving.best else {})
        for place, n in keep.items():
            self._disks[place] = [kind(f, n, place) for f in folders]
        shares = jax.tree.map(lambda a: sharding.split(mesh, a.shape[1:]), self._carry)
        self._share = jax.jit(_one, out_shardings=shares)

    def save(self, place: str, at: int, which: set[int]) -> None:
        """The carries of some runs, as checkpoints of step `at`; of several processes each copies
        and writes a share.
        """
        if not which:
            return
        shared = self._program.mesh.is_multi_process
        pick, carry = (self._share, self._carry) if shared else (_one, self.carry())
        for i in sorted(which):
            self._disks[place][i].save(at, pick(carry, i))

    def wait(self, place: str) -> None:
        """Until all that was saved is on disk."""
        for disk in self._disks[place]:
            disk.wait()

    def close(self, wait: bool = True) -> None:
        """`wait` for what is being saved."""
        if self._feed is not None:
            self._feed.close()
        for disk in sum(self._disks.values(), []) if wait else []:
            disk.close()


def _one(carry: Carry, i: int) -> Carry:
    """That of run i."""
    return jax.tree.map(lambda a: a[i], carry)
