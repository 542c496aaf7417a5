"""What single nets do, as their papers have it: LeNet's codes, AlexNet's towers, GoogLeNet's side
heads, ResNet's shortcuts, tied autoencoders; and every model traces in training.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from traced import equations, initial, program, results, shapes, uses, variables

from jaxcnn import analysis, models
from jaxcnn.config import InputError
from jaxcnn.models import googlenet, lenet, resnet


def test_list_models_takes_a_wildcard() -> None:
    assert models.list_models("lenet*") == ["lenet1", "lenet4", "lenet5", "lenet5_1998"]
    assert {"mlp", "vgg16_bn", "resnet50_v1.5"} < set(models.list_models())


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


def test_the_order_of_pooling_and_normalisation() -> None:
    """AlexNet normalises 55x55 maps, CaffeNet and ZFNet the pooled ones."""
    sizes = {
        name: [shape[1] for shape in results(program(name), "rsqrt")]
        for name in ("alexnet", "caffenet", "zfnet")
    }
    assert sizes == {"alexnet": [55, 27], "caffenet": [27, 13], "zfnet": [55, 13]}


def test_single_windows_have_the_field_of_the_stacks() -> None:
    for stacked, single, windows in (
        ("vgg13_cifar", "vgg13_5x5_cifar", [5] * 5),
        ("vgg16_cifar", "vgg16_7x7_cifar", [5, 5, 7, 7, 7]),
    ):
        assert [shapes(single)[f"conv{i}_1"]["kernel"].shape[0] for i in range(1, 6)] == windows
        span, other = (analysis.of(name).receptive_field for name in (stacked, single))
        assert span is not None and other is not None and span.size == other.size


def test_side_heads_are_of_training_alone() -> None:
    assert "side_4a_conv" in shapes("googlenet")
    assert "side_4a_conv" not in shapes("googlenet", side_heads=False)
    assert uses(program("googlenet", train=False), "conv_general_dilated") == 57
    assert uses(program("googlenet"), "conv_general_dilated") == 59


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
