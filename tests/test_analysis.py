"""Numbers read off the traced programs, against published and independently computed ones; fields
against what gradients reach.
"""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxcnn import analysis, kernels, models
from jaxcnn.analysis import CONVOLUTION, DENSE, NORM, Analysis, arithmetic
from jaxcnn.analysis.layers import GLOBAL, MATMUL, MAX, SUBSAMPLING, UNUSED
from jaxcnn.config import InputError

# Computed from the papers' layer tables and checked against torchvision's metadata and the graphs
# that Caffe published: parameters, theirs in convolutions, in fully-connected layers and in batch
# normalisation; MACs, theirs in convolutions and in fully-connected layers; numbers of both layers.
COUNTS = """
alexnet_owt 61100840 2469696 58631144 0 714188480 655566528 58621952 5 3
vgg11 132863336 9220480 123642856 0 7609090048 7485456384 123633664 8 3
vgg11_bn 132868840 9220480 123642856 5504 7609090048 7485456384 123633664 8 3
vgg13 133047848 9404992 123642856 0 11308466176 11184832512 123633664 10 3
vgg13_bn 133053736 9404992 123642856 5888 11308466176 11184832512 123633664 10 3
vgg16 138357544 14714688 123642856 0 15470264320 15346630656 123633664 13 3
vgg16_bn 138365992 14714688 123642856 8448 15470264320 15346630656 123633664 13 3
vgg19 143667240 20024384 123642856 0 19632062464 19508428800 123633664 16 3
vgg19_bn 143678248 20024384 123642856 11008 19632062464 19508428800 123633664 16 3
googlenet_bn side_heads=False 6624904 5585344 1025000 14560 1498376192 1497352192 1024000 57 1
resnet18 11689512 11166912 513000 9600 1814073344 1813561344 512000 20 1
resnet34 21797672 21267648 513000 17024 3663761408 3663249408 512000 36 1
resnet50_v1.5 25557032 23454912 2049000 53120 4089184256 4087136256 2048000 53 1
resnet101_v1.5 44549160 42394816 2049000 105344 7801405440 7799357440 2048000 104 1
resnet152_v1.5 60192808 57992384 2049000 151424 11513626624 11511578624 2048000 155 1
googlenet_bn 13004888 5585344 1025000 14560 1498376192 1497352192 1024000 57 1
lenet5 61706 2572 59134 0 416520 357600 58920 2 3
alexnet 60965224 2334080 58631144 0 724406816 665784864 58621952 5 3
alexnet_ungrouped 62378344 3747200 58631144 0 1135256096 1076634144 58621952 5 3
caffenet 60965224 2334080 58631144 0 724406816 665784864 58621952 5 3
zfnet 62357608 3726464 58631144 0 1168032896 1109410944 58621952 5 3
googlenet side_heads=False 6998552 5973552 1025000 0 1582671872 1581647872 1024000 57 1
googlenet 13378280 5973552 1025000 0 1582671872 1581647872 1024000 57 1
vgg16_c 133638952 9996096 123642856 0 11770888192 11647254528 123633664 13 3
resnet20 269722 267696 650 1376 40551040 40550400 640 19 1
resnet20 shortcut=B 272474 270256 650 1568 40813184 40812544 640 21 1
plain20 269722 267696 650 1376 40551040 40550400 640 19 1
resnet32 464154 461232 650 2272 68862592 68861952 640 31 1
resnet32 shortcut=B 466906 463792 650 2464 69124736 69124096 640 33 1
plain32 464154 461232 650 2272 68862592 68861952 640 31 1
resnet44 658586 654768 650 3168 97174144 97173504 640 43 1
resnet44 shortcut=B 661338 657328 650 3360 97436288 97435648 640 45 1
plain44 658586 654768 650 3168 97174144 97173504 640 43 1
resnet56 853018 848304 650 4064 125485696 125485056 640 55 1
resnet56 shortcut=B 855770 850864 650 4256 125747840 125747200 640 57 1
plain56 853018 848304 650 4064 125485696 125485056 640 55 1
resnet110 1727962 1719216 650 8096 252887680 252887040 640 109 1
resnet110 shortcut=B 1730714 1721776 650 8288 253149824 253149184 640 111 1
plain110 1727962 1719216 650 8096 252887680 252887040 640 109 1
plain18 11515688 10994880 513000 7808 1794805760 1794293760 512000 17 1
resnet18 shortcut=A 11515688 10994880 513000 7808 1794805760 1794293760 512000 17 1
plain34 21623848 21095616 513000 15232 3644493824 3643981824 512000 33 1
resnet34 shortcut=A 21623848 21095616 513000 15232 3644493824 3643981824 512000 33 1
resnet50 25557032 23454912 2049000 53120 3857973248 3855925248 2048000 53 1
resnet101 44549160 42394816 2049000 105344 7570194432 7568146432 2048000 104 1
resnet152 60192808 57992384 2049000 151424 11282415616 11280367616 2048000 155 1
alexnet_owt size=227 61100840 2469696 58631144 0 716767232 658145280 58621952 5 3
"""
FIELDS = {  # of the last convolution or pooling, and its stride
    "alexnet": (195, 32),
    "vgg16": (212, 32),
    "vgg19": (268, 32),
    "resnet18": (435, 32),
    "resnet34": (899, 32),
    "resnet50": (483, 32),
    "resnet101": (1027, 32),
    "resnet152": (1507, 32),
    "resnet50_v1.5": (427, 32),
    "resnet101_v1.5": (971, 32),
    "resnet152_v1.5": (1451, 32),
    "resnet20": (81, 4),
    "resnet32": (137, 4),
    "resnet44": (193, 4),
    "resnet56": (249, 4),
    "resnet110": (501, 4),
}
DEPTHS = {"lenet5": 5, "alexnet": 8, "vgg11": 11, "vgg19": 19, "googlenet": 22, "plain34": 34}
DEPTHS |= {f"resnet{n}": n for n in (18, 34, 50, 101, 152, 20, 56, 110)}


def of(words: list[str]) -> Analysis:
    read = {"True": True, "False": False, "227": 227}
    fields = dict(word.split("=") for word in words[1:] if "=" in word)
    return analysis.of(words[0], **{k: read.get(v, v) for k, v in fields.items()})  # type: ignore


@pytest.mark.parametrize(
    "line", COUNTS.strip().split("\n"), ids=lambda line: re.split(r" \d", line)[0]
)
def test_counts(line: str) -> None:
    words = line.split()
    net = of(words)
    parts = {kind: net.kind(kind) for kind in (CONVOLUTION, DENSE, NORM)}
    got = [net.parameters, *(sum(x.parameters for x in rows) for rows in parts.values())]
    got += [net.macs, *(sum(x.macs for x in parts[kind]) for kind in (CONVOLUTION, DENSE))]
    got += [len(parts[CONVOLUTION]), len(parts[DENSE])]
    assert got == [int(word) for word in words[-9:]]


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields(name: str) -> None:
    span = analysis.of(name).receptive_field
    assert span is not None and (span.size, span.stride) == FIELDS[name]


@pytest.mark.parametrize("name", DEPTHS)
def test_depth_is_the_longest_way_through(name: str) -> None:
    assert analysis.of(name).depth == DEPTHS[name]


def test_lenet5_line_by_line() -> None:
    rows = [(x.name, x.output, x.parameters, x.macs) for x in analysis.of("lenet5").layers]
    assert rows == [
        ("C1", (28, 28, 6), 156, 117_600),
        ("S2", (14, 14, 6), 0, 0),
        ("C3", (10, 10, 16), 2416, 240_000),
        ("S4", (5, 5, 16), 0, 0),
        ("C5", (120,), 48_120, 48_000),
        ("F6", (84,), 10_164, 10_080),
        ("output", (10,), 850, 840),
    ]


def test_lenet5_of_1998() -> None:
    """C3's kernel is written out with zeros, so the program multiplies more than is connected."""
    net = analysis.of("lenet5_1998")
    assert net.parameters == 60_000 and net.macs == 415_680
    kinds = {x.name: (x.kind, x.parameters) for x in net.layers}
    assert kinds["S2"] == (SUBSAMPLING, 12) and kinds["S4"] == (SUBSAMPLING, 32)
    c3 = net.layer("C3")
    assert (c3.parameters, c3.macs, c3.connected) == (1516, 240_000, 150_000)
    assert all(x.connected == x.macs for x in net.layers if x.name != "C3")
    c5 = net.layer("C5").span
    assert c5 is not None and (c5.size, c5.centre, c5.axis) == (32, 16, None)


def test_side_heads_count_as_parameters_and_do_no_work() -> None:
    net = analysis.of("googlenet")
    unused = net.kind(UNUSED)
    assert net.parameters == 13_378_280 and sum(x.parameters for x in unused) == 6_379_728
    assert all(x.macs == 0 and x.field is None for x in unused)


def test_neurons_are_those_of_convolutions_and_dense_layers() -> None:
    """Krizhevsky 2012, Figure 2, with 290,400 where it prints 253,440."""
    net = analysis.of("alexnet")
    assert [x.neurons for x in net.layers if x.neurons] == [
        *(290_400, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000)
    ]
    assert net.neurons == 659_272
    assert net.kernels == 1376


def test_scanned_and_rematerialised_blocks_count_as_the_plain_ones() -> None:
    plain, scanned = analysis.of("resnet20"), analysis.of("resnet20", scan=True, remat=True)
    for what in ("parameters", "macs", "depth", "neurons", "receptive_field"):
        assert getattr(plain, what) == getattr(scanned, what), what
    assert len(plain.layers) == len(scanned.layers)
    assert scanned.layer("conv2_rest/conv1[2]").span == plain.layer("conv2_3/conv1").span


# Arithmetic ------------------------------------------------------------------------------------


def test_sizes() -> None:
    assert arithmetic.output_size(32, 5) == 28
    assert arithmetic.output_size(227, 11, 4) == 55
    assert arithmetic.output_size(224, 11, 4) == 54  # 54.25: the paper's 224 gives no 55
    assert arithmetic.output_size(13, 3, 2) == 6
    assert (
        arithmetic.output_size(14, 3, 2) == 6 and arithmetic.output_size(14, 3, 2, ceil=True) == 7
    )
    with pytest.raises(InputError, match="window: 5 is larger than 2 pixels with 1 on each side"):
        arithmetic.output_size(2, 5, padding=1)
    with pytest.raises(InputError, match="stride: 0"):
        arithmetic.output_size(2, 2, 0)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_padding_is_that_of_same(window: int, stride: int) -> None:
    for size in range(5, 12):
        pads = lax.padtype_to_pads((size,), (window,), (stride,), "SAME")
        assert [arithmetic.padding_needed(size, window, stride)] == pads
    assert arithmetic.padding_needed(28, 5) == (2, 2)
    assert arithmetic.padding_needed(224, 11, 4, 55) == (1, 2)


def test_parameters_with_and_without_biases() -> None:
    assert arithmetic.conv_parameters(3, 5, 6, bias=False) == 450
    assert arithmetic.conv_parameters(3, 5, 6) == 456
    assert arithmetic.conv_parameters(96, 5, 256, groups=2) == 307_456  # AlexNet's conv2
    with pytest.raises(InputError, match="groups: 3"):
        arithmetic.conv_parameters(4, 3, 6, groups=3)


def test_stacks() -> None:
    stacks = {1: 3, 2: 5, 3: 7}
    assert {n: arithmetic.receptive_field([(3, 1)] * n) for n in stacks} == stacks
    assert arithmetic.receptive_field([(5, 1), (2, 2), (5, 1), (2, 2), (5, 1)]) == 32


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 0), (2, 2), (3, 1)])
def test_a_convolution_is_a_matrix_with_shared_weights(stride: int, padding: int) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 2, 2, 4)).astype(np.float32)
    x = rng.normal(size=(5, 7, 6, 2)).astype(np.float32)
    matrix = arithmetic.as_matrix(kernel, 7, 6, stride=stride, padding=padding)
    with kernels.plain():
        pads = ((padding, padding),) * 2
        y = kernels.conv(jnp.asarray(x), jnp.asarray(kernel), stride=stride, padding=pads)
    np.testing.assert_allclose(x.reshape(5, -1) @ matrix, np.reshape(y, (5, -1)), atol=1e-5)
    assert set(np.unique(matrix)) <= {0.0, *kernel.ravel().tolist()}
    positions = y.shape[1] * y.shape[2]
    times = [(matrix == w).sum() for w in kernel.ravel()]
    assert max(times) == positions if padding == 0 else max(times) <= positions


# Any module ------------------------------------------------------------------------------------


class Everything(nn.Module):
    """What our own nets do not do, with no argument `train`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(8, (3, 3), name="first")(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.GroupNorm(2, name="norm")(x)
        gate = nn.Dense(8, name="gate")(x.mean((1, 2)))
        x = x * nn.sigmoid(gate)[:, None, None]
        shared = nn.Conv(8, (3, 3), feature_group_count=8, name="depthwise")
        x = shared(shared(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.ConvTranspose(4, (2, 2), (2, 2), name="up")(x)
        x = lax.cond(x.sum() > 0, lambda x: x @ jnp.ones((4, 4)), lambda x: x, x)
        x = x.reshape(x.shape[0], -1, 4)
        x = jnp.einsum("bic,bjc->bij", x, x) @ x
        scale = self.param("scale", nn.initializers.ones, (4,))
        return nn.Dense(3, name="out")(x.mean(1) * scale[None])


def test_a_module_of_the_users() -> None:
    net = analysis.analyse(Everything(), (16, 16, 3))
    rows = {x.name: (x.kind, x.parameters, x.macs) for x in net.layers}
    assert rows == {
        "first": (CONVOLUTION, 224, 256 * 8 * 27),
        "max_pool": (MAX, 0, 0),
        "norm": ("bias, scale", 16, 0),
        "global_pool": (GLOBAL, 0, 0),
        "gate": (DENSE, 72, 64),
        "depthwise": (CONVOLUTION, 80, 64 * 8 * 9),
        "depthwise (2)": (CONVOLUTION, 0, 64 * 8 * 9),
        "max_pool (2)": (MAX, 0, 0),
        "up": (CONVOLUTION, 132, 16 * 4 * 8 * 4),  # no products with the zeros between
        "matrix_product": (MATMUL, 0, 64 * 4 * 4),  # the dearer branch
        "matrix_product (2)": (MATMUL, 0, 64 * 64 * 4),
        "matrix_product (3)": (MATMUL, 0, 64 * 64 * 4),
        "Everything": ("scale", 4, 0),
        "out": (DENSE, 15, 12),
    }
    assert net.depth == 6
    x = jnp.zeros((1, 16, 16, 3))
    init = jax.eval_shape(lambda: Everything().init(jax.random.key(0), x))
    assert net.parameters == sum(leaf.size for leaf in jax.tree.leaves(init["params"]))


class Steps(nn.Module):
    """Windows, strides, paddings, dilation, a shortcut, slices, pads: linear, every weight 1."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def conv(x: jax.Array, name: str, window: int, **how: Any) -> jax.Array:
            ones = nn.initializers.ones
            return nn.Conv(1, (window,) * 2, kernel_init=ones, name=name, **how)(x)

        x = conv(x, "a", 5, strides=2, padding=1)
        x = x + conv(x, "b", 3, kernel_dilation=2, padding=2)
        x = nn.avg_pool(x, (3, 3), (2, 2), padding=((0, 1), (1, 0)))
        x = jnp.pad(x[:, 1:, ::2], ((0, 0), (2, 0), (0, 1), (0, 0)))
        x = jnp.concatenate([conv(x, "c", 1, padding=0), conv(x, "d", 3, padding=1)], axis=-1)
        return conv(x.transpose(0, 2, 1, 3), "last", 2, padding=0)


def test_fields_are_what_gradients_reach() -> None:
    image = (61, 73, 1)
    module, field = Steps(), analysis.analyse(Steps(), image).layer("last").field
    assert field is not None
    variables = module.init(jax.random.key(0), jnp.zeros((1, *image)), train=False)

    def unit(x: jax.Array) -> jax.Array:
        # axes were swapped: the height lies along axis 2 of the result
        return module.apply(variables, x, train=False)[0, 3, 4, 0]  # type: ignore

    reached = np.asarray(jax.grad(unit)(jnp.ones((1, *image))))[0, :, :, 0] != 0
    for span, index, other in zip(field, (4, 3), (1, 0), strict=True):
        pixels = np.flatnonzero(reached.any(axis=other))
        centre = span.centre + index * span.stride
        assert (pixels[0], pixels[-1] + 1) == (centre - span.size / 2, centre + span.size / 2)


@pytest.mark.slow
def test_every_model_is_analysed() -> None:
    for name in models.list_models():
        net = analysis.of(name)
        assert net.macs > 0 and net.depth > 0 and all(x.name for x in net.layers), name
        assert len({x.name for x in net.layers}) == len(net.layers), name
