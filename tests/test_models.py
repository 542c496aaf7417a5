"""Golden counts from the papers, and every knob seen in the traced program."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import models, ops
from jaxcnn.config import InputError
from jaxcnn.models import lenet


def shapes(name: str, image: tuple[int, int, int], **fields: Any) -> dict[str, Any]:
    model = models.create_model(name, **fields)
    return jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, *image)), train=False)
    )["params"]


def count(tree: Any) -> int:
    return sum(math.prod(a.shape) for a in jax.tree.leaves(tree))


def program(name: str, image: tuple[int, int, int], *, train: bool = True, **fields: Any) -> str:
    """The traced forward pass, without making weights."""
    model = models.create_model(name, **fields)
    x = jax.ShapeDtypeStruct((2, *image), jnp.float32)
    variables = {"params": shapes(name, image, **fields)}
    key = jax.eval_shape(lambda: jax.random.key(0))

    def apply(variables: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        return model.apply(variables, x, train=train, rngs={"dropout": key})[0]

    return str(jax.make_jaxpr(apply)(variables, x, key))


LENET_ROWS = {"C1": 156, "C3": 2416, "C5": 48120, "F6": 10164, "output": 850}
ORIGINAL_ROWS = {"C1": 156, "S2": 12, "C3": 1516, "S4": 32, "C5": 48120, "F6": 10164}


@pytest.mark.parametrize(
    ("name", "image", "rows", "total"),
    [
        ("lenet5", (28, 28, 1), LENET_ROWS, 61_706),
        ("lenet5_1998", (32, 32, 1), ORIGINAL_ROWS, 60_000),
        ("mlp", (28, 28, 1), {"fc1": 235_500, "fc2": 30_100, "output": 1010}, 266_610),
    ],
)
def test_parameter_counts(
    name: str, image: tuple[int, int, int], rows: dict[str, int], total: int
) -> None:
    params = shapes(name, image)
    assert {layer: count(tree) for layer, tree in params.items()} == rows
    assert count(params) == total


def test_c3_is_connected_as_in_table_1() -> None:
    """Each output map answers to its own input maps and to no other."""
    conv = ops.Conv(16, 5, maps=lenet.C3_MAPS)
    x = jnp.zeros((1, 5, 5, 6))
    variables = conv.init(jax.random.key(0), x)
    sensitivity = jax.jacobian(lambda x: conv.apply(variables, x)[0, 0, 0])(x)  # [16, 1, 5, 5, 6]
    connected = np.abs(np.asarray(sensitivity)).sum((1, 2, 3)) > 0
    assert [tuple(np.flatnonzero(row)) for row in connected] == list(lenet.C3_MAPS)
    assert connected.sum() == 60


def test_rbf_codes_are_84_bits_all_different() -> None:
    codes = np.asarray(lenet.codes())
    assert codes.shape == (10, 84)
    assert set(codes.ravel()) == {-1.0, 1.0}
    distances = (codes[:, None] != codes[None]).sum(-1)
    assert distances[~np.eye(10, dtype=bool)].min() >= 4


def test_rbf_output_is_the_squared_distance_to_the_codes() -> None:
    """With F6 made to say the code of 3, class 3 has distance 84 (1 - 1)^2 = 0 and wins."""
    model = models.create_model("lenet5_1998", activation="identity")
    x = jnp.zeros((1, 32, 32, 1))
    params = model.init(jax.random.key(0), x, train=False)["params"]
    f6 = {"kernel": jnp.zeros((120, 84)), "bias": lenet.codes()[3]}
    logits, _ = model.apply({"params": params | {"F6": f6}}, x, train=False)
    expected = -((np.asarray(lenet.codes()) - np.asarray(lenet.codes())[3]) ** 2).sum(-1)
    np.testing.assert_allclose(logits[0], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998", "mlp"])
@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
def test_the_activation_reaches_every_layer(name: str, activation: str) -> None:
    image = (32, 32, 1) if name == "lenet5_1998" else (28, 28, 1)
    text = program(name, image, activation=activation)
    marks = {
        "relu": "relu",
        "tanh": "tanh",
        "sigmoid": "logistic",
        "scaled_tanh": "tanh",
        "leaky_relu": "leaky_relu",
    }
    layers = {"lenet5": 4, "lenet5_1998": 6, "mlp": 2}[name]
    for mark in set(marks.values()):
        found = text.count(f" {mark} ") + text.count(f"name={mark}\n") + text.count(f"name={mark} ")
        assert (found > 0) == (marks.get(activation) == mark), (mark, text)
    if activation in ("tanh", "sigmoid", "scaled_tanh"):
        assert text.count(f" {marks[activation]} ") == layers


def test_pool_kind_window_and_stride_reach_both_layers() -> None:
    x = jnp.linspace(0, 1, 28 * 28).reshape(1, 28, 28, 1)
    outs = {}
    for pool in ("max", "avg"):
        for window, stride in ((2, 2), (3, 2)):
            fields = {"pool": pool, "pool_window": window, "pool_stride": stride}
            params = shapes("lenet5", (28, 28, 1), **fields)
            side = ((28 - window) // stride + 1 - 4 - window) // stride + 1
            assert params["C5"]["kernel"].shape == (16 * side * side, 120)
            outs[pool, window] = program("lenet5", (28, 28, 1), **fields)
    assert "reduce_window_max" in outs["max", 3]
    assert "reduce_window_max" not in outs["avg", 3]
    assert "reduce_max" not in outs["avg", 2]
    assert count(shapes("lenet5", (28, 28, 1), pool="subsample")) == 61_706 + 12 + 32
    assert x.shape == (1, 28, 28, 1)


@pytest.mark.parametrize(("name", "sites"), [("lenet5", 2), ("lenet5_1998", 2), ("mlp", 2)])
def test_dropout_is_where_it_is_asked_for_and_nowhere_else(name: str, sites: int) -> None:
    image = (32, 32, 1) if name == "lenet5_1998" else (28, 28, 1)
    assert "random_bits" not in program(name, image)
    assert "random_bits" not in program(name, image, dropout=0.5, train=False)
    assert program(name, image, dropout=0.5).count("random_bits") == sites


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


@pytest.mark.parametrize("init", ops.INITS)
def test_the_initialiser_reaches_every_kernel(init: str) -> None:
    """Every kernel is the initialiser's own draw for that layer's key: scale tells them apart."""
    model = models.create_model("lenet5_1998", initializer=init)
    params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)), train=False)["params"]
    fans = {"C5": (400, 120), "F6": (120, 84)}
    limits = {
        "lecun1998": lambda i, o: 2.4 / i / math.sqrt(3),
        "lecun_normal": lambda i, o: math.sqrt(1 / i),
        "glorot_uniform": lambda i, o: math.sqrt(2 / (i + o)),
        "glorot_normal": lambda i, o: math.sqrt(2 / (i + o)),
        "he_uniform": lambda i, o: math.sqrt(2 / i),
        "he_normal": lambda i, o: math.sqrt(2 / i),
        "normal_0.01": lambda i, o: 0.01,
    }
    for layer, (fan_in, fan_out) in fans.items():
        np.testing.assert_allclose(
            params[layer]["kernel"].std(), limits[init](fan_in, fan_out), rtol=0.05
        )
    expected = {"C1": (25, 150), "C3": (60 * 25 / 16, 25)}
    for layer, (fan_in, fan_out) in expected.items():
        std = float(params[layer]["kernel"].std())
        assert 0.6 < std / limits[init](fan_in, fan_out) < 1.5, layer
    assert {k for k, v in params["S2"].items()} == {"coefficient", "bias"}


def test_equal_names_start_from_equal_weights() -> None:
    x = jnp.zeros((1, 28, 28, 1))
    a, b = (
        models.create_model("lenet5", **fields).init(jax.random.key(3), x, train=False)["params"]
        for fields in (
            {"activation": "relu", "pool": "max", "dropout": 0.5},
            {"activation": "tanh"},
        )
    )
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    ("name", "image", "fields", "said"),
    [
        ("lenet", (28, 28, 1), {}, "Did you mean lenet5"),
        ("mlp", (28, 28, 1), {"pool": "max"}, "model.pool: mlp has no such knob"),
        ("lenet5", (28, 28, 1), {"pool_window": 40}, "model.pool_window: 40 is larger than"),
        ("lenet5", (28, 28, 1), {"pool_stride": 9}, "C3: its 5x5 window is larger than"),
        ("lenet5_1998", (28, 28, 1), {}, "data.pad=2"),
        ("lenet5", (28, 28, 1), {"activation": "sigmod"}, "model.activation: 'sigmod'"),
        ("lenet5", (28, 28, 1), {"pool": "mean"}, "model.pool: 'mean' is not one of 'max'"),
        ("lenet5", (28, 28, 1), {"initializer": "he"}, "model.initializer: 'he' is not one of"),
    ],
)
def test_what_cannot_be_built_is_named(
    name: str, image: tuple[int, int, int], fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        shapes(name, image, **fields)


def test_list_models_takes_a_wildcard() -> None:
    assert models.list_models("lenet*") == ["lenet1", "lenet4", "lenet5", "lenet5_1998"]
    assert "mlp" in models.list_models()


def test_bfloat16_computes_in_half_and_keeps_parameters_whole() -> None:
    text = program("lenet5", (28, 28, 1), dtype=jnp.bfloat16)
    assert "bf16" in text
    for leaf in jax.tree.leaves(shapes("lenet5", (28, 28, 1), dtype=jnp.bfloat16)):
        assert leaf.dtype == jnp.float32


def test_every_model_has_only_knobs_of_the_config() -> None:
    own = {"classes", "dtype", "padding", "c3_maps", "rbf", "parent", "name"}
    own |= {"layers", "head_bias", "pool_first", "dropout_first", "ceil"}
    own |= {"last_pool_window", "output_dropout", "conv_bias", "five", "side_pool"}
    own |= {"transform_input", "bottleneck", "stem", "zeros_at"}
    for name, (module, _, _) in models.MODELS.items():
        fields = {f.name for f in dataclasses.fields(module)}
        assert fields - own <= set(models.KNOBS), name
