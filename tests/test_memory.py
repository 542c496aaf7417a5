"""What fits in memory, and 'auto': found without trying it out."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from jaxcnn import auto, config, experiment, memory, records, sharding, step, train
from jaxcnn.config import Data, InputError, Model, Run, Train, override
from jaxcnn.experiment import Experiment
from jaxcnn.nets import Problem

PROBLEM = Problem((8, 8, 1), 3, train_examples=5000, steps=10)
MLP = Run(model=Model(name="mlp", widths=(64,)), train=Train(batch_size=64))
EXAMPLES = 6000


def need(run: Run, width: int = 1, devices: int = 1) -> int:
    mesh = sharding.make_mesh(devices, 1)
    return memory.need(step.static(run), PROBLEM, mesh, width, EXAMPLES)


@pytest.mark.parametrize("slope", [0.5, 10.0, 1000.0])
@pytest.mark.parametrize("room", [10, 1000, 5000, 100_000, 10**9])
@pytest.mark.parametrize("bent", [False, True])
def test_the_largest_that_fits_in_few_looks(slope: float, room: float, bent: bool) -> None:
    """Against every power of two, tried one by one; with an affine need, and with one that takes
    the square root of 3 times more from 256 on, as another algorithm may.
    """
    looks = []

    def takes(size: int) -> float:
        looks.append(size)
        return 900 + slope * size * (3**0.5 if bent and size >= 256 else 1)

    expected = max([2**e for e in range(16) if takes(2**e) <= room], default=0)
    looks.clear()
    assert memory.largest(takes, room, 40_000) == expected
    assert len(looks) <= (5 if expected else 6) and len(set(looks)) == len(looks)


def test_sizes_whose_need_cannot_be_told_do_not_fit() -> None:
    assert memory.largest(lambda n: n if n <= 100 else math.inf, 10**6, 1000) == 64
    assert memory.largest(lambda n: math.inf, 10**6, 1000) == 0
    assert [memory.largest(lambda n: n, 10**6, most) for most in (1, 3, 20)] == [1, 2, 16]


@pytest.mark.slow
def test_what_is_needed_grows_with_the_batch_and_is_that_of_a_device() -> None:
    batch = {n: need(override(MLP, {"train.batch_size": n})) for n in (1024, 2048, 4096)}
    parameters = 4 * 2 * (64 * 64 + 64 + 64 * 3 + 3)  # and as many of momentum
    assert batch[1024] > EXAMPLES * 64 + parameters
    assert batch[4096] - batch[2048] == pytest.approx(2 * (batch[2048] - batch[1024]), rel=0.1)
    assert need(MLP, width=2, devices=2) == need(MLP)
    assert need(MLP, width=2) > need(MLP) + parameters


def test_asking_compiles_what_is_then_called(tmp_path: Path) -> None:
    run = override(MLP, {"data.train_examples": 200, "data.validation_examples": 100})
    changes = {"train.steps": 2, "train.eval_train_examples": 50, "model.widths": (5,)}
    run = override(run, changes)
    datasets = train.load_data([run], None)
    compiled: list[str] = []

    def heard(event: str, seconds: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    problem = train.problem_of(run, datasets[run.data])
    n = train.examples(datasets[run.data], run, problem)
    memory.plan("r", run, problem, 1, n)
    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        list(train.train({tmp_path / "r": run}, {tmp_path / "r": {}}, datasets))
    finally:
        jax.monitoring.clear_event_listeners()
    assert len(compiled) <= 2  # init and order, whose needs nobody asks for


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A machine of so many bytes."""
    return lambda size: monkeypatch.setattr(memory, "total", lambda: int(size))


def test_as_many_at_once_as_fit(machine: Callable[[float], None]) -> None:
    kinds = [memory.need(step.static(MLP), PROBLEM, sharding.make_mesh(1, 1), 1, EXAMPLES, kind)
             for kind in (True, False)]  # fmt: skip
    each = max(kinds)

    def width(**options: Any) -> int:
        return memory.plan("r", MLP, PROBLEM, 5, EXAMPLES, **options)[0]

    for runs in (5, 3, 1):
        machine(each * (runs + 0.5) / 0.8)
        assert width() == runs
    machine(each * 4.5)
    assert width() == 3 and width(at_once=4) == 4  # the user's own number needs no reserve
    with pytest.raises(memory.OutOfMemory, match="--at-once 1"):
        width(at_once=5)
    machine(each * 1.1)  # more than its share, less than there is
    assert width() == 1
    machine(each * 0.9)
    with pytest.raises(memory.OutOfMemory, match=r"^r: .* is too small: asked for .* of .*auto"):
        width()


@pytest.mark.slow
def test_lanes_of_an_accelerator(
    machine: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "LANES", {})
    machine(10**12)
    assert memory.plan("r", MLP, PROBLEM, 24, EXAMPLES)[0] == 24
    kinds = (True, False)
    mesh = sharding.make_mesh(8, 1)
    two = max(memory.need(step.static(MLP), PROBLEM, mesh, 16, EXAMPLES, k) for k in kinds)
    machine(two * 1.01 * 8 / 0.8)
    width, mesh = memory.plan("r", MLP, PROBLEM, 24, EXAMPLES)
    assert (width, mesh.shape["run"]) == (16, 8)


@pytest.mark.slow
def test_at_once_is_a_limit_and_moves_no_number(tmp_path: Path) -> None:
    assert [sharding.plan(8, n)[0] for n in (None, 1, 3, 99)] == [8, 1, 3, 8]
    changes = {"data.train_examples": 200, "data.validation_examples": 100, "train.steps": 3}
    run = override(MLP, {**changes, "train.eval_train_examples": 50, "model.widths": (5,)})
    datasets = train.load_data([run], None)
    curves = []
    for at_once in (None, 1):
        jobs = {tmp_path / f"{at_once}-{s}": dataclasses.replace(run, seed=s) for s in (0, 1)}
        list(train.train(jobs, {f: {} for f in jobs}, datasets, at_once=at_once))
        found = [records.read(folder) for folder in jobs]
        curves.append([[row["train"] for row in r.rows] for r in found if r])
    assert curves[0] == curves[1] and len(curves[0]) == 2


AUTO = Experiment(
    name="automatic",
    claim="c",
    source="s",
    base=Run(
        model=Model(name="mlp", widths=(8,)),
        data=Data(train_examples=3000, validation_examples=100),
        train=Train(batch_size="auto", precision="auto", steps=5, eval_train_examples=50),
    ),
    arms={"narrow": {}, "wide": {"model.widths": (512,)}, "own": {"train.batch_size": 32}},
    predictions=(),
)


@pytest.mark.slow
def test_auto_is_one_value_for_all_arms_before_any_folder_is_named(
    machine: Callable[[float], None], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no folder yet"):
        config.digest(AUTO.base)
    machine(10**12)
    told: list[str] = []
    exp = auto.resolve(AUTO, None, told.append)
    assert (exp.base.train.batch_size, exp.base.train.precision) == (2048, "float32")
    assert told[0] == "automatic: train.precision=auto is float32, as on every cpu."
    assert "among 3000 training examples" in told[1] and not experiment.automatic(exp)
    runs = experiment.grid(exp)
    assert [run.train.batch_size for arm in runs.values() for run in arm.values()] == [
        *(2048, 2048, 32)
    ]
    # The wider arm decides, and so it does for the narrow one.
    data = train.load_data([AUTO.base], None)[AUTO.base.data]
    wide = override(experiment.grid(exp)["wide"][""], {"train.batch_size": 512})
    mesh, problem = sharding.make_mesh(1, 1), train.problem_of(wide, data)
    n = train.examples(data, wide, problem)
    least = memory.need(step.static(wide), problem, mesh, 1, n)
    machine(least * 1.05 * 8 / 0.8)  # 8 devices
    told.clear()
    exp = auto.resolve(AUTO, None, told.append)
    assert exp.base.train.batch_size == 512
    assert "the largest power of two that fits; wide takes" in told[1]
    machine(10**6)
    with pytest.raises(memory.OutOfMemory, match="automatic/.*a batch of one takes"):
        auto.resolve(AUTO, None, told.append)


def test_auto_needs_a_device_that_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "total", lambda: None)
    with pytest.raises(InputError, match="says how much memory it has; give a number"):
        auto.resolve(AUTO, None, lambda _: None)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    exp = auto.resolve(override_arms(AUTO), None, lambda _: None)
    assert exp.base.train.precision == "bfloat16"
    assert memory.plan("r", MLP, PROBLEM, 3, EXAMPLES)[0] == 3


def override_arms(exp: Experiment) -> Experiment:
    base = override(exp.base, {"train.batch_size": 16})
    return dataclasses.replace(exp, base=base, arms={"a": {}})


def test_the_machine_s_memory_is_the_least_of_its_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = memory._host()
    assert whole is not None and whole >= 2**30
    (tmp_path / "max").write_text("max\n")
    (tmp_path / "limit").write_text("123456789\n")
    files = [tmp_path / name for name in ("max", "limit", "absent")]
    monkeypatch.setattr(memory, "_groups", lambda: files)
    assert memory._host() == 123456789
