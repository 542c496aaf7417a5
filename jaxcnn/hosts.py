"""One launch of several processes, on one machine or many, whose devices are one mesh.

Process 0 leads: it alone decides, reads checkpoints and writes records, by the code of a launch of
one process. The others follow: they hear each call of `Lanes` from it and make it, too, so all run
the same programs in the same order, each on its share of every batch, BatchNorm over the whole, and
write their shares of every checkpoint.

Who is gone is missed: a collective that lacks a process fails at once or, where nothing was closed,
jax's coordination service ends the others after `MISSED` seconds. The same command goes on from the
last checkpoint, with another number of processes too. spawn.py starts them on one machine.
"""

import contextlib
import os
import pickle
import platform
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed  # its store of keys and values; jax has no public door to that
from jax.experimental import multihost_utils

from jaxcnn import backend, cohorts, config, memory, sharding, step
from jaxcnn.cohorts import Carry, Program
from jaxcnn.config import InputError, Run
from jaxcnn.data.streamed import Pictures
from jaxcnn.lanes import Lanes
from jaxcnn.nets import Problem
from jaxcnn.spawn import ADDRESS, GONE, GRACE, PROCESS, SIGNALS

MISSED = 20
PATIENCE = 1_000  # milliseconds between a follower's looks at its signals
LONGEST = 3_600_000  # milliseconds that processes wait for each other's reading of the data
KEPT = 1_000  # messages; no follower is so far behind
_told = 0  # messages so far
_gone = False  # whether a process is
_ended = False  # whether process 0 has said so


# A launch -----------------------------------------------------------------------------------------


def join(processes: int | None) -> bool:
    """Join the other processes, before anything asks jax for devices; whether this one leads.

    Of a number of them `ADDRESS` says where process 0 listens and `PROCESS` which one this is; None
    leaves all of it to what jax finds: of Slurm's srun, Open MPI, a TPU pod, Kubernetes.
    """
    os.environ["JAXCNN_NATIVE"] = "0"  # XLA cannot split what it does not know the inside of
    backend.set_up()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # signals are ours
    how: dict[str, Any] = {"heartbeat_timeout_seconds": MISSED, "shutdown_timeout_seconds": GRACE}
    if processes is not None:
        own = os.environ.get(PROCESS, "")
        if not own.isdecimal() or int(own) >= processes:
            raise InputError(
                f"--hosts: {processes} and {ADDRESS} need {PROCESS}, 0 to {processes - 1}; it is"
                f" {own!r}."
            )
        how |= {"num_processes": processes, "process_id": int(own)}
        how |= {"cluster_detection_method": "deactivate"}
    try:
        jax.distributed.initialize(**how)
    except (ValueError, KeyError) as error:
        raise InputError(
            f"--hosts: auto: jax finds no scheduler here ({error}). A number starts processes on"
            f" this machine, or joins those of {ADDRESS}."
        ) from error
    except jax.errors.JaxRuntimeError as error:
        first = str(error).splitlines()[0][:200]
        raise RuntimeError(f"--hosts: the processes do not find each other: {first}") from error
    # All are connected here, together: later a slow compilation would look like an absent process.
    count = jax.device_count()
    ones = sharding.put(sharding.make_mesh(1, count), np.ones(count, np.float32), "data")
    jax.block_until_ready(jax.jit(jnp.sum)(ones))
    multihost_utils.sync_global_devices("jaxcnn")  # and as `_shared` connects them
    return jax.process_index() == 0


def topology() -> str:
    each = jax.local_device_count()
    return f"{jax.process_count()} processes, {jax.device_count()} devices ({each} each)"


def alone() -> bool:
    return distributed.global_state.client is None or jax.process_count() == 1


def heeding(stop: Any) -> Callable[[], bool]:
    """`stop`, a console.Stop, that also hears of the signals that other processes get."""
    if alone():
        return stop

    def asked() -> bool:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # nobody got one
            found = _client().key_value_try_get("jaxcnn/stop")
            stop.signal = stop.signal or int(found)
        return stop()

    return asked


def end() -> None:
    """This process is done, well or not; where it is process 0 all are."""
    if alone() or _gone or (jax.process_index() > 0 and not _ended):
        return
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # a process that cannot hear it
        if jax.process_index() == 0:
            _tell("end")
        jax.distributed.shutdown()  # together: else who is late would miss the others


def check_shared(root: Path) -> None:
    """Raise `InputError` now where `root` is not one folder that all processes write to."""
    if alone():
        return
    with tempfile.NamedTemporaryFile(dir=root, prefix=".shared-") as mark:
        _tell("shared", Path(mark.name).resolve())
        without = [who for who in _answers() if who]
    if without:
        raise InputError(
            f"--out: {root.resolve()} is no folder that process {', '.join(without)} can write to"
            " as process 0 does, and each writes its share of every checkpoint. Name one on a file"
            " system that all share."
        )


# Its work -----------------------------------------------------------------------------------------


def lanes(
    runs: list[Run],
    problem: Problem,
    data: Pictures,
    program: Program,
    width: int,
    carries: list[Carry],
) -> Lanes:
    """`Lanes` of this process alone, or in step with those of all others."""
    what = (runs, problem, data, program, width)
    if alone():
        return Lanes(*what, carries)
    with _explained():
        like = [_shapes(carry) for carry in carries[:1]]
        mesh = tuple(program.mesh.shape.values())
        _tell("begin", runs, problem, data.fingerprint, mesh, width, len(carries), like)
        _meet()
        return cast(Lanes, _Led(Lanes(*what, [_shared(carry) for carry in carries])))


class _Led:
    """Every method of `Lanes`, on all processes."""

    def __init__(self, own: Lanes) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if name == "close" and _gone:
                return self._own.close(wait=False)  # a share of it will not come
            _tell(name, *args)
            with _explained():
                return getattr(self._own, name)(*args)

        return call

    def unread(self) -> list[tuple[str, str]]:
        """Of all processes."""
        _tell("unread")
        return sum(_answers(), self._own.unread())


def follow(load: Callable[[Run], Pictures]) -> None:
    """What a process other than 0 does, until process 0 is done. `load` reads the data of a run."""
    for each in SIGNALS:  # process 0 decides; it hears of what a scheduler sends to all or to one
        signal.signal(each, _pass_on)
    global _ended
    own: Lanes | None = None
    kept: dict[config.Data, Pictures] = {}
    while True:
        name, args = _hear()
        if name == "end":
            _ended = True
            return
        if name == "shared":
            [mark] = args
            same = mark.is_file() and os.access(mark.parent, os.W_OK)
            _give("" if same else f"{jax.process_index()} ({platform.node()})")
            continue
        if name != "begin":
            with _explained():
                answer = getattr(own, name)(*args)
            if name == "unread":
                _give(answer)
            continue
        runs, problem, fingerprint, mesh, width, count, like = args
        run = runs[0]
        if run.data not in kept:
            kept = {run.data: load(run)}
        data = kept[run.data]
        if data.fingerprint != fingerprint:
            raise InputError(
                f"data.name: {run.data.name!r} is not the same for process {jax.process_index()}"
                f" (fingerprint {data.fingerprint}) as for process 0 ({fingerprint})."
            )
        with _explained():
            _meet()
            program = cohorts.program(step.static(run), problem, sharding.make_mesh(*mesh))
            nothing = [jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), carry) for carry in like]
            carries = [_shared(nothing[0]) for _ in range(count)]
            own = Lanes(runs, problem, data, program, width, carries)


def _shapes(carry: Carry) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), carry)


def _shared(carry: Carry) -> Carry:
    """Process 0's, on all."""
    return multihost_utils.broadcast_one_to_all(carry)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    global _gone
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if memory.exhausted(error) or (isinstance(error, ValueError) and "Gloo" not in str(error)):
            raise
        _gone = True
        first = str(error).splitlines()[0][:200]
        raise RuntimeError(f"another process of this launch is gone ({first}). {GONE}") from error


# Messages -----------------------------------------------------------------------------------------


def _client() -> Any:
    return distributed.global_state.client


def _tell(name: str, *args: Any) -> None:
    global _told
    _client().key_value_set_bytes(f"jaxcnn/{_told}", pickle.dumps((name, args)))
    if _told >= KEPT:
        _client().key_value_delete(f"jaxcnn/{_told - KEPT}")
    _told += 1


def _hear() -> tuple[str, tuple[Any, ...]]:
    global _told
    while True:
        try:
            message = _client().blocking_key_value_get_bytes(f"jaxcnn/{_told}", PATIENCE)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise RuntimeError(f"process 0 of this launch is gone. {GONE}") from error
            continue
        _told += 1
        return pickle.loads(message)


def _give(answer: Any) -> None:
    """Process 0 waits for it, to the last message."""
    key = f"jaxcnn/{_told}/{jax.process_index()}"
    _client().key_value_set_bytes(key, pickle.dumps(answer))


def _answers() -> list[Any]:
    """Of the other processes."""
    found = []
    for i in range(1, jax.process_count()):
        with _explained():
            answer = _client().blocking_key_value_get_bytes(f"jaxcnn/{_told}/{i}", LONGEST)
        found.append(pickle.loads(answer))
    return found


def _meet() -> None:
    """Wait until all processes are here, however long reading the data takes each."""
    _client().wait_at_barrier(f"jaxcnn/{_told}", LONGEST)


def _pass_on(number: int, _: FrameType | None) -> None:
    _client().key_value_set("jaxcnn/stop", str(number), allow_overwrite=True)
