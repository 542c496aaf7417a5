"""Programs of cohorts: a run's numbers depend neither on its company nor on the devices."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxcnn import cohorts, sharding, step
from jaxcnn.cohorts import Carry, Resident
from jaxcnn.config import Run, override
from jaxcnn.nets import Problem

PROBLEM = Problem((28, 28, 1), 10, train_examples=96, steps=6)
RUN = override(
    Run(),
    {
        "model.activation": "relu",
        "model.pool": "max",
        "model.dropout": 0.2,
        "data.shift": 2,
        "data.noise": 0.1,
        "train.batch_size": 16,
    },
)


def runs(n: int) -> list[Run]:
    return [override(RUN, {"seed": i, "optim.lr": 0.01 * (i + 1)}) for i in range(n)]


def resident(mesh: Mesh) -> Resident:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (130, 28, 28, 1), np.uint8)
    labels = rng.integers(0, 10, 130).astype(np.int32)
    moments = (np.full(n, x, np.float32) for n, x in ((1, 0.5), (1, 0.3), ((1, 1), 0.09)))
    arrays = (images, labels, *moments)
    return sharding.put(mesh, Resident(*arrays))  # type: ignore[arg-type]


def train(members: list[Run], mesh: Mesh, cuts: tuple[int, ...] = (6,)) -> tuple[Carry, Any]:
    """Six steps in one epoch, in dispatches of `cuts` steps; the carry and the evaluation."""
    program = cohorts.program(step.static(members[0]), PROBLEM, mesh)
    values = sharding.put(mesh, cohorts.stack(members), "run")
    data = resident(mesh)
    carry, at, order = program.init(values), 0, program.order(values, 0)
    for n in cuts:
        carry = program.advance(carry, values, order, data, at, n)
        at += n
    found = program.evaluate(carry.state, data, 96, 34)
    return jax.device_get(carry), jax.device_get(found)


def own(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda a: a[i], tree)


def equal(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)


@pytest.mark.slow
def test_alone_in_company_and_in_pieces_is_the_same_bit_for_bit() -> None:
    """Each run on a device of its own, as on CPU: 4 side by side, each alone, and cut otherwise."""
    four = runs(4)
    together = train(four, sharding.make_mesh(4, 1))
    for i, run in enumerate(four):
        alone = train([run], sharding.make_mesh(1, 1), cuts=(1, 2, 3))
        equal(own(together, i), own(alone, 0))
    a, b = (own(together, i)[0].state.params for i in (0, 1))
    assert (a["C1"]["kernel"] != b["C1"]["kernel"]).any()


@pytest.mark.slow
def test_steps_in_a_loop_of_known_length_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU gets of a small net: of six steps twice two, then one at a time."""
    (run,) = runs(1)
    mesh = sharding.make_mesh(1, 1)
    want = train([run], mesh)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert cohorts._together(step.static(run), PROBLEM) == cohorts.TOGETHER
    large = dataclasses.replace(PROBLEM, image_shape=(224, 224, 3))
    assert cohorts._together(step.static(run), large) == 1
    monkeypatch.undo()
    monkeypatch.setattr(cohorts, "_together", lambda run, problem: 2)
    monkeypatch.setattr(cohorts, "program", cohorts.program.__wrapped__)
    close(train([run], mesh, cuts=(5, 1)), want)


@pytest.mark.slow
def test_a_batch_in_parts_is_the_same_on_one_device_and_on_two() -> None:
    """Normalised by each device's own statistics, the devices sum gradients and no more."""
    net = {"model.name": "resnet20", "model.blocks": (1, 1), "model.widths": (4, 8)}
    net |= {"model.activation": "paper", "model.pool": "paper", "model.dropout": "paper"}
    summed = {}
    for parts in ({}, {"train.accumulate": 2}, {"train.norm_parts": 2}):
        run = override(runs(1)[0], net | parts)
        mesh = sharding.make_mesh(1, 2)
        close(train([run], mesh), train([run], sharding.make_mesh(1, 1)))
        program = cohorts.program(step.static(run), PROBLEM, mesh)
        values = sharding.put(mesh, cohorts.stack([run]), "run")
        order = program.order(values, 0)
        lowered = program.advance.lower(program.init(values), values, order, resident(mesh), 0, 1)
        summed[tuple(parts)] = lowered.compile().as_text().count(" all-reduce(")
    assert summed[("train.norm_parts",)] < summed[()] / 2


@pytest.mark.slow
def test_one_device_equals_eight() -> None:
    """Runs split over 8 devices, two on each by vmap; and one run's batch split over 8."""
    sixteen = runs(16)
    wide = train(sixteen, sharding.make_mesh(8, 1))
    for i in (0, 7, 15):
        alone = train([sixteen[i]], sharding.make_mesh(1, 1))
        close(own(wide, i), own(alone, 0))
    batch = train(sixteen[3:4], sharding.make_mesh(1, 8))
    close(own(batch, 0), own(wide, 3))
    both = train(sixteen[2:4], sharding.make_mesh(2, 4))
    close(own(both, 1), own(wide, 3))


def test_a_batch_is_really_split() -> None:
    mesh = sharding.make_mesh(1, 8)
    program = cohorts.program(step.static(RUN), PROBLEM, mesh)
    values = sharding.put(mesh, cohorts.stack([RUN]), "run")
    carry = program.init(values)
    arguments = (carry, values, program.order(values, 0), resident(mesh), 0, 1)
    text = program.advance.lower(*arguments).compile().as_text()  # type: ignore[attr-defined]
    assert "all-reduce" in text
    assert "f32[2,28,28,6]" in text or "f32[2,28,28,1]" in text  # 16 examples over 8 devices


def test_runs_share_a_program_when_only_numbers_differ() -> None:
    numbers = override(RUN, {"optim.lr": 0.3, "model.dropout": 0.4, "data.noise": 0.7, "seed": 5})
    others = [
        override(RUN, change)
        for change in (
            {"model.activation": "tanh"},
            {"model.dropout": 0.0},
            {"data.noise": 0.0},
            {"train.batch_size": 8},
            {"optim.schedule": "cosine"},
            {"data.shift": 1},
        )
    ]
    groups = cohorts.group([RUN, numbers, *others], step.static)
    assert [len(g) for g in groups] == [2] + [1] * len(others)


def test_one_compilation_for_a_cohort() -> None:
    mesh = sharding.make_mesh(2, 1)
    members = [override(r, {"train.batch_size": 12}) for r in runs(6)]
    programs = set()
    for i in range(0, 6, 2):
        program = cohorts.program(step.static(members[i]), PROBLEM, mesh)
        values = sharding.put(mesh, cohorts.stack(members[i : i + 2]), "run")
        program.advance(
            program.init(values), values, program.order(values, 0), resident(mesh), 0, 1 + i
        )
        programs.add(program)
    assert len(programs) == 1
    assert programs.pop().advance._cache_size() == 1  # type: ignore[attr-defined]


def test_evaluation_counts_each_example_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ragged last batches, against all the examples in one batch."""
    monkeypatch.setattr(cohorts, "EVAL_BATCH", 32)
    mesh = sharding.make_mesh(1, 1)
    program = cohorts.program.__wrapped__(step.static(RUN), PROBLEM, mesh)
    values = sharding.put(mesh, cohorts.stack([RUN]), "run")
    state, data = program.init(values).state, resident(mesh)
    one = jax.tree.map(lambda a: a[0], state)
    whole = jax.jit(
        lambda mask: step.eval_step(
            step.static(RUN), PROBLEM, one, data.images, data.labels, data.moments, mask
        )
    )
    for start, count in ((0, 130), (0, 1), (96, 34), (129, 1), (3, 100)):
        sums = jax.device_get(program.evaluate(state, data, start, count))
        rows = jnp.arange(130)
        expected = whole(((rows >= start) & (rows < start + count)).astype(jnp.float32))
        assert sums["count"][0] == count
        assert sums["errors"][0] == expected["errors"]
        np.testing.assert_allclose(sums["loss"][0], expected["loss"], rtol=1e-5)


def test_positions_cut_training_at_epochs() -> None:
    run = dataclasses.replace(RUN)
    assert cohorts.position(run, PROBLEM, 0) == (0, 0, 6)
    assert cohorts.position(run, PROBLEM, 7) == (1, 1, 5)


def test_the_plan_of_a_cpu_gives_each_run_a_device() -> None:
    assert [sharding.plan(n)[0] for n in (1, 3, 8, 40)] == [1, 3, 8, 8]
    assert sharding.plan(3)[1].shape == {"run": 3, "data": 1}
