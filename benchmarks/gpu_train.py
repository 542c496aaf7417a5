"""How many images a second do the ImageNet nets train on this GPU, beside torchvision's?

    python benchmarks/gpu_train.py --write                  # all five, in at most ten minutes
    python benchmarks/gpu_train.py --nets resnet50 --write  # one, with all the time for its batches
    python benchmarks/gpu_train.py --toy                    # that it runs, on a CPU

Both train the same net at 224 pixels in bfloat16 with float32 weights by SGD with momentum 0.9, on
random pictures of bytes that stay on the device and are gathered and normalised in each step. Ours
is the project's own program, many steps a dispatch, with its metrics and its shuffling. PyTorch is
channels_last under bf16 autocast with fused SGD, eagerly and through
torch.compile(mode="max-autotune"), whose convolutions and matrix products are cuDNN's and cuBLAS's:
to write its own in Triton for every shape, and to time them all, takes more than the ten minutes.

First all nets are compiled, some at once, in processes that end (trainers.py): ours at the batches
of `NETS`, the likeliest first, PyTorch's at the likeliest. What a compiler found stays in its own
cache. Then, net by net, all three contestants find it there; one at a time each has a block at
every batch that is ready, they take turns at their best ones, and a profile of ours says where its
time goes.

The shares of the ceilings hold for the FLOP/s and bytes/s that are measured here first.
"""

import argparse
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import contest
import trainers
from contest import Failed, Worker
from trainers import AT_ONCE, NETS, OURS, PEER, TWIN

QUESTION = "How many images a second do the ImageNet nets train on this GPU, beside torchvision's?"
REPEATS = 3
EAGER, COMPILED = {"form": "eager"}, {"form": "compiled"}  # PyTorch's two
AHEAD = 0.5  # of the time, at most, for compiling
BUILDING = 0.7  # of a net's time, at most
GOAL = 1.15  # ours / torchvision
H200 = {"tflops": 790, "tb": 4.3}  # what the memory-bound ceilings of `NETS` were reckoned with
MILESTONE = {"resnet50": 4_500}  # images/s, before the target


class Contestant(NamedTuple):
    worker: Worker
    form: dict[str, str]  # of PyTorch's two: which
    sizes: tuple[int, ...]  # batches, the likeliest first
    built: list[int]  # those that are ready


def contestant(
    name: str, form: dict[str, str], toy: bool, start: Callable[..., Worker]
) -> Contestant:
    sizes = trainers.TOY_BATCHES if toy else NETS[name].batches
    who = "peer" if form else "ours"
    return Contestant(start(name, who), form, sizes[:1] if form == COMPILED else sizes, [])


def build(
    all_: list[Contestant], left: Callable[[], float], took: dict[str, float], failed: list[str]
) -> None:
    """All at once; who is not ready in time is ended, and named in `failed`."""

    def one(own: Contestant) -> None:
        if own.form:
            own.worker.name = f"{own.worker.ask('who', left())}, {own.form['form']}"
        seconds = 0.0
        for size in own.sizes:
            if own.built and left() < 2 * seconds:
                return  # too late to begin another
            seconds = own.worker.ask("build", left(), size=size, **own.form)
            took[f"{own.worker.name}, batch {size}"] = seconds
            own.built.append(size)

    with ThreadPoolExecutor(len(all_)) as pool:
        for done in [pool.submit(one, own) for own in all_]:
            try:
                done.result()
            except Failed as error:
                failed.append(str(error))


def ahead(
    results: dict[str, Any], toy: bool, left: Callable[[], float], start: Callable[..., Worker]
) -> None:
    """What takes long to compile, of all nets, into the compilers' caches; each process ends, and
    gives its memory back, as soon as it is done.
    """

    def one(name: str, form: dict[str, str]) -> None:
        found, began = results[name], left()
        if began <= 0:
            found["failed"].append(f"{form.get('form', OURS)}: not tried: no time left")
            return
        own = contestant(name, form, toy, start)
        with own.worker:
            build([own], left, found["compile_s"], found["failed"])
        print(f"  {name}, {own.worker.name}: over after {began - left():.0f} s", flush=True)

    print("Compiling:", flush=True)
    forms = [{}] if toy else [COMPILED, {}]
    ways = [(name, form) for name in reversed(results) for form in forms]  # the longest first
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda way: one(*way), ways))


def best(found: dict[int, Any]) -> int:
    """The batch of most images/s."""
    speeds = {size: v for size, v in found.items() if not isinstance(v, str)}
    if not speeds:
        raise Failed(next(iter(found.values())) if found else "nothing was ready in its time")
    return max(speeds, key=lambda size: speeds[size])


def measure(
    found: dict[str, Any], all_: list[Contestant], toy: bool, left: Callable[[], float]
) -> None:
    """One net, into `found`, one contestant at a time."""
    turns: dict[str, tuple[Worker, dict[str, Any]]] = {}
    for worker, form, _, built in all_:
        speeds = found["sweep"][worker.name] = {}
        for size in built:
            try:
                speeds[size] = round(worker.ask("block", max(left(), 20), size=size, **form), 1)
                print(f"  {worker.name}, batch {size}: {speeds[size]:,.0f} images/s", flush=True)
            except Failed as error:
                speeds[size] = str(error)
                found["failed"].append(f"batch {size}: {error}")
        with suppress(Failed):
            turns[worker.name] = (worker, {"size": best(speeds), **form})
    if OURS not in turns:
        raise Failed(f"{OURS}: no batch could be measured")
    found["batch"] = turns[OURS][1]["size"]
    seconds: dict[str, list[float]] = {who: [] for who in turns}
    for _ in range(2 if toy else REPEATS):
        for who, (worker, what) in turns.items():
            seconds[who].append(worker.ask("block", 60, **what))
    found["images_per_s"] = {who: contest.spread(speeds, 1) for who, speeds in seconds.items()}
    for who in seconds.keys() - {OURS}:
        found[f"ours / {who}"] = contest.ratio(seconds[OURS], seconds[who])
    mine, eager, own = all_[0].worker, all_[1].worker, {"size": found["batch"]}
    for what, worker, asked in (
        ("profile", mine, own),
        ("facts", mine, own),
        ("peer_facts", eager, {}),
    ):
        try:
            found[what] = worker.ask(what.removeprefix("peer_"), max(left(), 20), **asked)
        except Failed as error:
            found["failed"].append(f"{what}: {error}")


def columns(name: str, found: dict[str, Any], card: dict[str, Any]) -> dict[str, Any]:
    """The GPU's figures of a net; None: not measured."""
    net, speed = NETS[name], found.get("images_per_s", {})
    mine = speed.get(OURS, {}).get("median")
    theirs = {
        f"{word}_{form}_images_per_s": speed.get(f"{who}, {form}", {}).get("median")
        for word, who in (("torchvision", PEER), ("twin", TWIN))
        for form in ("compiled", "eager")
    }
    flops, traffic = card.get("tflops_bf16"), card.get("tb_per_s")
    bounds = {
        "compute": flops and flops * 1e3 / net.gflop,
        "memory": traffic and net.memory[0] * traffic / H200["tb"],
        "memory_fused": traffic and net.memory[1] * traffic / H200["tb"],
        "layer_by_layer_h200": net.layered if "H200" in card.get("kind", "") else None,
    }
    return {
        "ours_images_per_s": mine,
        **theirs,
        **{
            f"ours_over_{word}_{form}": found.get(f"ours / {who}, {form}", {}).get("median")
            for word, who in (("torchvision", PEER), ("twin", TWIN))
            for form in ("compiled", "eager")
        },
        "share_of_ceiling": {w: mine and b and round(mine / b, 3) for w, b in bounds.items()},
        "time": (found.get("profile") or {}).get("time"),
        "idle": (found.get("profile") or {}).get("idle"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--nets", nargs="+", choices=NETS, help="these alone")
    parser.add_argument("--seconds", type=float, default=570, help="for all of it")
    parser.add_argument("--toy", action="store_true", help="small, on a CPU: that it runs")
    parser.add_argument("--write", action="store_true", help="a record in benchmarks/records/")
    options = parser.parse_args()
    left = contest.countdown(options.seconds)
    toy, origin, environment = contest.gpu_or_toy(options.toy)

    def start(net: str, who: str) -> Worker:
        arguments = [who, net, *(["--toy"] if toy else [])]
        return Worker(who, trainers.__file__, arguments, environment)

    nets = options.nets or (trainers.TOY_NETS if toy else list(NETS))
    card: dict[str, Any] = {"kind": origin["device"]["kind"]}
    if not toy:
        try:
            with start(nets[0], "peaks") as worker:
                card |= worker.ask("measure", min(60, left()))
            print(f"{card['kind']}: {card['tflops_bf16']} TFLOP/s, {card['tb_per_s']} TB/s")
        except Failed as error:
            print(error)
    results: dict[str, Any] = {
        name: {"compile_s": {}, "loaded_s": {}, "sweep": {}, "failed": []} for name in nets
    }
    ahead(results, toy, contest.countdown(AHEAD * left()), start)
    with ExitStack() as stack:
        forms = ({}, EAGER) if toy else ({}, EAGER, COMPILED)
        all_ = {name: [contestant(name, form, toy, start) for form in forms] for name in nets}
        for own in itertools.chain(*all_.values()):
            stack.enter_context(own.worker)
        for own in itertools.chain(*all_.values()):  # imported at once, before a net's time begins
            with suppress(Failed):
                own.worker.ask("who", left())
        for i, name in enumerate(nets):
            part, found = contest.countdown(left() / (len(nets) - i)), results[name]
            print(f"{name}:", flush=True)
            try:
                ready = contest.countdown(BUILDING * part())
                build(all_[name], ready, found["loaded_s"], found["failed"])
                print(f"  ready in {found['loaded_s']}", flush=True)
                measure(found, all_[name], toy, part)
            except Failed as error:
                found["failed"].append(str(error))
            for own in all_[name]:  # their memory is the next net's
                own.worker.stop()
            for words in found["failed"]:
                print(f"  failed: {words}", flush=True)
    gpu = {name: columns(name, found, card) for name, found in results.items()}
    show(results, gpu, toy)
    if options.write:
        record = {"question": QUESTION, "toy": toy, "note": contest.TOY if toy else "", **origin}
        record |= {"settings": settings(nets, toy, options.seconds), "card": card}
        record |= {"gpu": contest.emptied(gpu) if toy else gpu}
        record |= {"toy_on_cpu" if toy else "measured": results}
        words = [
            *(["toy"] if toy else []),
            *(options.nets or []),
            contest.machine(origin["device"]),
        ]
        contest.write("gpu_train", " ".join(words), record)


def settings(nets: Any, toy: bool, seconds: float) -> dict[str, Any]:
    return {
        "nets": {name: NETS[name]._asdict() for name in nets},
        "side": trainers.TOY_SIDE if toy else 224,
        "examples": trainers.TOY_EXAMPLES if toy else trainers.EXAMPLES,
        "toy_changes": trainers.TOY_CHANGES if toy else {},
        "seconds": seconds,
        "goal_over_torchvision": GOAL,
        "milestone_images_per_s": MILESTONE,
        "ceilings": H200,
    }


def show(results: dict[str, Any], gpu: dict[str, Any], toy: bool) -> None:
    import traces
    from rich.console import Console
    from rich.table import Table

    def words(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    console = Console(highlight=False)
    if toy:
        table = Table("net", "contestant", "images/s on this CPU", title=contest.TOY)
        for name, found in results.items():
            for who, speed in found.get("images_per_s", {}).items():
                table.add_row(name, who, f"{speed['median']:.1f}")
        console.print(table)
        return
    table = Table(
        *("net", "batch", "ours, images/s", "torchvision, compiled", "eager", "ours / torchvision"),
        *("target", "of compute", "of memory", "of layer by layer"),
        title="Training, 224 pixels, bfloat16",
    )
    for name, row in gpu.items():
        share = row["share_of_ceiling"]
        table.add_row(
            *(
                name,
                words(results[name].get("batch"), "d"),
                words(row["ours_images_per_s"], ",.0f"),
            ),
            words(row["torchvision_compiled_images_per_s"], ",.0f"),
            words(row["torchvision_eager_images_per_s"], ",.0f"),
            words(row["ours_over_torchvision_compiled"], ".2f"),
            f"{NETS[name].target:,.0f}",
            *(words(share[w], ".0%") for w in ("compute", "memory", "layer_by_layer_h200")),
        )
    console.print(table)
    if not any(row["torchvision_compiled_images_per_s"] for row in gpu.values()):
        console.print("torchvision took no part: not installed, or failed as said above.")
    for name, found in results.items():
        for who, speed in found.get("images_per_s", {}).items():
            if TWIN in who:
                console.print(f"{name}: {who}: {speed['median']:,.0f} images/s")
    where = Table("net", *traces.KINDS, title="Where the time of ours goes")
    for name, row in gpu.items():
        time_of = row["time"] or {}
        where.add_row(name, *(words(time_of.get(kind), ".0%") for kind in traces.KINDS))
    console.print(where)


if __name__ == "__main__":
    main()
