"""How should runs of a small net stand side by side on this GPU?

    python benchmarks/gpu_sweep.py --write  # in at most ten minutes
    python benchmarks/gpu_sweep.py --nets lenet5 --runs 1 256 --strategies vmap "scan over runs"
    python benchmarks/gpu_sweep.py --toy    # that it runs, on a CPU

R runs of LeNet-5 and of the CIFAR AlexNet, each with its own seed and learning rate, train together
in bfloat16 on random pictures that stay on the device. The strategies at each R, each a process of
its own, compile first, some at the same time; then, with nothing else on the card, those of one R
take turns, as many side by side as XLA says that there is memory for:

| strategy | what |
|---|---|
| vmap | the project's program: convolutions of few channels as products (jaxcnn/kernels.py) |
| vmap, blocks | the same, each product over a few columns of the output, not a whole row |
| vmap, grouped convolution | the same with `lax`'s convolutions, which `vmap` groups |
| vmap, im2col | the same, each convolution as a gathering of patches and a batched product |
| scan over runs | one run after the other inside one program |
| several streams | processes that share the GPU, each with a scan over its part of the runs |

And does the GPU idle between the steps of one LeNet-5? A profile of the project's program, which
takes the number of steps as a traced number, and of a scan over as many steps, says how long.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import contest
from contest import Failed, Worker

QUESTION = "How should runs of a small net stand side by side on this GPU?"
VMAP, BLOCKS, GROUPED, IM2COL, SCAN, STREAMS = STRATEGIES = (
    "vmap",
    "vmap, blocks",
    "vmap, grouped convolution",
    "vmap, im2col",
    "scan over runs",
    "several streams",
)
RUNS = (1, 256, 16, 64, 4)  # what the goal needs first
MOST_STREAMS, BLOCK_SECONDS, REPEATS = 4, 0.4, 3
BUILDING = 0.6  # of the time, at most
AT_ONCE = max(1, contest.CORES // 2)  # that compile: more wait for each other longer than they gain
GOAL = 8  # 256 runs of LeNet-5 in at most so many times the time of one
IDLE_GOAL, IDLE_STEPS = 0.05, 192
MPS = Path(tempfile.gettempdir()) / "nvidia-mps"  # without its daemon, processes take turns


class Net(NamedTuple):
    changes: dict[str, Any]
    image: tuple[int, int, int]
    batch: int
    examples: int  # as its data set has them without the validation split
    share: float  # of the time


NETS = {
    "lenet5": Net(
        {"model.pool": "max", "model.activation": "relu"}, (28, 28, 1), 128, 55_000, 0.55
    ),
    "alexnet_cifar": Net({"model.lrn": None}, (32, 32, 3), 128, 45_000, 0.45),
}
TOY_NETS, TOY_BATCH, TOY_EXAMPLES = ["lenet5"], 4, 64  # the other compiles for too long
TOY_RUNS = {"lenet5": (1, 2), "alexnet_cifar": (2,)}


# The contestants, each in its own process -----------------------------------------------------


def side_by_side(strategy: str, toy: bool) -> dict[str, Callable[..., Any]]:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import traces

    from jaxcnn import backend, cohorts, config, kernels, memory, nets, sharding, step

    backend.set_up()
    if strategy == BLOCKS:
        kernels.ROW = 0
    if strategy == GROUPED:
        kernels._narrow = lambda w, stride: False
    if strategy == IM2COL:
        kernels.conv = im2col
    if strategy in (SCAN, STREAMS):
        cohorts._side_by_side = one_after_the_other
    mesh = sharding.make_mesh(1, 1)
    now: dict[str, Any] = {}

    def build(net: str, runs: int, first: int = 0) -> dict[str, float]:
        """Steps of runs `first` to `first + runs`, compiled, with nothing of them on the device
        yet: the seconds that took, the bytes that they need, and those that there are.
        """
        start = time.perf_counter()
        changes, image, batch, examples, _ = NETS[net]
        batch, examples = (TOY_BATCH, TOY_EXAMPLES) if toy else (batch, examples)
        changes = {"model.name": net, "train.batch_size": batch, **changes}
        run = config.override(config.Run(), changes | {"train.precision": "bfloat16"})
        different = [
            config.override(run, {"seed": i, "optim.lr": 0.01 + i / 1e5})
            for i in range(first, first + runs)
        ]
        now["run"], now["problem"] = run, nets.Problem(image, 10, examples, 10**6)
        now["numbers"] = cohorts.stack(different)
        need = memory.need(step.static(run), now["problem"], mesh, runs, examples)
        took = round(time.perf_counter() - start, 1)
        return {"seconds": took, "bytes": need, "room": memory.room(1) or 0}

    def begin() -> None:
        """The runs and their data, on the device, and a first step."""
        image, examples = now["problem"].image_shape, now["problem"].train_examples
        random = np.random.default_rng(0)
        data = cohorts.Resident(
            images=random.integers(0, 256, (examples, *image), np.uint8),  # type: ignore[arg-type]
            labels=random.integers(0, 10, examples, np.int32),  # type: ignore[arg-type]
            mean=np.full(image[-1], 0.5, np.float32),  # type: ignore[arg-type]
            std=np.full(image[-1], 0.25, np.float32),  # type: ignore[arg-type]
            covariance=0.06 * np.eye(image[-1], dtype=np.float32),  # type: ignore[arg-type]
        )
        now["program"] = cohorts.program(step.static(now["run"]), now["problem"], mesh)
        now["values"] = sharding.put(mesh, now["numbers"], "run")
        now["data"] = sharding.put(mesh, data)
        now["carry"] = now["program"].init(now["values"])
        now["order"] = now["program"].order(now["values"], 0)
        block(1)

    def block(steps: int) -> float:
        """Seconds for `steps` steps of every run, in one dispatch."""
        start = time.perf_counter()
        now["carry"] = jax.block_until_ready(advance(steps))
        return time.perf_counter() - start

    def arguments(steps: int) -> tuple[Any, ...]:
        running = (now[k] for k in ("carry", "values", "order", "data"))
        return *running, jnp.int32(0), jnp.int32(steps)

    def advance(steps: int) -> Any:
        return now["program"].advance(*arguments(steps))

    def profile(steps: int) -> dict[str, Any]:
        """Where the time of a dispatch goes."""
        lowered = now["program"].advance.lower(*arguments(steps))
        layers = traces.layers(lowered.compile().as_text())
        with traces.traced() as events:
            now["carry"] = jax.block_until_ready(advance(steps))
        return {
            "time": traces.shares(events, layers),
            "longest": traces.longest(events, layers, n=24),
        }

    def idle(steps: int) -> dict[str, Any]:
        """Of the program as it is, and of a scan; each in one dispatch after a first one."""
        run, problem = step.static(now["run"]), now["problem"]
        size = run.train.batch_size

        def scan(*runs_and_data: Any) -> Any:
            *runs, data = runs_and_data
            carry, values, order = jax.tree.map(lambda a: a[0], runs)

            def one(carry: Any, i: Any) -> Any:
                rows = jax.lax.dynamic_slice(order, (i * size,), (size,))
                state, sums = step.train_step(
                    *(run, problem, carry.state, data.images[rows], data.labels[rows]),
                    *(data.moments, values),
                )
                return cohorts.Carry(state, jax.tree.map(jnp.add, carry.sums, sums)), None

            carry, _ = jax.lax.scan(one, carry, jnp.arange(steps))
            return jax.tree.map(lambda a: a[None], carry)

        fixed = jax.jit(scan, donate_argnums=0)
        dispatches = {
            "the project's program": lambda: advance(steps),
            "scan of fixed length": lambda: fixed(*arguments(steps)[:4]),
        }
        found: dict[str, Any] = {}
        for name, dispatch in dispatches.items():
            seconds = []
            for _ in range(4):  # compiled, and its graphs recorded
                start = time.perf_counter()
                now["carry"] = jax.block_until_ready(dispatch())
                seconds.append(time.perf_counter() - start)
            with traces.traced() as events:
                now["carry"] = jax.block_until_ready(dispatch())
            found[name] = {
                "us_per_step_without_profile": round(min(seconds[1:]) / steps * 1e6, 1),
                "profile": traces.idle(events, steps),
                "time": traces.shares(events, {}),
                "longest": traces.longest(events, {}),
            }
        return found

    return {"build": build, "begin": begin, "block": block, "profile": profile, "idle": idle}


def im2col(x: Any, w: Any, *, stride: Any = (1, 1), padding: Any = "SAME", groups: int = 1) -> Any:
    """`kernels.conv` as one product with every window written out."""
    from jaxcnn import kernels

    if groups != 1:
        raise ValueError(f"groups: {groups}; this contestant has no grouped convolution")
    stride = kernels._pair(stride)
    pads = kernels._pads(x.shape[1:3], w.shape[:2], stride, padding)
    return kernels._patches_conv(x, w, stride, pads)


def one_after_the_other(mesh: Any, f: Callable[..., Any], runs: int, shared: int) -> Any:
    """`cohorts._side_by_side` by a scan over the run axis, on one device."""
    from jax import lax

    def block(*args: Any) -> Any:
        return lax.map(lambda own: f(*own, *args[runs:]), args[:runs])

    return block


# The contest ----------------------------------------------------------------------------------


class Team:
    """A strategy's processes at a number of runs: one, or for several streams as many as share
    them.
    """

    def __init__(self, strategy: str, runs: int, count: int, start: Callable[[str], Worker]):
        self.strategy, self.runs, self.steps = strategy, runs, 1
        self.built_s, self.bytes, self.room = 0.0, 0.0, 0.0
        self.start, self.count = start, min(count, runs)
        self.workers: list[Worker] = []

    def build(self, net: str, left: Callable[[], float]) -> None:
        """One process after the other: the first compiles, and the others find it compiled."""
        each = self.runs // self.count
        for i in range(self.count):
            if left() <= 0:
                raise Failed("not tried: no time left")
            self.workers.append(self.start(self.strategy))
            found = self.workers[-1].ask("build", left(), net=net, runs=each, first=i * each)
            self.built_s += found["seconds"]
            self.bytes += found["bytes"]
            self.room = found["room"]

    def ask(self, what: str, left: Callable[[], float], **arguments: Any) -> list[Any]:
        """All its processes at once; every answer is taken, so that the next is to the next."""
        for worker in self.workers:
            worker.send(what, **arguments)
        answers, failed = [], []
        for worker in self.workers:
            try:
                answers.append(worker.receive(left()))
            except Failed as error:
                failed.append(error)
        if failed:
            raise failed[0]
        return answers

    def block(self, left: Callable[[], float]) -> float:
        """Seconds for a step of all runs."""
        start = time.perf_counter()
        own = self.ask("block", left, steps=self.steps)
        return (time.perf_counter() - start if len(own) > 1 else own[0]) / self.steps

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()


Results = dict[int, dict[str, Any]]  # runs -> strategy -> figures, or why there are none


def that_fit(teams: list[Team]) -> list[list[Team]]:
    """In groups, each of which fits into the device's memory; what does not is alone."""
    groups: list[list[Team]] = []
    for team in teams:
        if groups and sum(other.bytes for other in (*groups[-1], team)) <= team.room:
            groups[-1].append(team)
        else:
            groups.append([team])
    return groups


def measure(
    net: str,
    sizes: Sequence[int],
    strategies: Sequence[str],
    toy: bool,
    start: Callable[[str], Worker],
    left: Callable[[], float],
) -> tuple[Results, dict[str, Any] | str]:
    """The strategies at each number of runs, and of LeNet-5 how long the GPU idles."""
    batch, examples = (TOY_BATCH, TOY_EXAMPLES) if toy else NETS[net][2:4]
    count = {STREAMS: 2 if toy else MOST_STREAMS}
    results: Results = {runs: {} for runs in sizes}
    if 1 in results and STREAMS in strategies:
        results[1][STREAMS] = "as the scan"
    ways = [(s, runs) for runs in sizes for s in strategies if s not in results[runs]]
    teams = [Team(s, runs, count.get(s, 1), start) for s, runs in ways]
    idle: dict[str, Any] | str = "not measured"

    def able(teams: list[Team], act: Callable[[Team], Any]) -> list[Team]:
        """Those that could, some at once; why others could not is in the table."""

        def one(team: Team) -> str:
            try:
                act(team)
            except Failed as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(AT_ONCE) as pool:
            words = dict(zip(teams, pool.map(one, teams), strict=True))
        for team, failed in words.items():
            if failed:
                print(f"  {team.runs} runs, {team.strategy}: {failed}", flush=True)
                results[team.runs][team.strategy] = failed
                team.stop()
        return [team for team in teams if not words[team]]

    def looked_at(team: Team, what: str, steps: int) -> dict[str, Any] | str:
        try:
            return team.ask(what, lambda: max(left(), 20), steps=steps)[0]
        except Failed as error:
            return str(error)

    def figures(team: Team, seconds: list[float]) -> dict[str, Any]:
        middle = statistics.median(seconds)
        print(
            f"  {team.runs} runs, {team.strategy}: {middle * 1e3:.2f} ms a step of all,"
            f" {team.runs * batch / middle:,.0f} images/s",
            flush=True,
        )
        return {
            "ms_per_step_of_all": contest.spread([s * 1e3 for s in seconds]),
            "images_per_s": round(team.runs * batch / middle, 1),
            "compile_s": team.built_s,
            "needs_gb": round(team.bytes / 1e9, 2),
            "processes": len(team.workers),
        }

    building = contest.countdown(left() * BUILDING)
    ready = able(teams, lambda team: team.build(net, building))
    for runs in sizes:
        for group in that_fit([team for team in ready if team.runs == runs]):
            seconds: dict[str, list[float]] = {team.strategy: [] for team in group}

            def fill(team: Team) -> None:
                """How many steps a block has."""
                once = min(team.block(left) for _ in range(2))
                team.steps = max(1, min(examples // batch, round(BLOCK_SECONDS / once)))

            def turn(team: Team, seconds: dict[str, list[float]] = seconds) -> None:
                seconds[team.strategy].append(team.block(left))

            running = able(group, lambda team: team.ask("begin", left))
            for act in [fill, *[turn] * (2 if toy else REPEATS)]:
                running = [team for team in running if able([team], act)]
            for team in running:
                found = results[runs][team.strategy] = figures(team, seconds[team.strategy])
                if (team.strategy, runs) == (VMAP, max(sizes)):
                    found["profile"] = looked_at(team, "profile", 2)
                if (net, team.strategy, runs) == ("lenet5", VMAP, 1):
                    idle = looked_at(team, "idle", 8 if toy else IDLE_STEPS)
            able(running, Team.stop)
    return results, idle


def decided(results: Results) -> dict[str, Any]:
    """The fastest strategy at each R, and the time of the most runs over that of one."""
    times = {
        runs: {w: v["ms_per_step_of_all"]["median"] for w, v in by.items() if isinstance(v, dict)}
        for runs, by in results.items()
    }
    fastest = {runs: min(by, key=lambda w: by[w]) if by else None for runs, by in times.items()}
    least = {runs: min(by.values()) for runs, by in times.items() if by}
    most = max(results)
    both = 1 in least and most in least and most > 1
    return {
        "strategy": fastest,
        f"{most} runs over 1": round(least[most] / least[1], 2) if both else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--nets", nargs="+", choices=NETS, help="these alone")
    sizes = sorted({*RUNS, *TOY_RUNS["lenet5"]})  # several streams share each out evenly
    parser.add_argument("--runs", nargs="+", type=int, choices=sizes, help="so many side by side")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--seconds", type=float, default=570, help="for all of it")
    parser.add_argument("--toy", action="store_true", help="small, on a CPU: that it runs")
    parser.add_argument("--write", action="store_true", help="a record in benchmarks/records/")
    parser.add_argument("--work", choices=STRATEGIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return contest.serve(side_by_side(options.work, options.toy))
    left = contest.countdown(options.seconds)
    toy, origin, environment = contest.gpu_or_toy(options.toy)
    flags = ["--toy"] if toy else []
    nets = options.nets or (TOY_NETS if toy else list(NETS))
    idle: dict[str, Any] | str = "not measured"
    found: dict[str, Results] = {}
    with ExitStack() as stack:

        def start(strategy: str) -> Worker:
            arguments = ["--work", strategy, *flags]
            return stack.enter_context(Worker(strategy, __file__, arguments, environment))

        for i, net in enumerate(nets):
            print(f"{net}:", flush=True)
            rest = sum(NETS[n].share for n in nets[i:])
            part = contest.countdown(left() * NETS[net].share / rest)
            sizes = options.runs or (TOY_RUNS[net] if toy else RUNS)
            found[net], met = measure(net, sizes, options.strategies, toy, start, part)
            idle = met if net == "lenet5" else idle
    show_idle(idle)
    show(found, options.strategies, toy)
    if options.write:
        verdict = {net: decided(results) for net, results in found.items()}
        gpu = {"strategies": verdict, "idle": shares(idle)}
        record = {"question": QUESTION, "toy": toy, "note": contest.TOY if toy else "", **origin}
        runs = {net: list(by) for net, by in found.items()}
        record |= {"settings": settings(nets, runs, toy, options.seconds)}
        record |= {"gpu": contest.emptied(gpu) if toy else gpu}
        record |= {"toy_on_cpu" if toy else "measured": {"side_by_side": found, "idle": idle}}
        asked = [*(options.nets or []), *map(str, options.runs or [])]
        words = [*(["toy"] if toy else []), *asked, contest.machine(origin["device"])]
        contest.write("gpu_sweep", " ".join(words), record)
    return None


def settings(nets: list[str], runs: Any, toy: bool, seconds: float) -> dict[str, Any]:
    return {
        "nets": {name: NETS[name]._asdict() for name in nets},
        "runs": runs,
        "batch": TOY_BATCH if toy else None,  # None: each net's own
        "seconds": seconds,
        "steps_of_the_profile": 8 if toy else IDLE_STEPS,
        "goal_256_over_1": GOAL,
        "goal_idle_between_steps": IDLE_GOAL,
        "mps": MPS.exists(),
    }


def shares(idle: dict[str, Any] | str) -> dict[str, Any]:
    """Between steps, by program; None where there was no GPU's stream to look at."""
    names = ("the project's program", "scan of fixed length")
    if isinstance(idle, str):
        return dict.fromkeys(names)
    return {name: (idle[name]["profile"] or {}).get("between_steps") for name in names}


def show_idle(idle: dict[str, Any] | str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if isinstance(idle, str):
        console.print(f"Idle time: {idle}")
        return
    table = Table(
        *("one LeNet-5", "us a step", "idle between steps", "idle in all", "kernels a step"),
        title=f"Does the GPU idle? Goal: under {IDLE_GOAL:.0%} between steps",
    )
    for name, found in idle.items():
        us, profile = f"{found['us_per_step_without_profile']:.1f}", found["profile"]
        if profile is None:
            table.add_row(name, us, *["no stream in the trace"] * 3)
            continue
        between, everything = profile["between_steps"], profile["all"]
        kernels = f"{profile['kernels_per_step']}"
        table.add_row(name, us, f"{between:.1%}", f"{everything:.1%}", kernels)
    console.print(table)


def show(found: dict[str, Results], strategies: Sequence[str], toy: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for net, results in found.items():
        where = "images/s on this CPU, a toy" if toy else "images/s of all runs"
        table = Table("runs", *strategies, "fastest", title=f"{net}, {where}")
        verdict = decided(results)
        for runs in sorted(results):
            cells = []
            for strategy in strategies:
                value = results[runs][strategy]
                cells.append(value if isinstance(value, str) else f"{value['images_per_s']:,.0f}")
            table.add_row(str(runs), *cells, str(verdict["strategy"][runs]))
        console.print(table)
        for what, times in verdict.items():
            if what != "strategy" and times is not None:
                goal = f" (goal: at most {GOAL})" if net == "lenet5" and not toy else ""
                console.print(f"{net}: the time of {what}: {times:.1f} times{goal}")


if __name__ == "__main__":
    main()
