"""Layers in themselves, by their papers' formulas: what convolutions connect, poolings' sizes,
dropout, normalisations, initial weights.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from traced import initial, results

from jaxcnn import kernels, models, ops
from jaxcnn.models import lenet


@pytest.mark.slow
def test_c3_is_connected_as_in_table_1() -> None:
    """Each output map answers to its own input maps and to no other."""
    conv = ops.Conv(16, 5, maps=lenet.C3_MAPS)
    x = jnp.zeros((1, 5, 5, 6))
    variables = conv.init(jax.random.key(0), x)
    sensitivity = jax.jacobian(lambda x: conv.apply(variables, x)[0, 0, 0])(x)  # [16, 1, 5, 5, 6]
    connected = np.abs(np.asarray(sensitivity)).sum((1, 2, 3)) > 0
    assert [tuple(np.flatnonzero(row)) for row in connected] == list(lenet.C3_MAPS)
    assert connected.sum() == 60


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding"),
    [(14, 5, 3, 0), (112, 3, 2, 0), (7, 2, 2, 0), (8, 3, 1, 1), (28, 3, 2, 1), (9, 2, 3, 0)],
)
def test_sizes_rounded_up(size: int, window: int, stride: int, padding: int) -> None:
    """ceil((M + 2 p - k) / s) + 1 windows, less one that would begin in the padding behind."""
    want = math.ceil((size + 2 * padding - window) / stride) + 1
    if (want - 1) * stride >= size + padding:
        want -= 1
    for kind in ("max", "avg"):
        pool = ops.Pool(kind, window, stride, padding=padding, ceil=True)
        x = jnp.arange(1.0, size * size + 1).reshape(1, size, size, 1)
        y = np.asarray(pool.apply({}, x))
        assert y.shape == (1, want, want, 1)
        first = (want - 1) * stride - padding  # the last window, cut off at the border
        inside = np.asarray(x)[0, max(0, first) : first + window, max(0, first) : first + window]
        last = inside.max() if kind == "max" else inside.mean()  # what is padded does not count
        np.testing.assert_allclose(y[0, -1, -1, 0], last, rtol=1e-6)


@pytest.mark.parametrize("activation", [a for a in ops.ACTIVATIONS if a != "identity"])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_activating_after_a_maximum_is_the_same_function(activation: str, kind: str) -> None:
    """Values and gradients, of random numbers without ties; a mean is never moved."""
    act, pool = ops.ACTIVATIONS[activation], ops.Pool(kind, 2, 2, name=None)
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3)) * 3

    def ours(x: jax.Array) -> jax.Array:
        return ops.activate_and_pool(x, act, pool.bind({}))

    def plainly(x: jax.Array) -> jax.Array:
        return pool.bind({})(act(x))

    np.testing.assert_allclose(ours(x), plainly(x), rtol=1e-6)
    gradients = [jax.grad(lambda x, f=f: jnp.sum(f(x) ** 2))(x) for f in (ours, plainly)]
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-6)
    with kernels.plain():
        after = [shape[1] for shape in results(jax.make_jaxpr(ours)(x).jaxpr, "tanh")]
    if activation in ("tanh", "scaled_tanh"):
        assert after == [3 if kind == "max" else 6]


def test_dropout_keeps_the_mean_and_follows_its_key() -> None:
    drop = ops.Dropout(jnp.float32(0.25))
    x = jnp.ones((100, 100))

    def apply(seed: int) -> np.ndarray:
        return np.asarray(drop.apply({}, x, train=True, rngs={"dropout": jax.random.key(seed)}))

    assert set(np.unique(apply(0))) == {0.0, np.float32(1 / 0.75)}
    assert abs(apply(0).mean() - 1) < 0.03
    assert (apply(0) == apply(0)).all()
    assert (apply(0) != apply(1)).any()
    np.testing.assert_array_equal(drop.apply({}, x, train=False), x)


def test_a_missing_dropout_key_is_an_error() -> None:
    with pytest.raises(Exception, match="dropout"):
        ops.Dropout(0.5).apply({}, jnp.ones((2, 2)), train=True)


def test_lrn_is_the_papers_formula() -> None:
    """Krizhevsky 2012, section 3.3, map by map: alpha is not divided by n."""
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 8)).astype(np.float32) * 20
    y = np.asarray(ops.LRNS["krizhevsky2012"](jnp.asarray(x)))
    for i in range(8):
        near = (x[..., max(0, i - 2) : min(7, i + 2) + 1].astype(np.float64) ** 2).sum(-1)
        np.testing.assert_allclose(y[..., i], x[..., i] / (2 + 1e-4 * near) ** 0.75, rtol=1e-5)
    other = ops.LRN(n=5, k=2.0, alpha=1e-4, beta=0.7500001)  # by the general power
    np.testing.assert_allclose(other(jnp.asarray(x)), y, rtol=1e-5)


@pytest.mark.slow
def test_statistics_move_in_training_and_not_in_evaluation() -> None:
    model = models.create_model("resnet20", blocks=(1, 1, 1), widths=(4, 4, 4), bn_momentum=0.75)
    x = jax.random.normal(jax.random.key(1), (8, 8, 8, 3)) * 3 + 1
    tree = initial(model, (8, 8, 3), 0)
    _, moved = jax.jit(lambda t: model.apply(t, x, train=True, mutable=["batch_stats"]))(tree)
    conv1 = ops.Conv(4, 3, 1, "he_normal", use_bias=False)
    y = conv1.apply({"params": tree["params"]["conv1"]}, x)
    want = 0.25 * jnp.mean(y, (0, 1, 2))
    np.testing.assert_allclose(moved["batch_stats"]["conv1_bn"]["mean"], want, atol=1e-5)
    want = 0.75 + 0.25 * jnp.var(y, (0, 1, 2))
    np.testing.assert_allclose(moved["batch_stats"]["conv1_bn"]["var"], want, rtol=1e-4)
    _, same = model.apply(tree, x, train=False, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, same["batch_stats"], tree["batch_stats"])


@pytest.mark.parametrize("init", ops.INITS)
def test_each_initialiser_has_its_scale(init: str) -> None:
    fan_in, fan_out = 400, 120
    scale = {
        "lecun1998": 2.4 / fan_in / math.sqrt(3),
        "lecun_normal": math.sqrt(1 / fan_in),
        "glorot_uniform": math.sqrt(2 / (fan_in + fan_out)),
        "glorot_normal": math.sqrt(2 / (fan_in + fan_out)),
        "he_uniform": math.sqrt(2 / fan_in),
        "he_normal": math.sqrt(2 / fan_in),
        "normal_0.01": 0.01,
        "normal_0.05": 0.05,
    }[init]
    drawn = ops.INITS[init](jax.random.key(0), (fan_in, fan_out))
    np.testing.assert_allclose(drawn.std(), scale, rtol=0.05)
