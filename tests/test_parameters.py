"""How many parameters the models have, golden from the papers; their shapes; and equal names, which
start from equal weights.
"""

from typing import Any

import jax
import numpy as np
import pytest
from traced import count, initial, shapes

from jaxcnn import models
from jaxcnn.config import InputError

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


def test_lenets_poolings_by_window_and_kind() -> None:
    for window, stride in ((2, 2), (3, 2)):
        params = shapes("lenet5", pool_window=window, pool_stride=stride)
        side = ((28 - window) // stride + 1 - 4 - window) // stride + 1
        assert params["C5"]["kernel"].shape == (16 * side * side, 120)
    assert count(shapes("lenet5", pool="subsample")) == 61_706 + 12 + 32


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
