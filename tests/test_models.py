"""Golden counts from the papers, and every knob seen in the traced program."""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import analysis, kernels, models, ops
from jaxcnn.config import InputError
from jaxcnn.models import googlenet, lenet, resnet
from jaxcnn.models.heatmaps import Heatmaps

Image = tuple[int, int, int]

# One of each family, in a form that has everything its knobs reach; and the sites of each.
FAMILIES = ("lenet5", "alexnet", "cuda_convnet", "vgg16", "googlenet", "resnet50", "resnet20")
CONVOLUTIONS = {"lenet5": 2, "alexnet": 5, "cuda_convnet": 3, "vgg16": 13, "googlenet": 59}
CONVOLUTIONS |= {"resnet50": 53, "resnet20": 19}
HIDDEN = {"lenet5": 2, "alexnet": 2, "vgg16": 2, "googlenet": 2}  # fully-connected, with activation
POOLINGS = {"lenet5": 2, "alexnet": 3, "cuda_convnet": 3, "vgg16": 5, "googlenet": 13}
POOLINGS |= {"resnet50": 1}
LRNS = {"lenet5": 2, "alexnet": 2, "vgg16": 1, "googlenet": 2, "resnet50": 1, "resnet20": 1}
DROPOUTS = {"lenet5": 2, "alexnet": 2, "vgg16": 2, "googlenet": 3, "resnet50": 1, "resnet20": 1}


def variables(name: str, image: Image | None = None, **fields: Any) -> dict[str, Any]:
    """The shapes of a model's variables; no weights are made."""
    model = models.create_model(name, **fields)
    x = jnp.zeros((1, *(image or models.MODELS[name].image)))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))


def shapes(name: str, image: Image | None = None, **fields: Any) -> dict[str, Any]:
    return variables(name, image, **fields)["params"]


def initial(model: Any, image: Image, seed: int) -> dict[str, Any]:
    """Real weights, of a small model."""
    return model.init(jax.random.key(seed), jnp.zeros((1, *image)), train=False)


def count(tree: Any) -> int:
    return sum(math.prod(a.shape) for a in jax.tree.leaves(tree))


def program(name: str, image: Image | None = None, *, train: bool = True, **fields: Any) -> Any:
    """The traced forward pass in the operations of lax, without making weights."""
    model = models.create_model(name, **fields)
    x = jax.ShapeDtypeStruct((2, *(image or models.MODELS[name].image)), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def apply(variables: Any, x: jax.Array, key: jax.Array) -> Any:
        return model.apply(
            variables, x, train=train, rngs={"dropout": key}, mutable=["batch_stats"]
        )

    with kernels.plain():
        return jax.make_jaxpr(apply)(variables(name, image, **fields), x, key).jaxpr


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def uses(jaxpr: Any, name: str, **params: Any) -> int:
    """How often a program has a primitive with these parameters, or a function such as relu."""
    return sum(
        (e.primitive.name == name or (e.primitive.name, e.params.get("name")) in FUNCTIONS[name])
        and all(e.params[k] == v for k, v in params.items())
        for e in equations(jaxpr)
    )


FUNCTIONS: dict[str, tuple[Any, ...]] = defaultdict(
    tuple, relu=(("jit", "relu"),), leaky_relu=(("jit", "leaky_relu"),)
)


def constants(jaxpr: Any, value: float) -> int:
    """How often a program has a number among its operands."""
    found = [v for e in equations(jaxpr) for v in e.invars if hasattr(v, "val")]
    return sum(np.ndim(v.val) == 0 and v.val == value for v in found)


def results(jaxpr: Any, name: str) -> list[tuple[int, ...]]:
    """The shapes that a primitive gives."""
    return [e.outvars[0].aval.shape for e in equations(jaxpr) if e.primitive.name == name]


LENET_ROWS = {"C1": 156, "C3": 2416, "C5": 48120, "F6": 10164, "output": 850}
ORIGINAL_ROWS = {"C1": 156, "S2": 12, "C3": 1516, "S4": 32, "C5": 48120, "F6": 10164}
LENET1_ROWS = {"C1": 104, "S2": 8, "C3": 512, "S4": 24, "output": 1930}
ALEXNET_ROWS = {"conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936}
ALEXNET_ROWS |= {"conv5": 442_624, "fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000}
HINTON = {"fc1": 785_000, "fc2": 500_500, "fc3": 125_250, "fc4": 7530}
HINTON |= {"decoder4": 7750, "decoder3": 125_500, "decoder2": 501_000, "decoder1": 784_784}


@pytest.mark.parametrize(
    ("name", "rows", "total"),
    [
        ("lenet5", LENET_ROWS, 61_706),
        ("lenet5_1998", ORIGINAL_ROWS, 60_000),
        ("lenet1", LENET1_ROWS, 2578),
        ("mlp", {"fc1": 235_500, "fc2": 30_100, "output": 1010}, 266_610),
        ("autoencoder", HINTON, 2_837_314),
        ("alexnet", ALEXNET_ROWS, 60_965_224),
    ],
)
def test_parameters_by_layer(name: str, rows: dict[str, int], total: int) -> None:
    params = shapes(name)
    assert {layer: count(tree) for layer, tree in params.items()} == rows
    assert count(params) == total


# Of convolutions alone, 25/18 or 49/27 as many weights, and a bias where two or three were.
HEAD = 25_088 * 4096 + 4096 * 4096 + 4096 * 1000 + 2 * 4096 + 1000
STAGES = ((3, 64), (64, 128), (128, 256), (256, 512), (512, 512))
VGG13_5X5 = HEAD + sum((25 * c + 1) * o for c, o in STAGES)
VGG16_7X7 = HEAD + sum(
    (k * k * c + 1) * o for k, (c, o) in zip((5, 5, 7, 7, 7), STAGES, strict=True)
)
TOTALS = {
    "alexnet_ungrouped": 62_378_344,
    "alexnet_owt": 61_100_840,
    "caffenet": 60_965_224,
    "zfnet": 62_357_608,
    **{"vgg13_5x5": VGG13_5X5, "vgg16_7x7": VGG16_7X7},
    "cuda_convnet": 89_578,
    **{"vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544, "vgg19": 143_667_240},
    **{"vgg11_bn": 132_868_840, "vgg13_bn": 133_053_736, "vgg16_bn": 138_365_992},
    **{"vgg19_bn": 143_678_248, "vgg11_lrn": 132_863_336, "vgg16_c": 133_638_952},
    **{"googlenet": 13_378_280, "googlenet_bn": 13_004_888},
    **{"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032},
    **{"resnet101": 44_549_160, "resnet152": 60_192_808, "resnet50_v1.5": 25_557_032},
    **{"resnet101_v1.5": 44_549_160, "resnet152_v1.5": 60_192_808, "resnet50_keras": 25_583_592},
    **{"plain18": 11_515_688, "plain34": 21_623_848},
    **{"resnet20": 269_722, "resnet32": 464_154, "resnet44": 658_586, "resnet56": 853_018},
    **{"plain20": 269_722, "plain32": 464_154, "plain44": 658_586, "plain56": 853_018},
    **{"resnet110": 1_727_962, "plain110": 1_727_962},
}


@pytest.mark.parametrize("name", TOTALS)
def test_parameters_in_all(name: str) -> None:
    assert count(shapes(name)) == TOTALS[name]


@pytest.mark.parametrize(
    ("name", "fields", "total"),
    [
        ("googlenet", {"side_heads": False}, 6_998_552),
        ("googlenet_bn", {"side_heads": False}, 6_624_904),
        ("resnet18", {"shortcut": "A"}, 11_515_688),
        ("resnet34", {"shortcut": "A"}, 21_623_848),
        ("resnet20", {"shortcut": "B"}, 272_474),
        ("resnet110", {"shortcut": "B"}, 1_730_714),
        ("autoencoder", {"tied": True}, 1_418_280 + 784 + 1000 + 500 + 250),
    ],
)
def test_parameters_of_variants(name: str, fields: dict[str, Any], total: int) -> None:
    assert count(shapes(name, **fields)) == total


@pytest.mark.parametrize("name", models.list_models())
def test_every_model_traces_in_training(name: str) -> None:
    """At the paper's input: logits, the statistics that move, and side heads in training alone."""
    model = models.create_model(name)
    x = jax.ShapeDtypeStruct((2, *models.MODELS[name].image), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    tree = variables(name)

    def apply(tree: Any, x: jax.Array, key: jax.Array) -> Any:
        return model.apply(tree, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"])

    (output, extras), updates = jax.eval_shape(apply, tree, x, key)
    classes = 784 if name == "autoencoder" else getattr(model, "classes", 0)
    assert output.shape == (2, classes)
    assert jax.tree.structure(updates.get("batch_stats", {})) == jax.tree.structure(
        tree.get("batch_stats", {})
    )
    assert ("side_4a" in extras) == (name in ("googlenet", "googlenet_bn"))


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


def test_rbf_codes_are_84_bits_all_different() -> None:
    codes = np.asarray(lenet.codes())
    assert codes.shape == (10, 84)
    assert set(codes.ravel()) == {-1.0, 1.0}
    distances = (codes[:, None] != codes[None]).sum(-1)
    assert distances[~np.eye(10, dtype=bool)].min() >= 4


@pytest.mark.slow
def test_rbf_output_is_the_squared_distance_to_the_codes() -> None:
    """With F6 made to say the code of 3, class 3 has distance 84 (1 - 1)^2 = 0 and wins."""
    model = models.create_model("lenet5_1998", activation="identity")
    x = jnp.zeros((1, 32, 32, 1))
    params = model.init(jax.random.key(0), x, train=False)["params"]
    f6 = {"kernel": jnp.zeros((120, 84)), "bias": lenet.codes()[3]}
    logits, _ = model.apply({"params": params | {"F6": f6}}, x, train=False)
    expected = -((np.asarray(lenet.codes()) - np.asarray(lenet.codes())[3]) ** 2).sum(-1)
    np.testing.assert_allclose(logits[0], expected, rtol=1e-6)


MARKS = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic", "leaky_relu": "leaky_relu"}


@pytest.mark.parametrize("activation", MARKS)
@pytest.mark.parametrize("name", [*FAMILIES, "plain20", "mlp"])
def test_the_activation_reaches_every_layer(name: str, activation: str) -> None:
    text = program(name, activation=activation)
    sites = CONVOLUTIONS.get(name.replace("plain", "resnet"), 0) + HIDDEN.get(name, 0)
    sites += {"mlp": 2, "resnet50": -4}.get(name, 0)  # projections have none
    for other, mark in MARKS.items():
        assert uses(text, mark) == (sites if other == activation else 0), mark


def test_scaled_tanh_and_the_original_lenet() -> None:
    assert uses(program("lenet5_1998"), "tanh") == 6
    assert uses(program("lenet5_1998", activation="relu"), "tanh") == 0


@pytest.mark.parametrize("name", POOLINGS)
def test_the_kind_of_pooling_reaches_every_pooling(name: str) -> None:
    side = 2 if name == "googlenet" else 0  # the side heads' are averages by the paper
    largest, mean = (program(name, pool=kind) for kind in ("max", "avg"))
    assert uses(largest, "reduce_window_max") == POOLINGS[name]
    assert uses(largest, "reduce_window_sum") == side
    assert uses(mean, "reduce_window_max") == 0
    assert uses(mean, "reduce_window_sum") >= POOLINGS[name] + side


@pytest.mark.parametrize("name", POOLINGS)
def test_window_and_stride_reach_every_pooling(name: str) -> None:
    own = 4 if name == "googlenet" else POOLINGS[name]  # those inside inceptions keep theirs
    for window, stride in ((2, 2), (3, 2), (4, 3)):
        # Rounding up makes equal maps of other windows; else the net must still fit.
        small = {"head": (4,)} if name in ("alexnet", "vgg16") else {}
        image = (400, 400, 3) if name in ("vgg16", "googlenet") else None
        text = program(name, image, pool="max", pool_window=window, pool_stride=stride, **small)
        sizes = {
            "window_dimensions": (1, window, window, 1),
            "window_strides": (1, stride, stride, 1),
        }
        assert uses(text, "reduce_window_max", **sizes) == own


def test_lenets_poolings_by_window_and_kind() -> None:
    for window, stride in ((2, 2), (3, 2)):
        params = shapes("lenet5", pool_window=window, pool_stride=stride)
        side = ((28 - window) // stride + 1 - 4 - window) // stride + 1
        assert params["C5"]["kernel"].shape == (16 * side * side, 120)
    assert count(shapes("lenet5", pool="subsample")) == 61_706 + 12 + 32


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


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout_is_where_it_is_asked_for_and_nowhere_else(name: str) -> None:
    image = (64, 64, 3) if name.startswith("resnet50") else None
    assert uses(program(name, image, dropout=0.0), "random_bits") == 0
    assert uses(program(name, image, dropout=0.5, train=False), "random_bits") == 0
    assert uses(program(name, image, dropout=0.5), "random_bits") == DROPOUTS[name]


@pytest.mark.parametrize("name", ["mlp", "autoencoder"])
def test_dropout_of_fully_connected_nets(name: str) -> None:
    layers = {"mlp": 2, "autoencoder": 4}[name]
    assert uses(program(name), "random_bits") == 0
    assert uses(program(name, dropout=0.5), "random_bits") == layers


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


@pytest.mark.parametrize("name", LRNS)
def test_lrn_is_where_it_is_asked_for_and_nowhere_else(name: str) -> None:
    image = (64, 64, 3) if name == "resnet50" else None
    assert uses(program(name, image, lrn=None, batch_norm=False), "rsqrt") == 0
    text = program(name, image, lrn="krizhevsky2012", batch_norm=False)
    assert uses(text, "rsqrt") == LRNS[name]


def test_lrn_is_the_papers_formula() -> None:
    """Krizhevsky 2012, section 3.3, map by map: alpha is not divided by n."""
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 8)).astype(np.float32) * 20
    y = np.asarray(ops.LRNS["krizhevsky2012"](jnp.asarray(x)))
    for i in range(8):
        near = (x[..., max(0, i - 2) : min(7, i + 2) + 1].astype(np.float64) ** 2).sum(-1)
        np.testing.assert_allclose(y[..., i], x[..., i] / (2 + 1e-4 * near) ** 0.75, rtol=1e-5)
    other = ops.LRN(n=5, k=2.0, alpha=1e-4, beta=0.7500001)  # by the general power
    np.testing.assert_allclose(other(jnp.asarray(x)), y, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_batch_norm_reaches_every_convolution(name: str) -> None:
    params = jax.tree_util.tree_leaves_with_path(shapes(name, batch_norm=True))
    scales = [p for p, a in params if p[-1].key == "scale"]
    kernels_ = [p for p, a in params if p[-1].key == "kernel" and len(a.shape) == 4]
    assert len(scales) == len(kernels_) == CONVOLUTIONS[name]
    off = variables(name, batch_norm=False)
    assert "batch_stats" not in off
    biased = [
        p for p, _ in jax.tree_util.tree_leaves_with_path(off["params"]) if p[-1].key == "bias"
    ]
    assert len(biased) >= CONVOLUTIONS[name]  # without it, every convolution has its bias


@pytest.mark.parametrize("name", [*FAMILIES, "mlp"])
def test_momentum_and_epsilon_reach_every_normalisation(name: str) -> None:
    moments = {"bn_momentum": 0.8125, "bn_epsilon": 0.0625}
    text = program(name, batch_norm=True, **moments)
    sites = CONVOLUTIONS.get(name, 2)
    assert constants(text, 0.0625) == sites
    assert constants(text, 0.8125) == 2 * sites  # mean and variance


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


@pytest.mark.parametrize("name", [*FAMILIES, "lenet5_1998", "mlp", "autoencoder"])
def test_the_initialiser_reaches_every_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def recorded(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        drawn.append(math.prod(shape))
        return jnp.zeros(shape, dtype)

    monkeypatch.setitem(ops.INITS, "he_uniform", recorded)
    params = jax.tree_util.tree_leaves_with_path(shapes(name, initializer="he_uniform"))
    kernels_ = [math.prod(a.shape) for p, a in params if p[-1].key == "kernel"]
    if name == "lenet5_1998":  # C3's kernel is drawn map by map; S2 and S4 have coefficients
        assert sum(drawn) == sum(kernels_) + 4 * 6 + 4 * 16
    else:
        assert sorted(drawn) == sorted(kernels_)


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


@pytest.mark.slow
def test_alexnets_biases_start_as_in_section_5() -> None:
    """1 in conv2, 4, 5 and the hidden fully-connected layers, 0 elsewhere."""
    model = models.create_model("alexnet", head=(4, 4), classes=3)
    tree = initial(model, (227, 227, 3), 0)["params"]
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    for layer, leaves in tree.items():
        np.testing.assert_array_equal(leaves["bias"], float(layer in ones))
    np.testing.assert_allclose(tree["conv3"]["kernel"].std(), 0.01, rtol=0.05)


def test_towers() -> None:
    """Two: each map of conv2 sees half of conv1's; one: all."""
    assert shapes("alexnet")["conv2"]["kernel"].shape == (5, 5, 48, 256)
    assert shapes("alexnet", groups=1)["conv2"]["kernel"].shape == (5, 5, 96, 256)
    assert uses(program("alexnet"), "conv_general_dilated", feature_group_count=2) == 3
    with pytest.raises(InputError, match=r"model\.groups: 5 does not divide the 96 input"):
        shapes("alexnet", groups=5)


def test_a_small_alexnet_has_one_tower_unless_two_are_asked_for() -> None:
    assert uses(program("alexnet_cifar"), "conv_general_dilated", feature_group_count=2) == 0
    two = program("alexnet_cifar", groups=2)
    assert uses(two, "conv_general_dilated", feature_group_count=2) == 3


def test_layers_left_out() -> None:
    """With their activation and LRN; the pooling behind stays, and so do the sizes of the maps."""
    whole = shapes("alexnet_cifar")
    for layer, before, lrns in (("conv2", 64, 1), ("conv4", 384, 2), ("conv5", 256, 2)):
        less, text = (
            shapes("alexnet_cifar", without=(layer,)),
            program("alexnet_cifar", without=(layer,), pool="max"),
        )
        assert whole.keys() - less.keys() == {layer}
        after = f"conv{int(layer[-1]) + 1}"
        if after in less:
            assert less[after]["kernel"].shape[2] == before
        assert less["fc6"]["kernel"].shape[0] == 4 * 4 * 256
        assert uses(text, "reduce_window_max") == 3
        assert uses(text, "relu") == 4 + 2 and uses(text, "rsqrt") == lrns
    assert uses(program("zfnet", without=("conv1",)), "rsqrt") == 1
    assert shapes("alexnet_cifar", without=("conv3", "conv4")).keys() == whole.keys() - {
        "conv3",
        "conv4",
    }


def test_widths_of_alexnet_and_vgg() -> None:
    params = shapes("alexnet_cifar", widths=(2, 4, 6, 8, 10), head=(3,))
    assert [params[f"conv{i}"]["bias"].shape for i in range(1, 6)] == [
        (2 * i,) for i in range(1, 6)
    ]
    params = shapes("vgg16_cifar", (16, 16, 3), widths=(2, 4, 6), head=(3,))
    maps = {name: layer["bias"].shape[0] for name, layer in params.items() if "_bn" not in name}
    stages = {f"conv{i}_{j}": 2 * i for i, n in ((1, 2), (2, 2), (3, 3)) for j in range(1, n + 1)}
    assert maps == stages | {"fc6": 3, "fc7": 10}
    assert params["fc6"]["kernel"].shape == (2 * 2 * 6, 3)


def test_single_windows_have_the_field_of_the_stacks() -> None:
    for stacked, single, windows in (
        ("vgg13_cifar", "vgg13_5x5_cifar", [5] * 5),
        ("vgg16_cifar", "vgg16_7x7_cifar", [5, 5, 7, 7, 7]),
    ):
        assert [shapes(single)[f"conv{i}_1"]["kernel"].shape[0] for i in range(1, 6)] == windows
        span, other = (analysis.of(name).receptive_field for name in (stacked, single))
        assert span is not None and other is not None and span.size == other.size


@pytest.mark.slow
def test_small_googlenets() -> None:
    """Side heads where asked for; a width reaches every layer; plain has equal compute."""
    assert not any(name.startswith("side") for name in shapes("googlenet_cifar"))
    whole, half = (
        shapes("googlenet_cifar", width_multiplier=w, side_heads=True) for w in (1.0, 0.5)
    )
    for name, layer in whole.items():
        if "kernel" in layer and not name.endswith("output"):
            assert half[name]["kernel"].shape[-1] == layer["kernel"].shape[-1] / 2, name
    assert whole["side_4a_fc"]["kernel"].shape == (4 * 4 * 32, 128)
    convolutions = {k for k in shapes("googlenet_cifar_plain") if "_bn" not in k}
    assert convolutions == {"conv1", "output"} | {f"inception_{k}" for k in googlenet.PLAIN}
    for width, apart in ((1.0, 0.01), (0.5, 0.03), (0.25, 0.03)):
        plain, inception = (
            analysis.of(f"googlenet_cifar{kind}", width_multiplier=width).macs
            for kind in ("_plain", "")
        )
        assert abs(plain / inception - 1) < apart


def test_the_order_of_pooling_and_normalisation() -> None:
    """AlexNet normalises 55x55 maps, CaffeNet and ZFNet the pooled ones."""
    sizes = {
        name: [shape[1] for shape in results(program(name), "rsqrt")]
        for name in ("alexnet", "caffenet", "zfnet")
    }
    assert sizes == {"alexnet": [55, 27], "caffenet": [27, 13], "zfnet": [55, 13]}


@pytest.mark.slow
def test_shortcuts() -> None:
    project = {"A": 0, "B": 2, "C": 9, None: 0}
    for shortcut, projections in project.items():
        params = shapes("resnet20", shortcut=shortcut)
        assert sum("shortcut" in block for block in params.values()) == projections
        assert uses(program("resnet20", shortcut=shortcut), "pad") == (2 if shortcut == "A" else 0)
    sums = {s: uses(program("resnet20", shortcut=s), "add") for s in ("A", None)}
    assert sums["A"] - sums[None] == 9
    with pytest.raises(InputError, match="model.shortcut: 'D' is not one of 'A', 'B', 'C', None"):
        shapes("resnet20", shortcut="D")


@pytest.mark.parametrize(("zeros_at", "first"), [("end", 0), ("both", 2)])
@pytest.mark.slow
def test_option_a_appends_its_zeros_or_puts_half_before(zeros_at: str, first: int) -> None:
    """With every weight zero a block is its shortcut."""
    model = models.create_model("resnet20", blocks=(1, 1), widths=(4, 8), zeros_at=zeros_at)
    x = jnp.ones((1, 4, 4, 3))
    tree = initial(model, (4, 4, 3), 0)
    params = jax.tree.map(jnp.zeros_like, tree["params"])
    params["conv1"]["kernel"] = jnp.ones_like(params["conv1"]["kernel"])
    params["conv1_bn"]["scale"] = jnp.ones(4)
    params["fc"]["kernel"] = jnp.eye(8, 10)
    logits, _ = model.apply({**tree, "params": params}, x, train=False)
    assert (np.flatnonzero(logits[0]) == np.arange(first, first + 4)).all()


def test_the_stride_of_a_bottleneck() -> None:
    """In the first 1x1, as in the paper, or in the 3x3 (v1.5)."""

    def halved(name: str, **fields: Any) -> list[int]:
        """Windows of the convolutions of stride 2 that halve, stem and projections left out."""
        found = [
            e.invars[1].aval.shape
            for e in equations(program(name, **fields))
            if e.primitive.name == "conv_general_dilated" and e.params["window_strides"] == (2, 2)
        ]
        return [k for k, _, c, o in found if k != 7 and not (k == 1 and o == 2 * c)]

    assert halved("resnet50") == [1, 1, 1]
    assert halved("resnet50_v1.5") == halved("resnet50", stride_at="3x3") == [3, 3, 3]


@pytest.mark.slow
def test_zero_gamma_starts_each_block_as_its_shortcut() -> None:
    model = models.create_model("resnet20", zero_gamma=True, blocks=(1, 2), widths=(4, 8))
    tree = initial(model, (8, 8, 3), 0)["params"]
    blocks = [layer for name, layer in tree.items() if "_" in name and "conv2" in layer]
    assert len(blocks) == 3
    for block in blocks:
        assert not block["conv2_bn"]["scale"].any() and block["conv1_bn"]["scale"].all()
    assert tree["conv1_bn"]["scale"].all()


@pytest.mark.parametrize("fields", [{"scan": True}, {"remat": True}, {"scan": True, "remat": True}])
@pytest.mark.slow
def test_scanned_and_rematerialised_blocks_are_the_same_net(fields: dict[str, Any]) -> None:
    small = {"blocks": (3, 3), "widths": (4, 8)}
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    model = models.create_model("resnet20", **small)
    tree = initial(model, (8, 8, 3), 0)
    other = models.create_model("resnet20", **small, **fields)

    def loss(model: Any, tree: Any) -> tuple[jax.Array, Any]:
        (logits, _), moved = model.apply(tree, x, train=True, mutable=["batch_stats"])
        return jnp.sum(logits**2), moved

    def change(tree: Any) -> Any:
        return resnet.stacked(tree, (3, 3)) if "scan" in fields else tree

    both = jax.jit(jax.value_and_grad(loss, argnums=1, has_aux=True), static_argnums=0)
    (want, moved), gradient = both(model, tree)
    (got, moved2), gradient2 = both(other, change(tree))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), change(moved), moved2)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-3)  # noqa: E731
    jax.tree.map(close, change(gradient)["params"], gradient2["params"])
    text = program("resnet20", (8, 8, 3), **small, **fields)
    assert uses(text, "scan") == (2 if "scan" in fields else 0)
    again = 0 if "remat" not in fields else 4 if "scan" in fields else 6
    assert uses(text, "remat2") == again


def test_widths_heads_and_blocks() -> None:
    assert shapes("lenet5", widths=(3, 5), head=(7,))["C5"]["kernel"].shape == (5 * 25, 7)
    assert shapes("vgg11", head=(9,), classes=4)["fc7"]["kernel"].shape == (9, 4)
    assert shapes("alexnet", head=(8, 9))["fc7"]["kernel"].shape == (8, 9)
    params = shapes("resnet20", blocks=(1, 2), widths=(4, 6))
    assert {"conv2_1", "conv3_1", "conv3_2"} < params.keys() and "conv4_1" not in params
    with pytest.raises(InputError, match=r"model\.blocks: \(1, 2, 3\) is of 3 stages"):
        shapes("resnet20", blocks=(1, 2, 3), widths=(4, 6))
    with pytest.raises(InputError, match="a LeNet has two convolutions"):
        shapes("lenet5", widths=(3,))
    with pytest.raises(InputError, match="this net has 5 convolutions"):
        shapes("alexnet", widths=(3,))
    with pytest.raises(InputError, match="this net has 5 stages"):
        shapes("vgg11", widths=(1,) * 6)
    with pytest.raises(InputError, match="model.without: 'conv9' is not one of 'conv1', 'conv2'"):
        shapes("alexnet", without=("conv9",))


def test_side_heads_are_of_training_alone() -> None:
    assert "side_4a_conv" in shapes("googlenet")
    assert "side_4a_conv" not in shapes("googlenet", side_heads=False)
    assert uses(program("googlenet", train=False), "conv_general_dilated") == 57
    assert uses(program("googlenet"), "conv_general_dilated") == 59


@pytest.mark.slow
def test_an_autoencoder_layer_by_layer() -> None:
    """Layer 2 alone: from the codes of layer 1, which get no gradient, and back to them."""
    model = models.create_model("autoencoder", widths=(6, 4, 3), decoders=True, classes=10)
    x = jax.random.uniform(jax.random.key(1), (2, 5, 5, 1))
    tree = model.init(jax.random.key(0), x, train=False)

    def loss(tree: Any) -> jax.Array:
        output, extras = model.apply(tree, x, train=True, layer=2)
        assert output.shape == extras["target"].shape == (2, 6)
        return jnp.sum((output - extras["target"]) ** 2)

    moved = {k for k, v in jax.grad(loss)(tree)["params"].items() if jnp.abs(v["kernel"]).sum() > 0}
    assert moved == {"fc2", "decoder2"}
    logits, extras = model.apply(tree, x, train=False)
    assert logits.shape == (2, 10) and extras["code"].shape == (2, 3)
    without = models.create_model("autoencoder", widths=(6, 4, 3), decoders=False, classes=10)
    start = without.init(jax.random.key(0), x, train=False)["params"]
    assert start.keys() == {"fc1", "fc2", "fc3", "output"}
    jax.tree.map(np.testing.assert_array_equal, start, {k: tree["params"][k] for k in start})


def test_tied_decoders_are_the_encoders_turned_round() -> None:
    model = models.create_model(
        "autoencoder", widths=(4,), tied=True, activation="identity", code_activation="identity"
    )
    x = jax.random.uniform(jax.random.key(1), (2, 3, 1, 1))
    tree = model.init(jax.random.key(0), x, train=False)
    w = tree["params"]["fc1"]["kernel"]
    output, _ = model.apply(tree, x, train=False)
    np.testing.assert_allclose(output, jax.nn.sigmoid(x.reshape(2, 3) @ w @ w.T), rtol=1e-5)
    gradient = jax.grad(lambda t: model.apply(t, x, train=False)[0].sum())(tree)["params"]
    turned = jax.grad(lambda w: jax.nn.sigmoid(x.reshape(2, 3) @ w @ w.T).sum())(w)
    np.testing.assert_allclose(gradient["fc1"]["kernel"], turned, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "variants", "shared"),
    [
        ("lenet5", [{"pool": "max", "dropout": 0.5}, {"activation": "tanh"}], 5),
        ("vgg11_cifar", [{}, {"batch_norm": False, "pool": "avg"}], 5),
        ("resnet20", [{}, {"shortcut": None}, {"blocks": (2, 1)}], 5),
    ],
)
def test_equal_names_start_from_equal_weights(
    name: str, variants: list[dict[str, Any]], shared: int
) -> None:
    """Also across depths and shortcuts: arms can be compared in pairs."""
    image = models.MODELS[name].image
    small: dict[str, Any] = {
        "lenet5": {},
        "vgg11_cifar": {"layers": "4 | 8 8", "head": (8,)},
        "resnet20": {"blocks": (1, 1), "widths": (4, 8)},
    }[name]
    first, *others = (
        initial(models.create_model(name, **(small | fields)), image, 3)["params"]
        for fields in variants
    )
    for other in others:
        same = 0
        for layer in first.keys() & other.keys():
            same += 1
            for path, leaf in jax.tree_util.tree_leaves_with_path(first[layer]):
                found = dict(jax.tree_util.tree_leaves_with_path(other[layer]))
                np.testing.assert_array_equal(leaf, found[path])
        assert same >= shared


@pytest.mark.parametrize(
    ("name", "image", "fields", "said"),
    [
        ("lenet", None, {}, "Did you mean lenet5"),
        ("mlp", (28, 28, 1), {"pool": "max"}, "model.pool: mlp has no such knob"),
        ("resnet50", (64, 64, 3), {"groups": 2}, "model.groups: resnet50 has no such knob"),
        ("lenet5", (28, 28, 1), {"pool_window": 40}, "model.pool_window: 40 is larger than"),
        ("lenet5", (28, 28, 1), {"pool_stride": 9}, "C3: its 5x5 window is larger than"),
        ("alexnet", (32, 32, 3), {}, "pool_window: 3 is larger than the 2x2 map before pool2"),
        ("lenet5_1998", (28, 28, 1), {}, "data.pad=2"),
        ("lenet5_1998", (32, 32, 1), {"widths": (6, 20)}, "C3 are given for 6 and 16 maps"),
        ("lenet1", (28, 28, 1), {"widths": (2, 12)}, "C3 are given for 4 and 12 maps"),
        ("lenet5_1998", (32, 32, 1), {"head": (120, 50)}, "so it ends in 84"),
        ("resnet20", (32, 32, 3), {"stride_at": "2x2"}, "'2x2' is not one of '1x1', '3x3'"),
        ("resnet20", (32, 32, 3), {"zeros_at": "start"}, "'start' is not one of 'end', 'both'"),
        ("resnet20", (32, 32, 3), {"stem": "5x5"}, "model.stem: '5x5' is not one of"),
        ("googlenet", (224, 224, 3), {"side_pool": "max"}, "model.side_pool: 'max' is not one of"),
        ("lenet5", (28, 28, 1), {"activation": "sigmod"}, "model.activation: 'sigmod'"),
        ("lenet5", (28, 28, 1), {"pool": "mean"}, "model.pool: 'mean' is not one of 'max'"),
        ("lenet5", (28, 28, 1), {"initializer": "he"}, "model.initializer: 'he' is not one of"),
        ("alexnet", (227, 227, 3), {"lrn": "torch"}, "model.lrn: 'torch' is not one of None"),
        ("vgg11_cifar", (32, 32, 3), {"heatmaps": 6}, "model.heatmaps: 6; this net has 5 stages"),
        ("resnet20", (32, 32, 3), {"heatmaps": 1, "classes": 3}, "3 outputs are not x and y of"),
        ("lenet5", (28, 28, 1), {"heatmaps": 1}, "model.heatmaps: lenet5 has no such knob"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_named(
    name: str, image: Image | None, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        shapes(name, image or (28, 28, 1), **fields)


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("vgg11_cifar", {"widths": (4, 8, 16)}),
        ("resnet20", {"widths": (4, 8, 16), "blocks": (1, 1, 1)}),
    ],
)
@pytest.mark.parametrize("stages", [1, 2])
def test_heatmaps_take_the_head_s_place(name: str, small: dict[str, Any], stages: int) -> None:
    """A 1x1 convolution of each stage asked for and no other weights behind the net's own; of any
    size of picture; the softmax is over the places of the finest of those maps.
    """
    fields = {**small, "classes": 10, "heatmaps": stages}
    params, plain = shapes(name, (32, 32, 1), **fields), shapes(name, (32, 32, 1), **small)
    own = params.pop("heatmaps")
    assert {k: v["kernel"].shape for k, v in own.items()} == {
        f"score{i}": (1, 1, 4 * 2 ** (i - 1), 5) for i in range(4 - stages, 4)
    }
    assert params == {k: v for k, v in plain.items() if not k.startswith("fc")}
    assert shapes(name, (64, 48, 1), **fields)["heatmaps"] == own
    side = 8 * 2 ** (stages - 1)
    text = program(name, (32, 32, 1), **fields)
    assert (2, side * side, 5) in results(text, "exp")
    assert not uses(text, "random_bits")


def test_a_point_is_its_map_s_centre_of_mass() -> None:
    """Of two stages, one at half the size: one cell, halfway between two, and a coarse one."""
    head = Heatmaps(outputs=4, stages=2, initializer="he_normal")
    fine, coarse = np.zeros((3, 8, 8, 2), np.float32), np.zeros((3, 4, 4, 2), np.float32)
    fine[0, 1, 6, 0] = fine[0, 0, 0, 1] = 1
    fine[1, 2, 1, 0] = fine[1, 2, 2, 0] = fine[1, 7, 7, 1] = 1
    coarse[2, 1, 2, 0] = 1
    unit = {"kernel": 100 * jnp.eye(2)[None, None], "bias": jnp.zeros(2)}
    params = {"params": {"score2": unit, "score3": unit}}
    nothing = jnp.zeros((3, 16, 16, 2))

    @jax.jit
    def found(fine: jax.Array) -> jax.Array:
        return head.apply(params, [nothing, fine, jnp.asarray(coarse)])  # type: ignore

    cells = [[6, 1, 0, 0], [1.5, 2, 7, 7], [4.5, 2.5, 3.5, 3.5]]
    want = (2 * np.array(cells) + 1) / 8 - 1
    np.testing.assert_allclose(found(jnp.asarray(fine)), want, atol=1e-4)
    slope = jax.grad(lambda x: found(x)[1, 0])(jnp.asarray(fine))
    assert np.isfinite(slope).all() and float(slope[1, 2, 2, 0]) > 0 > float(slope[1, 2, 1, 0])


def test_list_models_takes_a_wildcard() -> None:
    assert models.list_models("lenet*") == ["lenet1", "lenet4", "lenet5", "lenet5_1998"]
    assert {"mlp", "vgg16_bn", "resnet50_v1.5"} < set(models.list_models())


@pytest.mark.parametrize(
    "name", ["lenet5", "alexnet", "vgg11_bn", "googlenet_bn", "resnet18", "mlp", "autoencoder"]
)
def test_bfloat16_computes_in_half_and_keeps_parameters_whole(name: str) -> None:
    """Every product is of halves; parameters and statistics are whole."""
    products = [
        e.outvars[0].aval.dtype
        for e in equations(program(name, dtype=jnp.bfloat16))
        if e.primitive.name in ("conv_general_dilated", "dot_general")
    ]
    assert products and set(products) == {jnp.dtype("bfloat16")}
    for leaf in jax.tree.leaves(variables(name, dtype=jnp.bfloat16)):
        assert leaf.dtype == jnp.float32


def test_every_model_has_only_knobs_of_the_config() -> None:
    own = {"classes", "dtype", "padding", "c3_maps", "rbf", "parent", "name"}
    own |= {"layers", "head_bias", "pool_first", "dropout_first", "ceil", "decoders"}
    own |= {"last_pool_window", "output_dropout", "conv_bias", "five", "side_pool"}
    own |= {"rank", "radius"}  # compress.rank, train.radius
    own |= {"transform_input", "bottleneck", "stem", "zeros_at", "inceptions", "side_widths"}
    for name, (module, _, _) in models.MODELS.items():
        fields = {f.name for f in dataclasses.fields(module)}
        assert fields - own <= set(models.KNOBS), name


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
