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

First all nets are compiled, some at once, in processes that end: ours at the batches of `NETS`, the
likeliest first, PyTorch's at the likeliest. What a compiler found stays in its own cache. Then, net
by net, all three contestants find it there; one at a time each has a block at every batch that is
ready, they take turns at their best ones, and a profile of ours says where its time goes.

The shares of the ceilings hold for the FLOP/s and bytes/s that are measured here first.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import contest
from contest import Failed, Worker

QUESTION = "How many images a second do the ImageNet nets train on this GPU, beside torchvision's?"
OURS, PEER, TWIN = "ours", "torchvision", "PyTorch twin (tests/torch_nets.py)"
EXAMPLES, CLASSES, BLOCK_SECONDS = 4096, 1000, 0.7
REPEATS = 3
EAGER, COMPILED = {"form": "eager"}, {"form": "compiled"}  # PyTorch's two
AT_ONCE = max(1, contest.CORES // 4)  # that compile: more wait for each other longer than they gain
WARM = 4  # steps of PyTorch until its CUDA graphs are recorded
AHEAD = 0.5  # of the time, at most, for compiling
BUILDING = 0.7  # of a net's time, at most
GOAL = 1.15  # ours / torchvision
H200 = {"tflops": 790, "tb": 4.3}  # what the memory-bound ceilings below were reckoned with


class Net(NamedTuple):
    ours: str
    theirs: str
    batches: tuple[int, ...]  # the likeliest first
    gflop: float  # of training on a picture
    memory: tuple[float, float]  # images/s that an H200's memory allows: usual, all fused
    layered: float  # images/s on an H200 with each layer at its own bound
    target: float  # images/s on an H200


# The quickest first: what one leaves of its time is the next ones'.
NETS = {
    "alexnet": Net(
        *("alexnet_owt", "alexnet", (1024, 2048)),
        *(4.1, (302_000, 349_000), 106_000, 40_000),
    ),
    "vgg16": Net(*("vgg16", "vgg16", (256,)), *(92.7, (18_900, 24_800), 5_200, 5_000)),
    "resnet50": Net(
        *("resnet50_v1.5", "resnet50", (256, 512)),
        *(24.3, (13_700, 23_900), 10_700, 7_000),
    ),
    "googlenet": Net(
        *("googlenet_bn", "googlenet", (512, 1024)),
        *(9.3, (41_000, 58_000), 29_500, 12_000),
    ),
    "resnet152": Net(
        *("resnet152_v1.5", "resnet152", (128, 256)),
        *(68.9, (6_700, 11_700), 4_500, 2_900),
    ),
}
MILESTONE = {"resnet50": 4_500}  # images/s, before the target

# A toy: small pictures, a small ResNet, and nothing compiled by PyTorch.
TOY_NETS, TOY_SIDE, TOY_EXAMPLES, TOY_BATCHES = ("resnet50",), 64, 16, (4, 8)
TOY_BLOCKS, TOY_WIDTHS = (1, 1), (16, 32)
TOY_CHANGES = {"resnet50": {"model.blocks": TOY_BLOCKS, "model.widths": TOY_WIDTHS}}


# The contestants, each in its own process -----------------------------------------------------


def ours(name: str, toy: bool) -> dict[str, Callable[..., Any]]:
    import jax
    import jax.numpy as jnp
    import traces

    from jaxcnn import backend, cohorts, config, nets, sharding, step

    backend.set_up()
    side, examples = (TOY_SIDE, TOY_EXAMPLES) if toy else (224, EXAMPLES)
    image = (side, side, 3)
    mesh = sharding.make_mesh(1, 1)
    pictures, classes = jax.random.split(jax.random.key(0))
    data = cohorts.Resident(
        images=jax.random.bits(pictures, (examples, *image), jnp.uint8),
        labels=jax.random.randint(classes, (examples,), 0, CLASSES),
        mean=jnp.full(3, 0.45),
        std=jnp.full(3, 0.23),
        covariance=0.05 * jnp.eye(3),
    )
    data = sharding.put(mesh, data)
    built: dict[int, tuple[Any, ...]] = {}  # by batch: the compiled program, its numbers, its order
    carries: dict[int, Any] = {}

    def build(size: int) -> float:
        """A program for batches of `size`, which has no memory of the device before it runs; the
        seconds that took.
        """
        start = time.perf_counter()
        changes = {"model.name": NETS[name].ours, "train.batch_size": size, "optim.lr": 0.01}
        changes |= {"train.precision": "bfloat16", **(TOY_CHANGES.get(name, {}) if toy else {})}
        run = config.override(config.Run(), changes)
        problem = nets.Problem(image, CLASSES, examples, 10**6)
        program = cohorts.program(step.static(run), problem, mesh)
        values = sharding.put(mesh, cohorts.stack([run]), "run")
        carry, order = program.init(values), program.order(values, 0)
        where = (jnp.int32(0), jnp.int32(1))
        compiled = program.advance.lower(carry, values, order, data, *where).compile()
        built[size] = (compiled, values, order)
        carries[size] = carry
        return round(time.perf_counter() - start, 1)

    def advance(size: int, steps: int) -> None:
        compiled, values, order = built[size]
        where = (jnp.int32(0), jnp.int32(steps))
        carries[size] = jax.block_until_ready(compiled(carries[size], values, order, data, *where))

    def block(size: int) -> float:
        """images/s over some whole epochs, after a step that does not count."""
        advance(size, 1)
        steps, done, start = examples // size, 0, time.perf_counter()
        while time.perf_counter() - start < (0 if toy and done else BLOCK_SECONDS):
            advance(size, steps)
            done += steps * size
        return done / (time.perf_counter() - start)

    def profile(size: int) -> dict[str, Any]:
        steps = min(8, examples // size)
        with traces.traced() as events:
            advance(size, steps)
        layers = traces.layers(built[size][0].as_text())
        return {
            "time": traces.shares(events, layers),
            "idle": traces.idle(events, steps),
            "longest": traces.longest(events, layers),
        }

    def facts(size: int) -> dict[str, Any]:
        carry = jax.device_get(carries[size])
        parameters = sum(a[0].size for a in jax.tree.leaves(carry.state.params))
        memory = jax.devices()[0].memory_stats() or {}
        return {
            "parameters": parameters,
            "loss": float(carry.sums["loss"][0] / carry.sums["count"][0]),
            "peak_memory_gb": round(memory.get("peak_bytes_in_use", 0) / 2**30, 1) or None,
        }

    own = {"who": lambda: OURS, "build": build, "block": block}
    return {**own, "profile": profile, "facts": facts}


def peer(name: str, toy: bool) -> dict[str, Callable[..., Any]]:
    import torch
    import torch._inductor.config as inductor
    from torch import nn

    device = "cpu" if toy else "cuda"
    inductor.max_autotune_conv_backends = inductor.max_autotune_gemm_backends = "ATEN"
    inductor.compile_threads = AT_ONCE
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    side, examples = (TOY_SIDE, TOY_EXAMPLES) if toy else (224, EXAMPLES)
    who, model = _theirs(name, toy)
    model = model.to(device, memory_format=torch.channels_last).train()
    fused = {} if toy else {"fused": True}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, **fused)
    # NHWC: seen as NCHW, gathered pictures are channels_last with no copy.
    shape = (examples, side, side, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    labels = torch.randint(0, CLASSES, (examples,), device=device)

    def loss(pictures: Any, classes: Any) -> Any:
        x = (pictures.permute(0, 3, 1, 2).float() / 255 - 0.45) / 0.23
        with torch.autocast(device, torch.bfloat16):
            out = model(x)
            # GoogLeNet's side heads
            heads = (out,) if isinstance(out, torch.Tensor) else tuple(out)
            losses = [nn.functional.cross_entropy(h, classes) for h in heads if h is not None]
            return losses[0] + 0.3 * sum(losses[1:])

    forms: dict[str, Any] = {"eager": loss}
    if not toy:
        forms["compiled"] = torch.compile(loss, mode="max-autotune", dynamic=False)
    last = 0.0

    def advance(size: int, form: str, steps: int) -> None:
        nonlocal last
        order = torch.randperm(examples, device=device)
        for i in range(steps):
            rows = order[i * size : (i + 1) * size]
            optimizer.zero_grad(set_to_none=True)
            value = forms[form](images[rows], labels[rows])
            value.backward()
            optimizer.step()
        last = value.item()  # waits for the device

    def build(size: int, form: str) -> float:
        start = time.perf_counter()
        advance(size, form, min(WARM, examples // size))
        return round(time.perf_counter() - start, 1)

    def block(size: int, form: str) -> float:
        advance(size, form, min(WARM, examples // size))
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < (0 if toy and done else BLOCK_SECONDS):
            advance(size, form, examples // size)
            done += examples // size * size
        return done / (time.perf_counter() - start)

    def facts() -> dict[str, Any]:
        parameters = sum(p.numel() for p in model.parameters())
        memory = None if toy else round(torch.cuda.max_memory_allocated() / 2**30, 1)
        return {"parameters": parameters, "loss": last, "peak_memory_gb": memory} | _versions()

    return {"who": lambda: who, "build": build, "block": block, "facts": facts}


def _versions() -> dict[str, str]:
    import importlib.metadata

    found = {}
    for name in ("torch", "torchvision"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def _theirs(name: str, toy: bool) -> tuple[str, Any]:
    """Who it is, and torchvision's net or, where there is none and in a toy, its twin."""
    import torch_nets
    from torch import nn

    try:
        import torchvision
    except ImportError:
        torchvision = None
    if torchvision is not None and not toy:
        more = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
        build = getattr(torchvision.models, NETS[name].theirs)
        return PEER, build(weights=None, num_classes=CLASSES, **more)
    blocks = {"resnet50": (3, 4, 6, 3), "resnet152": (3, 8, 36, 3)}
    widths: tuple[int, ...] = (64, 128, 256, 512)
    if toy:
        blocks["resnet50"], widths = TOY_BLOCKS, TOY_WIDTHS
    if name in blocks:
        return TWIN, torch_nets.ResNet(blocks[name], widths, CLASSES, bottleneck=True)
    side = TOY_SIDE // 32 if toy else 7
    if name == "googlenet":
        return TWIN, torch_nets.GoogLeNet(True, CLASSES)
    if name == "vgg16":
        net = torch_nets.vgg(16, False, (4096, 4096), CLASSES, side)
    else:
        net = torch_nets.alexnet_owt((4096, 4096), CLASSES, 1 if toy else 6)
    for i, layer in enumerate(net.classifier):  # the twins of the tests drop nothing
        if isinstance(layer, nn.Dropout):
            net.classifier[i] = nn.Dropout(0.5)
    return TWIN, net


def peaks() -> dict[str, Callable[..., Any]]:
    """What this card reaches: bfloat16 products of 8192x8192, and a sum over 2 GiB in place."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def best(f: Callable[[Any], Any], x: Any) -> float:
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            x = jax.block_until_ready(f(x))
            seconds.append(time.perf_counter() - start)
        return min(seconds[1:])

    def measure() -> dict[str, float]:
        n, times = 8192, 20
        w = jax.random.normal(jax.random.key(0), (n, n), jnp.bfloat16) / 100

        def product(x: Any) -> Any:
            return lax.fori_loop(0, times, lambda i, x: x @ w, x)

        flops = 2 * n**3 * times / best(jax.jit(product), w)
        x = jnp.zeros(2**29, jnp.float32)

        def add(x: Any) -> Any:
            return lax.fori_loop(0, times, lambda i, x: x + 1, x)

        traffic = 2 * x.nbytes * times / best(jax.jit(add, donate_argnums=0), x)
        return {"tflops_bf16": round(flops / 1e12, 1), "tb_per_s": round(traffic / 1e12, 2)}

    return {"measure": measure}


CONTESTANTS: dict[str, Callable[[str, bool], dict[str, Callable[..., Any]]]] = {
    "ours": ours,
    "peer": peer,
    "peaks": lambda name, toy: peaks(),
}


# The contest ----------------------------------------------------------------------------------


class Contestant(NamedTuple):
    worker: Worker
    form: dict[str, str]  # of PyTorch's two: which
    sizes: tuple[int, ...]  # batches, the likeliest first
    built: list[int]  # those that are ready


def contestant(
    name: str, form: dict[str, str], toy: bool, start: Callable[..., Worker]
) -> Contestant:
    sizes = TOY_BATCHES if toy else NETS[name].batches
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
    parser.add_argument("--work", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return contest.serve(CONTESTANTS[options.work](options.nets[0], options.toy))
    left = contest.countdown(options.seconds)
    toy, origin, environment = contest.gpu_or_toy(options.toy)

    def start(net: str, who: str) -> Worker:
        arguments = ["--work", who, "--nets", net, *(["--toy"] if toy else [])]
        return Worker(who, __file__, arguments, environment)

    nets = options.nets or (TOY_NETS if toy else list(NETS))
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
    return None


def settings(nets: Any, toy: bool, seconds: float) -> dict[str, Any]:
    return {
        "nets": {name: NETS[name]._asdict() for name in nets},
        "side": TOY_SIDE if toy else 224,
        "examples": TOY_EXAMPLES if toy else EXAMPLES,
        "toy_changes": TOY_CHANGES if toy else {},
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
