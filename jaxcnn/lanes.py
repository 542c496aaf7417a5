"""`Lanes`: what of a wave stands on devices, and its programs at work on it."""

from typing import Any

import jax
import numpy as np

from jaxcnn import cohorts, feeds, sharding
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

    def close(self) -> None:
        if self._feed is not None:
            self._feed.close()
