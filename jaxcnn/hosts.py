"""One launch of several processes, on one machine or many, whose devices are one mesh.

Process 0 leads: it alone decides, reads checkpoints and writes records, by the code of a launch of
one process. The others follow: they hear each call of `Lanes` from it and make it, too, so all run
the same programs in the same order, each on its share of every batch, BatchNorm over the whole.

Who is gone is missed: a collective that lacks a process fails at once or, where nothing was closed,
jax's coordination service ends the others after `MISSED` seconds. The same command goes on from the
last checkpoint, with another number of processes too.
"""

import contextlib
import ctypes
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
from jaxcnn.data import workers
from jaxcnn.data.streamed import Pictures
from jaxcnn.lanes import Lanes
from jaxcnn.step import Problem

MISSED = 20
GRACE = 10  # seconds that processes have to end by themselves once one has
PATIENCE = 1_000  # milliseconds between a follower's looks at its signals
LONGEST = 3_600_000  # milliseconds that processes wait for each other's reading of the data
KEPT = 1_000  # messages; no follower is so far behind
ADDRESS, PROCESS = "JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
GONE = "What is saved stays, and the same command goes on, with another number of processes, too."
_told = 0  # messages so far
_gone = False  # whether a process is
_ended = False  # whether process 0 has said so


# A launch -----------------------------------------------------------------------------------------


def number(text: str) -> int | None:
    """Of processes; None for 'auto', as a scheduler has it."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--hosts: {text!r} is not 'auto' or a number from 1 on.")
    return int(text)


def started() -> bool:
    """Whether this process is one of them, by who set `ADDRESS`, and has none to start."""
    return ADDRESS in os.environ


def local(processes: int) -> int:
    """This very command as `processes` processes on the CPU of this machine, its cores shared out;
    the exit code of process 0. Raises `RuntimeError` where one was killed; the others end with it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    own = {"JAX_NUM_CPU_DEVICES": str(max(1, workers.cores() // processes)), **os.environ}
    own |= {"JAX_PLATFORMS": "cpu", ADDRESS: address}
    children = [
        subprocess.Popen(
            [sys.executable, *sys.argv],
            env={**own, PROCESS: str(i)},
            stdout=subprocess.DEVNULL if i else None,
            start_new_session=True,  # Ctrl-C comes here alone, and goes on to process 0
            preexec_fn=_stop_with_parent if sys.platform == "linux" else None,
        )
        for i in range(processes)
    ]

    def forward(number: int, _: FrameType | None) -> None:
        children[0].send_signal(number)

    for each in SIGNALS:
        signal.signal(each, forward)
    ended: list[int] = []  # in order
    until = math.inf
    while len(ended) < processes and time.monotonic() < until:
        ended += [i for i, c in enumerate(children) if i not in ended and c.poll() is not None]
        if 0 in ended or any(children[i].returncode for i in ended):
            until = min(until, time.monotonic() + GRACE)
        time.sleep(0.05)
    silent = [i for i in range(processes) if i not in ended]
    code = children[0].poll()
    for child in children:
        child.kill()
        child.wait()
    if code is not None and (code in (0, 2) or code > 128):  # done, refused, stopped
        return code
    # Who aborted itself did so because another was gone or did not answer.
    ended.sort(key=lambda i: children[i].returncode in (0, 1, -signal.SIGABRT))
    first = children[ended[0]].returncode
    if first == -signal.SIGABRT and silent:
        raise RuntimeError(f"process {silent[0]} of {processes} does not answer. {GONE}")
    if first < 0:
        name = signal.Signals(-first).name
        raise RuntimeError(f"process {ended[0]} of {processes} was ended by {name}. {GONE}")
    return 1  # who failed has said why


def _stop_with_parent() -> None:
    """Where it is killed, nobody else would tell its processes."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


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
            _tell(name, *args)
            with _explained():
                return getattr(self._own, name)(*args)

        return call

    def unread(self) -> list[tuple[str, str]]:
        """Of all processes."""
        _tell("unread")
        found = self._own.unread()
        for i in range(1, jax.process_count()):
            with _explained():
                answer = _client().blocking_key_value_get_bytes(_answer(i), LONGEST)
            found += pickle.loads(answer)
        return found


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
        if name != "begin":
            with _explained():
                answer = getattr(own, name)(*args)
            if name == "unread":
                _client().key_value_set_bytes(_answer(jax.process_index()), pickle.dumps(answer))
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
        if memory.exhausted(error):
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


def _answer(process: int) -> str:
    """The key of what a process answers to the last message."""
    return f"jaxcnn/{_told}/{process}"


def _meet() -> None:
    """Wait until all processes are here, however long reading the data takes each."""
    _client().wait_at_barrier(f"jaxcnn/{_told}", LONGEST)


def _pass_on(number: int, _: FrameType | None) -> None:
    _client().key_value_set("jaxcnn/stop", str(number), allow_overwrite=True)
