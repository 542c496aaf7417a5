"""The processes of a launch (hosts.py) on the CPU of this machine: started, watched, ended
together. Without jax, which is theirs.
"""

import ctypes
import math
import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

from jaxcnn.config import InputError
from jaxcnn.data import workers

# Where process 0 listens, and which one a process is; the first is jax's own.
ADDRESS, PROCESS = "JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
GRACE = 10  # seconds that processes have to end by themselves once one has
GONE = "What is saved stays, and the same command goes on, with another number of processes, too."


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
    # Who aborted itself did so because another was gone, failed or did not answer.
    last = {1: 1, -signal.SIGABRT: 2, 0: 3}
    ended.sort(key=lambda i: last.get(children[i].returncode, 0))
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
