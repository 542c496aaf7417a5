"""Batches of pictures that do not fit in memory: what batch n holds is a function of n.

    stream = Stream(photos.open_split(root, "train", 256), batch_size=256, seed=0, training=True)
    with stream.batches() as batches:
        for images, labels in batches:  # [B, S, S, 3] uint8, [B] int32
            ...
    saved = batches.position  # JSON
    stream.batches(saved)  # goes on behind the last batch that was taken

The position is a number of batches: it does not depend on how many processes decode, and a step
counter restores it as well. Epoch e of seed s has one order, whatever the number of hosts: in
training host i of n takes the i-th part of every batch, in evaluation each n-th picture.
"""

import gc
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.config import InputError
from jaxcnn.data import photos, workers
from jaxcnn.data.photos import Source
from jaxcnn.data.pictures import Unreadable

LEFT_OUT = -1  # the label of a picture that could not be read
BUFFER = 2  # batches that each process has ready
SHARED_MEMORY = Path("/dev/shm")  # through which they come; Docker gives it 64 MB
TRIES = 100  # pictures in a row that cannot be read, before this is an error

Position = dict[str, Any]
Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Stream:
    """Which pictures come, in which order and batches.

    Training: shuffled by (seed, epoch), equally many whole batches on each host, and in the place
    of a picture that cannot be read the next one of the source that can. Evaluation: once, every
    picture, the last batch smaller; unreadable ones are black and labelled `LEFT_OUT`. With
    `examples`, only so many, drawn by the seed.
    """

    source: Source
    batch_size: int  # of this host
    seed: int = 0
    training: bool = False
    epochs: int | None = 1  # None: for ever
    examples: int | None = None
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "examples", "process_count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}: {value} is not allowed; it must be at least 1.")
        if not 0 <= self.process_index < self.process_count:
            raise InputError(
                f"process_index: {self.process_index} is not in 0 to {self.process_count - 1}."
            )
        if self.training and self.per_epoch == 0:
            raise InputError(
                f"batch_size: {self.batch_size} on each of {self.process_count} hosts is more than"
                f" the {len(self.source)} pictures there are."
            )

    @property
    def per_epoch(self) -> int:
        """Batches an epoch, on this host."""
        total = min(len(self.source), self.examples or len(self.source))
        if self.training:
            return total // self.process_count // self.batch_size
        own = len(range(self.process_index, total, self.process_count))
        return -(-own // self.batch_size)

    @property
    def fingerprint(self) -> str:
        """Of all that decides what batch n holds."""
        own = {k: v for k, v in vars(self).items() if k not in ("source", "epochs")}
        text = json.dumps([self.source.fingerprint, own], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def batches(
        self,
        position: Mapping[str, Any] | int = 0,
        *,
        processes: int = 0,
        tell: Callable[[str], None] | None = None,
    ) -> "Batches":
        """From a position, or a number of batches, on. Of `processes` each decodes; with none,
        threads of this one do. `tell` is told of each picture that cannot be read.

        Raises `InputError` for the position of another stream.
        """
        if processes < 0:
            raise InputError(f"--workers: {processes} is not allowed; it must be at least 0.")
        if isinstance(position, Mapping):
            if position.get("stream") != self.fingerprint:
                raise InputError(
                    "position: it is of another stream: its pictures, batch size, seed or hosts"
                    f" are not these ({position.get('stream')}, not {self.fingerprint})."
                )
            position = int(position["batch"])
        return Batches(self, position, processes, tell)


class Batches(Iterator[Arrays]):
    """Iterator of (images [B, S, S, 3] uint8, labels [B] int32); close it, or use it in `with`."""

    def __init__(
        self, stream: Stream, start: int, processes: int, tell: Callable[[str], None] | None
    ) -> None:
        self._stream, self._batch, self._tell = stream, start, tell
        self._fingerprint, self._processes = stream.fingerprint, processes
        self._iterator: Any = iter(_pipeline(stream, start, processes))
        self.unreadable: dict[str, str] = {}  # name -> why, of those met so far

    def __next__(self) -> Arrays:
        images, labels, unread = next(self._iterator)
        if type(images) is not np.ndarray:  # it lies in shared memory, of which there is little
            images, labels, unread = map(np.array, (images, labels, unread))
        self._batch += 1
        for index in unread[unread >= 0]:
            self._note(int(index))
        return images, labels

    @property
    def position(self) -> Position:
        """Behind the last batch that was taken, however many are made already."""
        return {"batch": self._batch, "stream": self._fingerprint}

    def close(self) -> None:
        if hasattr(self._iterator, "close"):  # that of no batches has none
            self._iterator.close()
        self._iterator = iter(())
        if self._processes:
            # grain's iterators refer to each other and to each process's last batch, whose shared
            # memory would be told of as leaked at the end of the program.
            gc.collect()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _note(self, index: int) -> None:
        name = self._stream.source.name(index)
        if name in self.unreadable:
            return
        try:  # why, only an exception says, and those do not travel with the pictures
            photos.read(self._stream.source, index)
            why = "it could not be read at first"
        except (Unreadable, OSError) as error:
            why = str(error)
        self.unreadable[name] = why
        if self._tell is not None:
            self._tell(f"{name}: {why}")


def _pipeline(stream: Stream, start: int, processes: int) -> Any:
    import grain  # a second: only who streams pays

    order = grain.MapDataset.range(len(stream.source))
    if stream.training or stream.examples is not None:
        # grain's seed of epoch e is seed + e: from 0 and 1 two arms would see the same orders, an
        # epoch apart. Of a hashed seed that is next to impossible.
        [seed] = np.random.SeedSequence(stream.seed).generate_state(1)
        order = order.shuffle(seed=int(seed))
    total = min(len(stream.source), stream.examples or len(stream.source))
    own = slice(stream.process_index, None, stream.process_count)
    if stream.training:  # as many on each host, or all would wait for one
        total -= total % (stream.process_count * stream.batch_size)
        places = order[:total].batch(stream.batch_size)[own]
    else:
        places = order[:total][own].batch(stream.batch_size)
    # Batches of places, and pictures decoded into their own: nothing is copied together later.
    read = _replaced if stream.training else _or_left_out
    batches = places.map(partial(_batch, stream.source, read))
    if len(batches) == 0:  # an evaluation with more hosts than pictures
        return ()
    batches = batches.repeat(stream.epochs)[start:]
    processes = min(processes, len(batches))
    # An element is a batch: grain's own buffer of 500 would take all memory.
    threads = 1 if processes else workers.cores()
    elements = batches.to_iter_dataset(grain.ReadOptions(threads, threads))
    if not processes:
        return elements
    from absl import flags

    if not flags.FLAGS.is_parsed():  # grain hands its flags on, and asks for ones nobody parsed
        flags.FLAGS.mark_as_parsed()
    _check_shared_memory(
        processes, stream.batch_size * stream.source.channels * stream.source.side**2
    )
    options = grain.MultiprocessingOptions(num_workers=processes, per_worker_buffer_size=BUFFER)
    return elements.mp_prefetch(options, worker_init_fn=_in_worker)


Read = Callable[[Source, int, np.ndarray], tuple[int, bool]]  # label, whether it was readable


def _batch(source: Source, read: Read, places: np.ndarray) -> tuple[np.ndarray, ...]:
    """Pictures [B, S, S, C] uint8, labels [B] int32, and the places [B] int64 of those that could
    not be read, -1 of the others.
    """
    images = np.empty((len(places), source.side, source.side, source.channels), np.uint8)
    labels, unread = np.empty(len(places), np.int32), np.full(len(places), -1, np.int64)
    for i, place in enumerate(places.tolist()):
        labels[i], fine = read(source, place, images[i])
        if not fine:
            unread[i] = place
    return images, labels, unread


def _replaced(source: Source, index: int, out: np.ndarray) -> tuple[int, bool]:
    for i in range(TRIES):
        try:
            return source.into((index + i) % len(source), out), i == 0
        except (Unreadable, OSError):
            continue
    raise InputError(
        f"none of {TRIES} pictures from {source.name(index)} on can be read: is that folder whole?"
    )


def _or_left_out(source: Source, index: int, out: np.ndarray) -> tuple[int, bool]:
    try:
        return source.into(index, out), True
    except (Unreadable, OSError):
        out[:] = 0
        return LEFT_OUT, False


def _check_shared_memory(processes: int, batch_bytes: int) -> None:
    """Where it runs out, a process ends by SIGBUS, without a word."""
    needed = processes * (BUFFER + 2) * batch_bytes
    if SHARED_MEMORY.is_dir() and (free := shutil.disk_usage(SHARED_MEMORY).free) < needed:
        raise InputError(
            f"--workers: {processes} of them pass batches through up to {needed / 1e6:,.0f} MB of"
            f" {SHARED_MEMORY}, which has {free / 1e6:,.0f} MB. Take fewer, smaller batches, or 0"
            " for threads."
        )


def _in_worker(index: int, count: int) -> None:
    workers.begin()
