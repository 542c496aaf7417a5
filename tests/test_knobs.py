"""Every knob is seen in the traced program, at every place that it names and at no other; what a
model has no such knob for, or no room, is named.
"""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from traced import (
    CONVOLUTIONS,
    DROPOUTS,
    FAMILIES,
    HIDDEN,
    LRNS,
    POOLINGS,
    Image,
    constants,
    equations,
    program,
    shapes,
    uses,
    variables,
)

from jaxcnn import models, ops
from jaxcnn.config import InputError

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


@pytest.mark.parametrize("name", LRNS)
def test_lrn_is_where_it_is_asked_for_and_nowhere_else(name: str) -> None:
    image = (64, 64, 3) if name == "resnet50" else None
    assert uses(program(name, image, lrn=None, batch_norm=False), "rsqrt") == 0
    text = program(name, image, lrn="krizhevsky2012", batch_norm=False)
    assert uses(text, "rsqrt") == LRNS[name]


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
