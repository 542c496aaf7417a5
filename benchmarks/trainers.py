"""The contestants of gpu_train.py: a process of this file is one of them and answers questions."""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import contest

OURS, PEER, TWIN = "ours", "torchvision", "PyTorch twin (tests/torch_nets.py)"
EXAMPLES, CLASSES, BLOCK_SECONDS = 4096, 1000, 0.7
AT_ONCE = max(1, contest.CORES // 4)  # that compile: more wait for each other longer than they gain
WARM = 4  # steps of PyTorch until its CUDA graphs are recorded


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

# A toy: small pictures, a small ResNet, and nothing compiled by PyTorch.
TOY_NETS, TOY_SIDE, TOY_EXAMPLES, TOY_BATCHES = ("resnet50",), 64, 16, (4, 8)
TOY_BLOCKS, TOY_WIDTHS = (1, 1), (16, 32)
TOY_CHANGES = {"resnet50": {"model.blocks": TOY_BLOCKS, "model.widths": TOY_WIDTHS}}


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A contestant of gpu_train.py.")
    parser.add_argument("who", choices=CONTESTANTS)
    parser.add_argument("net", choices=NETS)
    parser.add_argument("--toy", action="store_true", help="small, on a CPU")
    options = parser.parse_args()
    contest.serve(CONTESTANTS[options.who](options.net, options.toy))
