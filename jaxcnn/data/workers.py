"""Processes that decode, beside the one that started them."""

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing import connection

OTHERS = 512  # files that are open beside the shards


def begin() -> None:
    """What each does first: one thread of OpenCV's, Ctrl-C left to whoever started it, and an end
    with it: of one that is killed, nobody else would end its processes.
    """
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def allow_files(count: int) -> None:
    """To be open at once, as far as the system lets us: a thousand is a usual limit."""
    with contextlib.suppress(ImportError):  # no such limits there
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = count + OTHERS
        if soft != resource.RLIM_INFINITY and soft < needed:
            most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def cores() -> int:
    limited = hasattr(os, "sched_getaffinity")  # a scheduler may give fewer cores than there are
    return len(os.sched_getaffinity(0)) if limited else os.cpu_count() or 1


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
