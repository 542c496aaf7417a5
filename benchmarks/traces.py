"""What a jax.profiler trace says of a GPU: how long it idles, and what its time goes to.

The events are those of the device's streams: kernels and copies, with the names that XLA and the
libraries give them. XLA names a kernel after its HLO instruction (`loop_add_fusion.3` runs as
`loop_add_fusion_3`), and the compiled program's text says which layer that came from.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple


class Event(NamedTuple):
    name: str
    start: float  # nanoseconds
    end: float


# A library's kernel is known by its own name, in this order.
LIBRARY = {
    "copies": r"memcpy|memset|nchwtonhwc|nhwctonchw|transpose|copy",
    "convolution": r"fprop|dgrad|wgrad|conv(?!ert)|cudnn|implicit",
    "matrix products": r"gemm|cutlass|cublas|nvjet|dot",
}
# One of XLA's by the layer that it, or the last operation fused into it, came from.
LAYER = {
    "BatchNorm": r"_bn/|BatchNorm",
    "pooling": r"reduce_window|select_and_scatter|/pool|_pool",
    "shuffling and pictures": r"permutation|shuffle|gather|augment",
}
ELEMENTWISE = "elementwise and the rest"
KINDS = (*LIBRARY, *LAYER, ELEMENTWISE)


@contextmanager
def traced() -> Iterator[list[Event]]:
    """The device's events of what runs within; there are none on a CPU."""
    import jax

    events: list[Event] = []
    with TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            yield events
        events += read(Path(folder))


def read(folder: Path, device: str = "/device:GPU:0") -> list[Event]:
    """Of the newest trace under `folder`, by start."""
    from jax.profiler import ProfileData

    newest = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    planes: Any = ProfileData.from_file(str(newest)).planes
    # A plane may be named with its card; its other lines repeat what the streams have.
    return sorted(
        (
            Event(event.name, event.start_ns, event.start_ns + event.duration_ns)
            for plane in planes
            if plane.name.split(" ")[0] == device
            for line in plane.lines
            if line.name.startswith("Stream")
            for event in line.events
        ),
        key=lambda event: event.start,
    )


def idle(events: Sequence[Event], steps: int) -> dict[str, float] | None:
    """Shares of the time from the start of the first of `steps` equal steps to the last event's
    end.

    `between_steps` is the time with nothing running between a step's last kernel and the next
    step's first; `all` has the gaps inside of steps too. What is part of a step occurs `steps`
    times, or a multiple; the loop's own condition occurs once more and is part of none.
    """
    counts = Counter(event.name for event in events)
    first = next((event.name for event in events if counts[event.name] == steps), None)
    if first is None:
        return None
    begin = next(i for i, event in enumerate(events) if event.name == first)
    reached, since, between, total = events[begin].start, 0.0, 0.0, 0.0
    for event in events[begin:]:
        gap = max(0.0, event.start - reached)
        reached = max(reached, event.end)
        total, since = total + gap, since + gap
        if event.name == first:
            between += since
        if counts[event.name] % steps == 0:
            since = 0.0
    span = reached - events[begin].start
    return {
        "between_steps": round(between / span, 4),
        "all": round(total / span, 4),
        "us_per_step": round(span / steps / 1e3, 2),
        "kernels_per_step": round(len(events[begin:]) / steps, 1),
    }


def layers(compiled: str) -> dict[str, str]:
    """Kernel name -> where its HLO instruction came from, of a compiled program's text."""
    found = {}
    for line in compiled.splitlines():
        match = re.match(r'\s*(?:ROOT )?%?([\w.-]+) = .*op_name="([^"]*)"', line)
        if match:
            found[re.sub(r"[.-]", "_", match[1])] = match[2]
    return found


def kind(name: str, where: Mapping[str, str]) -> str:
    """One of `KINDS`."""
    source = where.get(re.sub(r"[.-]", "_", name), "")
    for words, table in ((name, LIBRARY), (source, LAYER)):
        for found, pattern in table.items():
            if re.search(pattern, words, re.IGNORECASE):
                return found
    return ELEMENTWISE


def shares(events: Sequence[Event], where: Mapping[str, str]) -> dict[str, float] | None:
    """Of the time in kernels and copies, by `KINDS`."""
    total = sum(event.end - event.start for event in events)
    if not total:
        return None
    spent = Counter(dict.fromkeys(KINDS, 0.0))
    for event in events:
        spent[kind(event.name, where)] += event.end - event.start
    return {name: round(spent[name] / total, 4) for name in KINDS}


def longest(events: Sequence[Event], where: Mapping[str, str], n: int = 12) -> list[dict[str, Any]]:
    """The `n` kernels that take most of the time: what to look at first."""
    total = sum(event.end - event.start for event in events)
    spent: Counter[str] = Counter()
    for event in events:
        spent[event.name] += event.end - event.start  # type: ignore[assignment]
    return [
        {"kernel": name[:120], "kind": kind(name, where), "share": round(time / total, 4)}
        | {"from": where.get(re.sub(r"[.-]", "_", name), "")[-120:]}
        for name, time in spent.most_common(n)
    ]
