"""Claims of the lecture notes that a calculation decides, without training: counts, shapes,
gradients, averages over all masks. They are exact, so there is no interval and nothing undecided.

Each function gives what comes out here, as the sentence that the table prints, and whether the
claim holds. Numbers are made by `analysis`, by `recomputed` and by the layers of `ops`.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn import analysis, kernels, ops, published, recomputed
from jaxcnn.analysis import CONVOLUTION, DENSE, arithmetic
from jaxcnn.config import InputError

EXACT = 1e-5  # relative: rounding of float32, not a difference


class Outcome(NamedTuple):
    computed: str
    holds: bool

    @property
    def verdict(self) -> Literal["supported", "refuted"]:
        return "supported" if self.holds else "refuted"


class Claim(NamedTuple):
    name: str  # of its function
    claim: str
    source: str
    said: str  # the figure of the notes, or of the paper
    calculate: Callable[[], Outcome]


# Counts and shapes -----------------------------------------------------------------------------

LENET5 = {"C1": 156, "S2": 0, "C3": 2416, "S4": 0, "C5": 48_120, "F6": 10_164, "output": 850}


def lenet5() -> Outcome:
    net = analysis.of("lenet5")
    counts = {layer.name: layer.parameters for layer in net.layers}
    shown = ", ".join(f"{name} {n:,}" for name, n in counts.items())
    return Outcome(f"{shown}: {net.parameters:,}", counts == LENET5 and net.parameters == 61_706)


def parameters_in_dense_layers() -> Outcome:
    return _most("parameters", DENSE)


def compute_in_convolutions() -> Outcome:
    return _most("macs", CONVOLUTION)


def _most(count: Literal["parameters", "macs"], kind: str) -> Outcome:
    nets = recomputed.SHARES
    shares = {label: recomputed.share(name, count, kind) for label, name in nets.items()}
    text = ", ".join(f"{label} {100 * share:.1f} %" for label, share in shares.items())
    wrong = [label for label, share in shares.items() if share <= 0.5]
    return Outcome(text + (f"; not in {' and '.join(wrong)}" if wrong else ""), not wrong)


def map_sizes() -> Outcome:
    """The formula against the shapes of our convolutions, traced."""
    tried = same = 0
    for size, window, stride, padding in itertools.product(
        (5, 8, 13, 28, 32), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2)
    ):
        layer: Any = ops.Conv(1, window, padding=padding, stride=stride)
        x = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
        y, _ = jax.eval_shape(lambda x, c=layer: c.init_with_output(jax.random.key(0), x), x)
        tried += 1
        same += y.shape[1] == arithmetic.output_size(size, window, stride, padding)
    return Outcome(f"the formula has the traced size in {same} of {tried} cases", same == tried)


def padding_keeps_the_size() -> Outcome:
    sizes, windows = range(5, 33), (1, 3, 5, 7)
    kept = [
        arithmetic.output_size(size, m, 1, (m - 1) // 2) == size
        and arithmetic.padding_needed(size, m) == ((m - 1) // 2,) * 2
        for size in sizes
        for m in windows
        if size >= m
    ]
    cases = [(size, m, u) for size in sizes for m in (2, 3, 4, 5) for u in (1, 2, 3)]
    asked = [
        [arithmetic.padding_needed(size, m, u)]
        == list(lax.padtype_to_pads([size], [m], [u], "SAME"))
        for size, m, u in cases
    ]
    text = (
        f"the size stays in {sum(kept)} of {len(kept)} cases; padding for ceil(M / u) outputs is"
        f" XLA's 'SAME' in {sum(asked)} of {len(asked)}"
    )
    return Outcome(text, all(kept) and all(asked))


def depth() -> Outcome:
    """Projections stand beside the way that is counted, not on it."""
    found = analysis.of("resnet152").depth
    return Outcome(f"{found} layers with weights on the longest way through", found == 152)


def googlenet() -> Outcome:
    parameters = analysis.of("googlenet", side_heads=False).parameters
    return Outcome(f"{parameters:,}", round(parameters / 1e6) == 5)


def fewer_than_alexnet() -> Outcome:
    ours = analysis.of("googlenet", side_heads=False).parameters
    ratio = analysis.of("alexnet").parameters / ours
    return Outcome(f"{ratio:.1f} times fewer", round(ratio) == 12)


def alexnet() -> Outcome:
    parameters = analysis.of("alexnet").parameters
    return Outcome(f"{parameters:,}", round(parameters / 1e6) == 600)


def crops() -> Outcome:
    offsets = 256 - 224 + 1
    crops = 2 * offsets**2
    text = f"{offsets} offsets each way: {offsets}^2 x 2 = {crops:,}; 32 of them give 2,048"
    return Outcome(text, crops == 2048)


def two_stacked() -> Outcome:
    return _stacked(2, field=7, weights=(18, 49))


def three_stacked() -> Outcome:
    return _stacked(3, field=7, weights=(27, 49))


def _stacked(layers: int, field: int, weights: tuple[int, int]) -> Outcome:
    """The field is what a unit's gradient reaches."""
    ones = jnp.ones((3, 3, 1, 1))

    def unit(x: jax.Array) -> jax.Array:
        for _ in range(layers):
            x = _conv(x, ones)
        return x[0, 0, 0, 0]

    reached = np.asarray(jax.grad(unit)(jnp.ones((1, 15, 15, 1))))[0, :, :, 0] != 0
    seen = int(reached.any(0).sum())
    stack = layers * arithmetic.conv_parameters(1, 3, 1, bias=False)
    one = arithmetic.conv_parameters(1, seen, 1, bias=False)
    text = f"{seen}x{seen} pixels; {stack} weights for {one}, of one map to one"
    return Outcome(text, (seen, (stack, one)) == (field, weights))


# Linear maps and gradients ---------------------------------------------------------------------


def convolution_is_dense() -> Outcome:
    rng, worst, cases = np.random.default_rng(0), 0.0, 0
    for stride, padding in ((1, 0), (1, 1), (2, 1), (3, 2)):
        kernel, x = rng.normal(size=(3, 3, 2, 4)), rng.normal(size=(2, 7, 6, 2))
        matrix = arithmetic.as_matrix(kernel, 7, 6, stride=stride, padding=padding)
        y = _conv(_f32(x), _f32(kernel), stride, padding)
        worst = max(worst, _apart(np.reshape(y, (2, -1)), x.reshape(2, -1) @ matrix))
        cases += 1
    return Outcome(f"{_equal(worst)} in {cases} cases of stride and padding", worst < EXACT)


def two_linear_layers() -> Outcome:
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(64, 8)), rng.normal(size=(8, 16)), rng.normal(size=16)
    v, c = rng.normal(size=(16, 4)), rng.normal(size=4)
    apart = _apart((x @ w + b) @ v + c, x @ (w @ v) + (b @ v + c))
    between = np.maximum(x @ w + b, 0) @ v + c
    inputs = np.column_stack([x, np.ones(64)])
    best = inputs @ np.linalg.lstsq(inputs, between, rcond=None)[0]
    off = _apart(best, between)
    text = f"{_equal(apart)}; with ReLU between, the best single layer is {100 * off:.0f} % off"
    return Outcome(text, apart < EXACT < off)


def average_pooling_shares() -> Outcome:
    back = _pool_gradient("avg")
    return Outcome(f"each of the 4 cells gets {back.min():g} of it", bool((back == 0.25).all()))


def max_pooling_chooses() -> Outcome:
    back = _pool_gradient("max")
    alone = ((back == 1).sum((1, 3)) == 1) & ((back == 0).sum((1, 3)) == 3)
    text = f"one cell gets 1 and three get 0 in {alone.sum()} of {alone.size} windows"
    return Outcome(text, bool(alone.all()))


def _pool_gradient(kind: str) -> np.ndarray:
    """Of the sum of a 2x2 pooling of 4x4 different pixels -> [2, 2, 2, 2]: window, cell by axis."""
    x = jnp.asarray(np.random.default_rng(0).permutation(16).reshape(1, 4, 4, 1), jnp.float32)
    pool: Any = ops.Pool(kind, 2, 2)
    back = jax.grad(lambda x: pool.apply({}, x).sum())(x)
    return np.asarray(back).reshape(2, 2, 2, 2)


def relu_derivative() -> Outcome:
    x = jnp.asarray([-10.0, -1.0, -1e-3, 1e-3, 1.0, 5.0, 1000.0])
    slope = {n: jax.vmap(jax.grad(ops.ACTIVATIONS[n]))(x) for n in ("relu", "sigmoid", "tanh")}
    relu = bool((slope["relu"] == (x > 0)).all())
    text = "1 at each x > 0 tried, 0 at each x < 0; at x = 5 sigmoid has {:.0e}, tanh {:.0e}"
    return Outcome(text.format(*(float(slope[n][-2]) for n in ("sigmoid", "tanh"))), relu)


def one_by_one() -> Outcome:
    """A mean with weights lies between the smallest and the largest of what it is taken of."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 5, 5, 16)), rng.normal(size=(1, 1, 16, 8)) / 4
    y = np.asarray(_conv(_f32(x), _f32(kernel)))
    apart = _apart(y, x @ kernel[0, 0])
    low, high = x.min(-1, keepdims=True), x.max(-1, keepdims=True)
    inside = float(((low <= y) & (y <= high)).mean())
    sums = kernel[0, 0].sum(0)
    text = (
        f"a linear map of the channels, pixel by pixel ({_equal(apart)}); its weights are of either"
        f" sign and add up to {sums.min():.1f} to {sums.max():.1f}"
    )
    return Outcome(text, inside == 1.0 and bool(np.allclose(sums, 1)))


# Dropout ---------------------------------------------------------------------------------------


def scaling_of_a_linear_layer() -> Outcome:
    apart = _thinned(hidden=(7,), activation=lambda z: z), _thinned((6, 6), lambda z: z)
    text = (
        f"mean over all 2^7 masks of one hidden layer: {_equal(apart[0])};"
        f" over all 2^12 of two linear ones: {_equal(apart[1])}"
    )
    return Outcome(text, max(apart) < EXACT)


def scaling_of_a_deep_net() -> Outcome:
    one, two, three = (_thinned((n,) * layers) for layers, n in ((1, 12), (2, 6), (3, 4)))
    text = (
        f"over all 2^12 masks of a ReLU net the mean is {_equal(one)} with one hidden layer,"
        f" {100 * two:.0f} % off with two, {100 * three:.0f} % with three"
    )
    return Outcome(text, max(one, two, three) < EXACT)


def scaling_of_own_weights() -> Outcome:
    errors = recomputed.scaling_errors()
    worst = max(errors.own.values(), default=0.0)
    return Outcome(recomputed.test_scaling(), max(worst, errors.following) < EXACT)


def _relu(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0.0)


def _thinned(
    hidden: tuple[int, ...],
    activation: Callable[[np.ndarray], np.ndarray] = _relu,
) -> float:
    """How far the net with outputs scaled by 1 - p is from the mean over all masks, relative; p is
    1/2 and every hidden unit can be dropped.
    """
    rng, widths = np.random.default_rng(0), (5, *hidden, 3)
    layers = [
        (rng.normal(size=(m, n)) * np.sqrt(2 / m), rng.normal(size=n))
        for m, n in itertools.pairwise(widths)
    ]
    x = rng.normal(size=(64, 5))
    masks = np.array([*itertools.product((0.0, 1.0), repeat=sum(hidden))])
    parts = np.split(masks, np.cumsum(hidden)[:-1], axis=1)

    def run(keep: list[Any]) -> np.ndarray:
        h = x
        for (w, b), kept in zip(layers[:-1], keep, strict=True):
            h = activation(h @ w + b) * kept
        return h @ layers[-1][0] + layers[-1][1]

    scaled = run([0.5] * len(hidden))
    mean = run([part[:, None, :] for part in parts]).mean(0)
    return _apart(scaled, mean)


# All -------------------------------------------------------------------------------------------

S13, S15, V, G, R = (
    *("Lecture notes, section 1.3", "Lecture notes, section 1.5"),
    *(f"Lecture notes, section 1.7.{n}" for n in (1, 2, 3)),
)
CLAIMS = tuple(
    Claim(calculate.__name__, claim, source, said, calculate)
    for calculate, claim, source, said in (
        (
            lenet5,
            "LeNet-5's layers have 61,706 parameters together",
            S13,
            ", ".join(f"{name} {n:,}" for name, n in LENET5.items()),
        ),
        (
            parameters_in_dense_layers,
            "Most parameters of a CNN lie in its fully-connected layers",
            S13,
            "more than half, in any",
        ),
        (
            compute_in_convolutions,
            "Most of a CNN's computing lies in its convolutions",
            S13,
            "more than half, in any",
        ),
        (
            map_sizes,
            "A feature map has K = floor((M + 2 p - m) / u) + 1 units on a side",
            S13,
            "M pixels, window m, stride u, padding p",
        ),
        (
            padding_keeps_the_size,
            "A padding of (m - 1) / 2 keeps the size at stride 1",
            S13,
            "p = (m - 1) / 2",
        ),
        (
            convolution_is_dense,
            "A convolution is a fully-connected layer with shared weights",
            S13,
            "the same function",
        ),
        (
            two_linear_layers,
            "Without a nonlinearity between them two layers are one",
            S13,
            "the same function",
        ),
        (
            average_pooling_shares,
            "Average pooling sends a quarter of the gradient back to each cell",
            f"{S13} and 1.5",
            "1/4",
        ),
        (
            max_pooling_chooses,
            "Max pooling sends the gradient back to the largest cell alone",
            f"{S13} and 1.5",
            "winner takes all",
        ),
        (alexnet, "AlexNet has 600 million parameters", S15, "600 million; 60 million elsewhere"),
        (relu_derivative, "ReLU's derivative is 1 for every x > 0", S15, "1"),
        (
            scaling_of_a_linear_layer,
            "Scaling outputs by 1 - p for testing is inverted dropout: the mean over all masks,"
            " where layers are linear",
            S15,
            "equal",
        ),
        (
            scaling_of_a_deep_net,
            "Scaling outputs by 1 - p for testing is the mean over all masks in a deep net too",
            S15,
            "equal",
        ),
        (
            scaling_of_own_weights,
            "Scaling a layer's own W and b by 1 - p for testing is the mean over all masks",
            S15,
            "equal",
        ),
        (
            crops,
            "Crops of 224 pixels out of 256 and reflections make 2048 images of one",
            S15,
            "2048",
        ),
        (
            two_stacked,
            "Two stacked 3x3 convolutions see 7x7 pixels with 18 weights for 49",
            V,
            "7x7; 18 weights for 49",
        ),
        (
            three_stacked,
            "Three stacked 3x3 convolutions see 7x7 pixels with 27 weights for 49",
            f"{published.VGG}, section 2.3",
            "7x7; 27 weights for 49",
        ),
        (googlenet, "GoogLeNet has 5 million parameters", G, "5 million"),
        (
            fewer_than_alexnet,
            "GoogLeNet has 12 times fewer parameters than AlexNet",
            G,
            "12 times fewer",
        ),
        (one_by_one, "A 1x1 convolution is a weighted average over channels", G, "an average"),
        (depth, "ResNet is 152 layers deep", R, "152"),
    )
)


@functools.cache
def outcome(name: str) -> Outcome:
    """Of the claim that the function `name` decides."""
    for claim in CLAIMS:
        if claim.name == name:
            return claim.calculate()
    raise InputError(f"{name!r} is no calculated claim.")


def _conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0) -> jax.Array:
    layer: Any = ops.Conv(
        kernel.shape[-1], kernel.shape[0], padding=padding, stride=stride, use_bias=False
    )
    with kernels.plain():
        return layer.apply({"params": {"kernel": kernel}}, x)


def _f32(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


def _apart(x: Any, y: Any) -> float:
    """The distance of x from y as a share of y's length."""
    return float(np.linalg.norm(np.asarray(x) - y) / np.linalg.norm(y))


def _equal(apart: float) -> str:
    return "equal, but for rounding" if apart < EXACT else f"{100 * apart:.0f} % off"
