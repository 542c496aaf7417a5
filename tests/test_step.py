"""The pure step: against a float64 reference, its keys, and every traced number."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.interpreters import partial_eval

from jaxcnn import kernels, losses, nets, ops, optim, step
from jaxcnn.checks import check
from jaxcnn.config import InputError, Optim, Run, override
from jaxcnn.nets import Problem
from jaxcnn.step import State

PROBLEM = Problem((6, 6, 1), 3, train_examples=64, steps=10)
MLP = override(
    Run(),
    {
        "model.name": "mlp",
        "model.widths": (7,),
        "model.activation": "tanh",
        "data.normalize": "unit",
        "train.batch_size": 8,
    },
)
MOMENTS = (jnp.full(1, 0.5), jnp.full(1, 0.25), jnp.full((1, 1), 0.0625))


def batches(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, 8, 6, 6, 1), np.uint8), rng.integers(0, 3, (n, 8), np.int32)


def steps(run: Run, n: int, state: State | None = None) -> tuple[State, list[float]]:
    values = step.numbers(run)
    state = state if state is not None else step.init_state(run, PROBLEM, values)
    one = jax.jit(lambda s, x, y: step.train_step(run, PROBLEM, s, x, y, MOMENTS, values))
    found = []
    for x, y in zip(*batches(n), strict=True):
        state, sums = one(state, x, y)
        found.append(float(sums["loss"] / sums["count"]))
    return state, found


@pytest.mark.parametrize("decay", ["coupled", "decoupled"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_ten_steps_of_sgd_equal_float64(decay: str, nesterov: bool) -> None:
    """w <- w - lr (v), v <- mu v + g + wd w: torch's and optax's order, biases decayed too."""
    lr, mu, wd = 0.1, 0.9, 0.01
    changes = {
        "optim.lr": lr,
        "optim.momentum": mu,
        "optim.nesterov": nesterov,
        "optim.weight_decay": wd,
        "optim.decay": decay,
        "optim.schedule": "step",
        "optim.milestones": (0.3, 0.6),
    }
    run = override(MLP, changes)
    start = step.init_state(run, PROBLEM, step.numbers(run))
    p = {
        (layer, leaf): np.asarray(start.params[layer][leaf], np.float64)
        for layer in ("fc1", "output")
        for leaf in ("kernel", "bias")
    }
    v = {k: np.zeros_like(w) for k, w in p.items()}
    expected = []
    for t, (images, labels) in enumerate(zip(*batches(10), strict=True)):
        x = images.reshape(8, -1) / 255.0
        h = np.tanh(x @ p["fc1", "kernel"] + p["fc1", "bias"])
        z = h @ p["output", "kernel"] + p["output", "bias"]
        z -= z.max(1, keepdims=True)
        probability = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        expected.append(-np.log(probability[np.arange(8), labels]).mean())
        dz = (probability - np.eye(3)[labels]) / 8
        dh = dz @ p["output", "kernel"].T * (1 - h**2)
        grads = {
            ("output", "kernel"): h.T @ dz,
            ("output", "bias"): dz.sum(0),
            ("fc1", "kernel"): x.T @ dh,
            ("fc1", "bias"): dh.sum(0),
        }
        rate = lr * 0.1 ** sum(t >= m for m in (3, 6))
        for k, g in grads.items():
            coupled = g + wd * p[k] if decay == "coupled" else g
            v[k] = mu * v[k] + coupled
            move = coupled + mu * v[k] if nesterov else v[k]
            if decay == "decoupled":
                move = move + wd * p[k]
            p[k] = p[k] - rate * move
    state, found = steps(run, 10)
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    for (layer, leaf), w in p.items():
        np.testing.assert_allclose(state.params[layer][leaf], w, rtol=1e-4, atol=2e-6)
    assert int(state.step) == 10


def test_adam_is_optax_s_with_the_run_s_numbers() -> None:
    changes = {"optim.name": "adam", "optim.lr": 0.01, "optim.momentum": 0.8, "optim.beta2": 0.95}
    run = override(MLP, changes)
    params = {"w": jnp.array([1.0, -2.0])}
    ours = optim.optimizer(run.optim, step.numbers(run), 10)
    theirs = optax.adam(0.01, b1=0.8, b2=0.95)
    a, b = ours.init(params), theirs.init(params)
    for t in range(5):
        grads = {"w": jnp.array([0.5, 0.1 * t])}
        move_a, a = ours.update(grads, a, params)
        move_b, b = theirs.update(grads, b, params)
        np.testing.assert_allclose(move_a["w"], move_b["w"], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [1, 1, 1, 1, 1]),
        ({"schedule": "step", "milestones": (0.5,)}, [1, 1, 0.1, 0.1, 0.1]),
        ({"schedule": "cosine"}, [1, 0.853553, 0.5, 0.146447, 0]),
        ({"schedule": "exponential", "factor": 0.01}, [1, 0.1**0.5, 0.1, 0.1**1.5, 0.01]),
        ({"warmup": 0.5}, [0, 0.5, 1, 1, 1]),
        (
            {"warmup": 0.25, "schedule": "step", "milestones": (0.5,)},
            [0, 1, 0.1, 0.1, 0.1],
        ),
    ],
)
def test_schedules_at_quarters(changes: dict[str, Any], expected: list[float]) -> None:
    shape = optim.schedule(dataclasses.replace(Optim(), **changes), 100)
    np.testing.assert_allclose([shape(t) for t in (0, 25, 50, 75, 100)], expected, atol=1e-6)


# Which take long to compile.
LONG = ("data.scale", "data.area", "data.aspect", "compress.distill", "compress.temperature")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, marks=pytest.mark.slow if p in LONG else ())
        for p in step.TRACED
        if p != "train.side_head_weight"
    ],
)
def test_every_traced_number_changes_the_result_and_not_the_program(path: str) -> None:
    base = override(
        MLP,
        {
            "model.dropout": 0.5,
            "data.noise": 0.1,
            "data.color": 0.1,
            "optim.name": "adam",
            "optim.weight_decay": 0.1,
            "optim.ema": 0.9,
            "train.label_smoothing": 0.1,
            "compress.sparsity": 0.5,
            "compress.prune_from": 0.1,
            "compress.prune_until": 0.2,
        },
    )
    if path in ("compress.distill", "compress.temperature"):
        base = override(base, {"compress.distill": 0.5})
    boxes = {"data.scale": 2.0, "data.area": 0.5, "data.aspect": 1.1}
    if path in boxes:  # of which there is one, and only of a crop
        there = {"data.scale": 2.0} if path == "data.scale" else {"data.area": 0.5}
        base = override(base, {"data.crop": 4, **there, path: boxes[path]})
    if path in ("data.rotate", "data.zoom"):
        base = override(base, {path: 1.2})
    other = override(
        base, {path: 1.5 if path in ("data.scale", "data.aspect", "data.zoom") else 0.3}
    )
    assert step.static(base) == step.static(other) != base
    a, b = (step.used(steps(run, 3)[0]).params for run in (base, other))
    assert any(
        (np.asarray(x) != np.asarray(y)).any()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize(
    "path", ["model.dropout", "data.noise", "data.color", "data.area", "data.rotate"]
)
def test_off_leaves_no_trace(path: str) -> None:
    """Off is another program, without random bits; for these nets "paper" is off."""

    def text(run: Run) -> str:
        values = step.numbers(run)
        state = jax.eval_shape(lambda: step.init_state(run, PROBLEM, values))
        x, y = (a[0] for a in batches(1))
        return str(
            jax.make_jaxpr(lambda s: step.train_step(run, PROBLEM, s, x, y, MOMENTS, values))(state)
        )

    assert "random_bits" not in text(MLP)
    assert "random_bits" in text(override(MLP, {path: 0.5}))
    assert step.static(MLP) != step.static(override(MLP, {path: 0.5}))


def test_a_running_mean_of_the_weights_is_optax_s_and_what_is_judged() -> None:
    mean = override(MLP, {"optim.ema": 0.8})
    values = step.numbers(mean)
    own = begun = step.init_state(mean, PROBLEM, values)
    average = optax.ema(0.8, debias=True)
    want, seen = begun.params, average.init(begun.params)
    one = jax.jit(lambda s, x, y: step.train_step(mean, PROBLEM, s, x, y, MOMENTS, values))
    for x, y in zip(*batches(5), strict=True):
        own, _ = one(own, x, y)
        want, seen = average.update(own.params, seen)
    assert_close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(assert_close, step.used(own).params, want)
    plain, _ = steps(MLP, 5)  # training itself is as without
    jax.tree.map(np.testing.assert_array_equal, own.params, plain.params)
    images = batches(1)[0][0]
    logits, _ = step.evaluate(mean, PROBLEM, own, images, MOMENTS)
    meant = dataclasses.replace(plain, params=want)
    assert_close(logits, step.evaluate(MLP, PROBLEM, meant, images, MOMENTS)[0], atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, step.used(begun).params, begun.params)
    assert step.used(plain) is plain
    with pytest.raises(InputError, match="optim.ema: 0.8 is of no use beside compress"):
        check(override(mean, {"compress.bits": 4}))


def test_top_5_errors() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 12)).astype(np.float32)
    labels, mask = rng.integers(0, 12, 200), (np.arange(200) < 190).astype(np.float32)
    logits[0, 3] = np.nan
    sums = losses.beyond_five(*map(jnp.asarray, (logits, labels, mask)))
    best = np.argsort(-logits, -1)[:, :5]
    wrong = (best != labels[:, None]).all(-1)
    wrong[0] = True
    assert 50 < float(sums["errors5"]) == wrong[:190].sum()
    assert losses.means({"loss": 0.0, "errors5": 2.0, "count": 8.0})["error5"] == 0.25
    # Ten classes, and what is no class, are judged as ever.
    for classes, objective, said in (
        (10, "classification", False),
        (11, "classification", True),
        (11, "one_hot", False),
    ):
        problem = dataclasses.replace(PROBLEM, classes=classes)
        assert nets.five(override(MLP, {"train.objective": objective}), problem) is said


def test_keys_differ_by_seed_purpose_and_step_only() -> None:
    keys = [step.key(seed, purpose) for seed in (0, 1) for purpose in step.PURPOSES]
    data = {tuple(np.asarray(jax.random.key_data(k))) for k in keys}
    assert len(data) == 8
    assert (jax.random.key_data(step.key(1, "order")) == jax.random.key_data(keys[5])).all()


def test_an_epoch_visits_each_example_once_in_another_order() -> None:
    orders = [
        np.asarray(step.epoch_order(MLP, PROBLEM, {"seed": seed}, jnp.int32(epoch)))
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    for order in orders:
        assert sorted(order) == list(range(64))
    assert all((a != b).any() for a, b in zip(orders, orders[1:] + orders[:1], strict=True))


def test_label_smoothing_and_the_mask() -> None:
    logits = jnp.array([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [jnp.nan, 0.0, 0.0]])
    labels, mask = jnp.array([0, 2, 1]), jnp.array([1.0, 1.0, 0.0])
    sums = losses.classification(logits, labels, mask, 0.3)
    soft = optax.smooth_labels(jax.nn.one_hot(labels[:2], 3), 0.3)
    expected = optax.softmax_cross_entropy(logits[:2], soft).sum()
    np.testing.assert_allclose(sums["loss"], expected, rtol=1e-6)
    assert (float(sums["errors"]), float(sums["count"])) == (1.0, 2.0)
    means = losses.means({k: float(v) for k, v in sums.items()})
    assert means["error"] == 0.5 and means["count"] == 2
    lost = losses.classification(logits[2:], jnp.array([0]), jnp.ones(1))
    assert float(lost["errors"]) == 1.0  # argmax calls what is no number class 0


def test_fifty_steps_on_one_batch_drive_the_loss_down() -> None:
    run = override(MLP, {"optim.lr": 0.1})
    values = step.numbers(run)
    x, y = (a[0] for a in batches(1))
    one = jax.jit(lambda s: step.train_step(run, PROBLEM, s, x, y, MOMENTS, values))
    state = step.init_state(run, PROBLEM, values)
    seen = []
    for _ in range(50):
        state, sums = one(state)
        seen.append(float(sums["loss"]) / 8)
    assert seen[-1] < 0.1 * seen[0]


@pytest.mark.slow
def test_the_weight_of_the_side_heads_is_in_the_gradient_of_a_net_that_has_them() -> None:
    """The new state hangs on it; where there are no side heads, it does not."""
    problem = Problem((32, 32, 3), 3, train_examples=64, steps=10)
    x, y = jnp.zeros((8, 32, 32, 3), jnp.uint8), jnp.zeros(8, jnp.int32)

    def used(run: Run) -> bool:
        values = step.numbers(run)
        state = jax.eval_shape(lambda: step.init_state(run, problem, values))

        def one(weight: jax.Array, state: State) -> Any:
            new = values | {"side_head_weight": weight}
            moments = (jnp.zeros(3), jnp.ones(3), jnp.eye(3))
            return step.train_step(run, problem, state, x, y, moments, new)[0]

        jaxpr = jax.make_jaxpr(one)(0.3, state).jaxpr
        return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1][0]

    net = override(Run(), {"model.name": "googlenet_bn", "train.batch_size": 8})
    assert used(net)
    assert not used(override(net, {"model.side_heads": False}))


AUTOENCODER = override(
    MLP,
    {
        "model.name": "autoencoder",
        "model.widths": (9, 5),
        "optim.lr": 0.05,
        "train.objective": "reconstruction",
    },
)


@pytest.mark.parametrize("objective", ["reconstruction", "classification"])
def test_greedy_training_moves_one_layer_at_a_time(objective: str) -> None:
    """Ten steps: three on layer 1, three on layer 2, four on the whole. Momentum and weight decay
    move nothing that is done.
    """
    run = override(
        AUTOENCODER,
        {"train.greedy": 0.6, "optim.weight_decay": 0.1, "train.objective": objective},
    )
    assert nets.greedy_ends(run, PROBLEM) == [3, 6]
    values = step.numbers(run)
    one = jax.jit(lambda s, x, y: step.train_step(run, PROBLEM, s, x, y, MOMENTS, values))
    state = step.init_state(run, PROBLEM, values)
    rest = set() if objective == "reconstruction" else {"output"}
    assert state.params.keys() == {"fc1", "fc2", "decoder1", "decoder2"} | rest
    for i, (x, y) in enumerate(zip(*batches(10), strict=True)):
        before = state.params
        state, sums = one(state, x, y)
        moved = {
            layer
            for layer in before
            if (
                np.asarray(before[layer]["kernel"]) != np.asarray(state.params[layer]["kernel"])
            ).any()
        }
        stage = 0 if i < 3 else 1 if i < 6 else 2
        whole = {"fc1", "fc2", "decoder1", "decoder2"} | rest  # decoders by their decay
        assert moved == [{"fc1", "decoder1"}, {"fc2", "decoder2"}, whole][stage], i
        assert float(sums["count"]) == (8 if stage == 2 else 0)  # no point of the curve before
        assert ("errors" in sums) == (objective == "classification")


def test_without_greedy_a_classifier_has_no_decoders() -> None:
    run = override(AUTOENCODER, {"train.objective": "classification"})
    params = step.init_state(run, PROBLEM, step.numbers(run)).params
    assert params.keys() == {"fc1", "fc2", "output"}


def test_a_reconstruction_is_judged_by_the_squared_error_of_a_picture() -> None:
    state, _ = steps(AUTOENCODER, 5)
    images, labels = (a[0] for a in batches(1))
    mask = jnp.array([1.0] * 5 + [0.0] * 3)
    sums = step.eval_step(AUTOENCODER, PROBLEM, state, images, labels, MOMENTS, mask)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), state.params)
    x = images[:5].reshape(5, -1) / 255.0
    code = np.tanh(x @ p["fc1"]["kernel"] + p["fc1"]["bias"])
    code = code @ p["fc2"]["kernel"] + p["fc2"]["bias"]
    back = np.tanh(code @ p["decoder2"]["kernel"] + p["decoder2"]["bias"])
    back = 1 / (1 + np.exp(-(back @ p["decoder1"]["kernel"] + p["decoder1"]["bias"])))
    np.testing.assert_allclose(sums["loss"], ((back - x) ** 2).sum(), rtol=1e-5)
    assert losses.means({k: float(v) for k, v in sums.items()}).keys() == {"loss", "count"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.name": "mlp", "train.greedy": 0.5}, "train.greedy: 0.5 needs a model with deco"),
        ({"model.name": "mlp"}, "train.objective: reconstruction needs a model with decoders"),
        ({"data.normalize": "standardize"}, "data.normalize 'unit', not 'standardize'"),
    ],
)
def test_what_cannot_be_reconstructed(changes: dict[str, Any], said: str) -> None:
    run = override(AUTOENCODER, changes)
    with pytest.raises(InputError, match=said):
        step.init_state(run, PROBLEM, step.numbers(run))


def test_squared_error_to_codes() -> None:
    """By hand: three classes on a line at -1.22, 0, 1.22, and as rows of the unit matrix."""
    labels, mask = jnp.array([0, 1, 2, 2]), jnp.array([1.0, 1.0, 1.0, 0.0])
    line = losses.codes("scalar", 3)
    np.testing.assert_allclose(line[:, 0], [-(1.5**0.5), 0, 1.5**0.5], rtol=1e-6)
    output = jnp.array([[-3.0], [0.7], [0.2], [jnp.nan]])
    sums = losses.coded(output, labels, line, mask)
    far = [(-3 + 1.5**0.5) ** 2, 0.49, (0.2 - 1.5**0.5) ** 2]
    np.testing.assert_allclose(sums["loss"], sum(far), rtol=1e-6)
    assert (float(sums["errors"]), float(sums["count"])) == (2, 3)  # 0.7 is nearer to class 2
    finite = jnp.nan_to_num(output)
    gradient = jax.grad(lambda o: losses.coded(o, labels, line, mask)["loss"])(finite)
    assert gradient.shape == (4, 1) and float(gradient[3, 0]) == 0
    np.testing.assert_allclose(gradient[0, 0], 2 * (-3 + 1.5**0.5), rtol=1e-6)
    rows = losses.codes("one_hot", 3)
    sums = losses.coded(jnp.array([[0.9, 0.2, 0.1]]), labels[:1], rows, mask[:1])
    np.testing.assert_allclose(sums["loss"], 0.01 + 0.04 + 0.01, rtol=1e-5)
    assert float(sums["errors"]) == 0


@pytest.mark.parametrize(("objective", "outputs"), [("scalar", 1), ("one_hot", 3)])
def test_a_net_learns_codes(objective: str, outputs: int) -> None:
    run = override(MLP, {"train.objective": objective, "optim.lr": 0.01})
    values = step.numbers(run)
    state = step.init_state(run, PROBLEM, values)
    assert state.params["output"]["kernel"].shape[-1] == outputs
    one = jax.jit(lambda s, x, y: step.train_step(run, PROBLEM, s, x, y, MOMENTS, values))
    images, labels = (a[0] for a in batches(1))
    first = step.eval_step(run, PROBLEM, state, images, labels, MOMENTS, jnp.ones(8))
    for _ in range(60):
        state, _ = one(state, images, labels)
    last = step.eval_step(run, PROBLEM, state, images, labels, MOMENTS, jnp.ones(8))
    assert last["loss"] < 0.5 * first["loss"] and last["errors"] < first["errors"]


@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_a_step_in_bfloat16_multiplies_halves_and_keeps_the_rest_whole(name: str) -> None:
    """All products, forward and backward; parameters, momentum, statistics, softmax and loss."""
    problem = Problem((32, 32, 3), 3, train_examples=64, steps=10)
    changes = {"model.name": name, "train.batch_size": 8, "train.precision": "bfloat16"}
    run = override(Run(), changes)
    values = step.numbers(run)
    moments = (jnp.full(3, 0.5), jnp.full(3, 0.25), jnp.eye(3))
    x, y = jnp.zeros((8, 32, 32, 3), jnp.uint8), jnp.zeros(8, jnp.int32)

    def one(state: State) -> Any:
        return step.train_step(run, problem, state, x, y, moments, values)

    start = jax.eval_shape(lambda: step.init_state(run, problem, values))
    with kernels.plain():
        traced, (state, sums) = jax.make_jaxpr(one, return_shape=True)(start)
    kinds: dict[str, set[Any]] = {}
    for e in equations(traced.jaxpr):
        for v in e.outvars:
            kinds.setdefault(e.primitive.name, set()).add(v.aval.dtype)
    products = {"conv_general_dilated", "dot_general"} & kinds.keys()
    assert products == {"conv_general_dilated", "dot_general"}
    for product in products:
        assert kinds[product] == {jnp.dtype("bfloat16")}, product
    for whole in ("exp", "log", *(["rsqrt"] if name == "resnet20" else [])):
        assert kinds[whole] == {jnp.dtype("float32")}, whole
    assert bool(state.batch_stats) == (name == "resnet20")
    for leaf in jax.tree.leaves((state.params, state.batch_stats, state.opt_state, sums)):
        assert leaf.dtype in (jnp.float32, jnp.int32)


def equations(jaxpr: Any) -> Any:
    for e in jaxpr.eqns:
        yield e
        for inner in jax.extend.core.jaxprs_in_params(e.params):
            yield from equations(inner)


def test_bfloat16_trains() -> None:
    whole, half = (
        steps(override(MLP, {"train.precision": kind, "optim.lr": 0.1}), 10)[1]
        for kind in ("float32", "bfloat16")
    )
    assert whole != half
    np.testing.assert_allclose(half, whole, rtol=0.02)


def test_parts_of_a_batch_add_up_to_it() -> None:
    whole, losses_of = steps(MLP, 3)
    for parts in (2, 8):
        found, theirs = steps(override(MLP, {"train.accumulate": parts}), 3)
        np.testing.assert_allclose(theirs, losses_of, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), found, whole)


def test_each_part_drops_units_of_its_own() -> None:
    run = override(MLP, {"model.dropout": 0.5, "train.accumulate": 2})
    values = step.numbers(run)
    state = step.init_state(run, PROBLEM, values)
    images, labels = (np.repeat(a[0, :4], 2, axis=0) for a in batches(1))  # two equal parts
    x = step.training_view(run, state, images, MOMENTS, values)
    loss = [
        step.training_loss(run, PROBLEM, state, x[::2], labels[::2], values, state.params, i)[0]
        for i in (0, 1)
    ]
    assert loss[0] != loss[1]
    _, sums = step.train_step(run, PROBLEM, state, images, labels, MOMENTS, values)
    np.testing.assert_allclose(sums["loss"] / 4, sum(loss), rtol=1e-5)


def test_normalisation_by_the_statistics_of_parts() -> None:
    norm = ops.BatchNorm(momentum=0.9)
    x = jax.random.normal(jax.random.key(0), (6, 5, 5, 4)) * 3 + 1
    variables = norm.init(jax.random.key(1), x, train=False)
    variables["params"]["scale"] += jnp.arange(4.0)
    with ops.normalised_in(3):
        y, moved = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    alone = [
        norm.apply(variables, p, train=True, mutable=["batch_stats"])
        for p in x.reshape(3, 2, 5, 5, 4)
    ]
    np.testing.assert_allclose(y, np.concatenate([a for a, _ in alone]), rtol=1e-4, atol=1e-5)
    mean = jax.tree.map(lambda *a: sum(a) / 3, *(b for _, b in alone))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), moved, mean)
    run = override(MLP, {"model.batch_norm": True})
    assert steps(run, 1)[1] != steps(override(run, {"train.norm_parts": 4}), 1)[1]
    with pytest.raises(InputError, match="8 is no multiple .* 2 x 3"):
        check(override(run, {"train.accumulate": 2, "train.norm_parts": 3}))
    with pytest.raises(InputError, match="norm_parts: 2 is of batch normalisation"):
        step.init_state(override(MLP, {"train.norm_parts": 2}), PROBLEM, step.numbers(MLP))
