"""The knobs of the ablations: activations, initialisers, convolution, pooling, dropout.

Models use these and never `nn.relu`, `nn.max_pool` or `nn.Dropout` themselves, so that a knob
reaches every place it names. Images are NHWC: B batch, H height, W width, C channels.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn import kernels
from jaxcnn.config import InputError

Initializer = Callable[..., jax.Array]


def scaled_tanh(x: jax.Array) -> jax.Array:
    """A tanh(S x) with A = 1.7159, S = 2/3 (LeCun 1998, appendix A)."""
    return 1.7159 * jnp.tanh(x * (2 / 3))


def lecun1998_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Uniform in +-2.4 / fan-in (LeCun 1998, appendix A)."""
    fan_in = 1
    for n in shape[:-1]:
        fan_in *= n
    return jax.random.uniform(key, shape, dtype, -2.4 / fan_in, 2.4 / fan_in)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": nn.sigmoid,
    "scaled_tanh": scaled_tanh,
    "leaky_relu": nn.leaky_relu,
    "identity": lambda x: x,
}

INITS: dict[str, Initializer] = {
    "lecun1998": lecun1998_init,
    "lecun_normal": nn.initializers.lecun_normal(),
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "glorot_normal": nn.initializers.glorot_normal(),
    "he_uniform": nn.initializers.he_uniform(),
    "he_normal": nn.initializers.he_normal(),
    "normal_0.01": nn.initializers.normal(0.01),  # Krizhevsky 2012, section 5
    "normal_0.05": nn.initializers.normal(0.05),
}

THIN = "_in"  # how the first of a fully-connected layer's two is named after it

POOLS = ("max", "avg", "subsample")


def lookup(choices: Mapping[Any, Any], name: str | None, field: str) -> Any:
    """`choices[name]`, or `InputError` naming the field and its choices."""
    if name not in choices:
        raise InputError(f"{field}: {name!r} is not one of {', '.join(map(repr, choices))}.")
    return choices[name]


class Conv(nn.Module):
    """Convolution, with bias unless `use_bias` is off. x [B, H, W, C] -> [B, h, w, features].

    `padding` is a number of pixels on every side, as the papers count it, never 'SAME': at stride 2
    those differ. `groups` splits the channels (Krizhevsky 2012, section 3.5). `maps` lists, for
    each output map, the input maps it is connected to (LeCun 1998, Table 1); only those kernels
    exist as parameters. None connects all.
    """

    features: int
    window: int
    padding: int = 0
    initializer: str = "lecun_normal"
    maps: tuple[tuple[int, ...], ...] | None = None
    dtype: Any = jnp.float32
    stride: int = 1
    groups: int = 1
    use_bias: bool = True
    bias: float = 0.0  # its initial value

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        k, c, height, width = self.window, x.shape[-1], x.shape[1], x.shape[2]
        if k > min(height, width) + 2 * self.padding:
            raise InputError(
                f"{self.name}: its {k}x{k} window is larger than the {height}x{width} map before"
                " it; take larger images (data.pad) or a smaller model.pool_window or pool_stride."
            )
        if c % self.groups or self.features % self.groups:
            raise InputError(
                f"model.groups: {self.groups} does not divide the {c} input and {self.features}"
                f" output maps of {self.name}."
            )
        init = lookup(INITS, self.initializer, "model.initializer")
        if self.maps is None:
            kernel = self.param("kernel", init, (k, k, c // self.groups, self.features))
        else:
            kernel = self._partial(init, self.maps, c)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.constant(self.bias), (self.features,))
            bias = bias.astype(self.dtype)
        return kernels.conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            bias,
            stride=self.stride,
            padding=((self.padding, self.padding),) * 2,
            groups=self.groups,
        )

    def _partial(self, init: Initializer, maps: tuple[tuple[int, ...], ...], c: int) -> jax.Array:
        """The connected kernels alone are drawn and trained; the rest of [k, k, C, features] is
        zero.
        """
        k = self.window

        def drawn(key: jax.Array) -> jax.Array:  # each output map has its own fan-in
            keys = jax.random.split(key, len(maps))
            parts = [init(q, (k, k, len(m), 1))[..., 0] for q, m in zip(keys, maps, strict=True)]
            return jnp.concatenate(parts, axis=-1)

        inputs = jnp.array([i for m in maps for i in m])
        outputs = jnp.array([o for o, m in enumerate(maps) for _ in m])
        packed = self.param("kernel", drawn)
        dense = jnp.zeros((k, k, c, self.features), packed.dtype)
        return dense.at[:, :, inputs, outputs].set(packed)


def dense(features: int, init: str, dtype: Any, name: str, bias: float = 0.0) -> nn.Dense:
    """A fully-connected layer, x [B, D] -> [B, features]; `bias` is the initial value of its
    biases.
    """
    return nn.Dense(
        features,
        kernel_init=lookup(INITS, init, "model.initializer"),
        bias_init=nn.initializers.constant(bias),
        dtype=dtype,
        name=name,
    )


# Within `sliding`: its window, and the sizes of the maps that `flat` has met.
_SLIDING: ContextVar[tuple[tuple[int, int] | None, list[tuple[int, int]]] | None] = ContextVar(
    "sliding", default=None
)


def flat(x: jax.Array) -> jax.Array:
    """What fully-connected layers take of maps: x [B, H, W, C] -> [B, H W C]. Within `sliding`, of
    each window of its size: [B, p, q, h w C].
    """
    window, met = _SLIDING.get() or (None, [])
    met.append((x.shape[1], x.shape[2]))
    if window is None:
        return x.reshape(x.shape[0], -1)
    rows, columns = (
        jnp.arange(size - n + 1)[:, None] + jnp.arange(n)[None]
        for size, n in zip(x.shape[1:3], window, strict=True)
    )
    found = x[:, rows][:, :, :, columns]  # [B, p, h, q, w, C]
    return found.swapaxes(2, 3).reshape(len(x), len(rows), len(columns), -1)


@contextlib.contextmanager
def sliding(window: tuple[int, int] | None) -> Iterator[list[tuple[int, int]]]:
    """Within, fully-connected layers are applied to every window (h, w) of the map that `flat` is
    given, so a net made for pictures of one size takes larger ones; of None to the whole map.

    Yields the sizes of those maps, in the order of the calls.
    """
    met: list[tuple[int, int]] = []
    token = _SLIDING.set((window, met))
    try:
        yield met
    finally:
        _SLIDING.reset(token)


def hidden(
    features: int, init: str, dtype: Any, name: str, bias: float = 0.0, *, rank: int | None
) -> Callable[[jax.Array], jax.Array]:
    """`dense`; with `rank` it is two, `NAME_in` without bias from D to `rank` and `NAME` from there
    (Denil et al. 2013, arXiv:1306.0543; Denton et al. 2014, arXiv:1404.0736).
    """
    whole = dense(features, init, dtype, name, bias)
    if rank is None:
        return whole
    thin = nn.Dense(
        rank,
        False,
        kernel_init=lookup(INITS, init, "model.initializer"),
        dtype=dtype,
        name=name + THIN,
    )

    def both(x: jax.Array) -> jax.Array:
        if rank * (x.shape[-1] + features) >= x.shape[-1] * features:
            raise InputError(
                f"compress.rank: {rank} makes {name}, {x.shape[-1]} to {features}, no smaller; it"
                f" must be below {x.shape[-1] * features / (x.shape[-1] + features):.3g}."
            )
        return whole(thin(x))

    return both


class Cosines(nn.Dense):
    """Each class's score is the cosine of the angle between what is given and the class's weights,
    times the radius of the sphere they are thought to lie on; no bias (Deng et al. 2019, ArcFace,
    section 3.1). x [B, D] -> [B, features] float32.
    """

    radius: float = 1.0

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        x = inputs.astype(jnp.float32)
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        return self.radius * (_unit(x, -1) @ _unit(kernel, 0))


def _unit(x: jax.Array, axis: int) -> jax.Array:
    # A root has no gradient at 0, where a picture that moves no unit would be.
    square = jnp.sum(jnp.square(x), axis=axis, keepdims=True)
    return x * lax.rsqrt(jnp.maximum(square, 1e-12))


def output(
    features: int, init: str, dtype: Any, name: str, radius: float | None = None
) -> nn.Dense:
    """The last layer of a classifier, x [B, D] -> [B, features]: fully connected or, with a radius,
    `Cosines`.
    """
    if radius is None:
        return dense(features, init, dtype, name)
    kernel = lookup(INITS, init, "model.initializer")
    return Cosines(features, kernel_init=kernel, radius=radius, name=name)


_PARTS: ContextVar[int] = ContextVar("parts", default=1)


@contextlib.contextmanager
def normalised_in(parts: int) -> Iterator[None]:
    """Within, batch normalisation in training is by the statistics of each of so many parts of the
    batch, one behind the other (Hoffer, Hubara, Soudry 2017, arXiv:1705.08741, Algorithm 1).
    """
    token = _PARTS.set(parts)
    try:
        yield
    finally:
        _PARTS.reset(token)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last (Ioffe & Szegedy 2015, Algorithm 1).

    `momentum` is the share of the old running statistics that is kept, 1 minus PyTorch's; the
    running variance is that of the batch, divided by n, where PyTorch's is divided by n - 1.
    Statistics are taken in float32 whatever the dtype. `zero_gamma` starts the scale at 0 (Goyal et
    al. 2017, section 5.1).
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    zero_gamma: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        scale = nn.initializers.zeros if self.zero_gamma else nn.initializers.ones
        norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            scale_init=scale,
            dtype=self.dtype,
        )
        # Its parameters are this module's own: conv1_bn/scale, not conv1_bn/BatchNorm_0/scale.
        nn.share_scope(self, norm)
        return norm(x) if not train or _PARTS.get() == 1 else self._by_parts(x, _PARTS.get())

    def _by_parts(self, x: jax.Array, parts: int) -> jax.Array:
        """The running statistics take the mean of the parts'."""
        own = {
            name: self.variable("batch_stats", name, lambda: jnp.zeros(x.shape[-1]))
            for name in ("mean", "var")
        }
        scale, bias = (self.get_variable("params", name) for name in ("scale", "bias"))
        split = x.reshape(parts, -1, *x.shape[1:]).astype(jnp.float32)
        axes = tuple(range(1, split.ndim - 1))
        mean = split.mean(axes, keepdims=True)
        var = jnp.maximum(0.0, jnp.square(split).mean(axes, keepdims=True) - jnp.square(mean))
        for name, found in (("mean", mean), ("var", var)):
            new = found.reshape(parts, -1).mean(0)
            own[name].value = self.momentum * own[name].value + (1 - self.momentum) * new
        scale, bias = (jnp.reshape(a, (1,) * len(axes) + (1, -1)) for a in (scale, bias))
        y = (split - mean) * (lax.rsqrt(var + self.epsilon) * scale) + bias
        return y.reshape(x.shape).astype(self.dtype)


class LRN(NamedTuple):
    """Local response normalisation: x / (k + alpha sum of n squares)^beta, over n neighbouring
    maps. The paper's alpha is not divided by n; PyTorch's, Caffe's and ONNX's is.
    """

    n: int
    k: float
    alpha: float
    beta: float

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, H, W, C] -> the same. The trace names it, for `export` to find; what is computed
        does not change by that.
        """
        with jax.named_scope(repr(self)):
            return self._normalised(x)

    def _normalised(self, x: jax.Array) -> jax.Array:
        squares = jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
        before, c = self.n // 2, x.shape[-1]
        padded = jnp.pad(squares, ((0, 0), (0, 0), (0, 0), (before, self.n - 1 - before)))
        total = sum((padded[..., i : i + c] for i in range(1, self.n)), padded[..., :c])
        base = self.k + self.alpha * total
        # Krizhevsky's power without a logarithm, which takes most of the time on a CPU.
        root = lax.rsqrt(base)
        power = root * jnp.sqrt(root) if self.beta == 0.75 else base**-self.beta
        return x * power.astype(x.dtype)


LRNS: dict[str | None, Callable[[jax.Array], jax.Array]] = {
    None: lambda x: x,
    "krizhevsky2012": LRN(n=5, k=2.0, alpha=1e-4, beta=0.75),  # section 3.3
    # bvlc_alexnet's and bvlc_googlenet's graphs: alpha 1e-4 over n = 5, a fifth of the paper's
    "caffe": LRN(n=5, k=1.0, alpha=1e-4 / 5, beta=0.75),
}


class Pool(nn.Module):
    """Pooling by kind. x [B, H, W, C] -> [B, h, w, C], h = (H + 2 padding - window) / stride + 1,
    rounded down, or up where `ceil`. Padding counts neither for the largest nor for the mean.

    'subsample' is LeCun's: the window's sum times a trainable coefficient plus a trainable bias,
    one of each a map, then the activation (LeCun 1998, section II.B). 'max' and 'avg' have no
    activation.
    """

    kind: str
    window: int
    stride: int
    activation: str = "identity"
    initializer: str = "lecun_normal"
    padding: int = 0
    ceil: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, _, height, width = self.window, *x.shape[:3]
        if n > min(height, width) + 2 * self.padding:
            map_size = f"{height}x{width} map before {self.name}"
            raise InputError(f"model.pool_window: {n} is larger than the {map_size}.")
        pads = (self._pads(height), self._pads(width))
        if self.kind == "max":
            return kernels.max_pool(x, n, self.stride, pads)
        mean = kernels.avg_pool(x, n, self.stride, pads)
        if self.kind == "avg":
            return mean
        lookup(dict.fromkeys(POOLS), self.kind, "model.pool")
        c = x.shape[-1]
        init = lookup(INITS, self.initializer, "model.initializer")
        coefficient = self.param("coefficient", lambda key: init(key, (n * n, c))[0])
        bias = self.param("bias", nn.initializers.zeros, (c,))
        y = mean * (n * n) * coefficient.astype(x.dtype)[None, None, None]
        y = y + bias.astype(x.dtype)[None, None, None]
        return lookup(ACTIVATIONS, self.activation, "model.activation")(y)

    def _pads(self, size: int) -> tuple[int, int]:
        """Before and after; rounding up adds behind, but no window that would see padding alone."""
        out = -(-(size + 2 * self.padding - self.window) // self.stride) + 1
        if (out - 1) * self.stride >= size + self.padding:
            out -= 1
        more = (out - 1) * self.stride + self.window - size - self.padding
        return self.padding, max(self.padding, more) if self.ceil else self.padding


def activate_and_pool(
    x: jax.Array, activation: Callable[[jax.Array], jax.Array], pool: Pool
) -> jax.Array:
    """`pool(activation(x))`. Of a maximum the pooling comes first: no activation here ever falls,
    so that is the same function with a quarter of its work.
    """
    return activation(pool(x)) if pool.kind == "max" else pool(activation(x))


class Dropout(nn.Module):
    """Zeroes each unit with probability `rate` in training and divides the rest by 1 - rate.

    `rate` may be a traced number, so that runs with different rates share a program; the Python
    number 0 leaves no trace of dropout in it. The mask's key is the module's 'dropout' stream.
    """

    rate: float | jax.Array

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if not train or (isinstance(self.rate, int | float) and self.rate == 0):
            return x
        keep = 1 - jnp.asarray(self.rate, jnp.float32)
        mask = jax.random.bernoulli(self.make_rng("dropout"), keep, x.shape)
        return jnp.where(mask, x / keep.astype(x.dtype), jnp.zeros_like(x))


@contextlib.contextmanager
def shifted(shifts: Mapping[str, jax.Array]) -> Iterator[dict[str, jax.ShapeDtypeStruct]]:
    """Within, a convolution or fully-connected layer adds `shifts[its path]` to its output, so that
    the gradient with respect to a shift of zeros is that of the layer's units.

    Yields layer's path -> its output's shape, filled in the order in which the layers are called.
    """
    met: dict[str, jax.ShapeDtypeStruct] = {}

    def shift(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        y = call(*args, **kwargs)
        layer = isinstance(context.module, Conv | nn.Dense) and context.method_name == "__call__"
        if not layer:
            return y
        path = "/".join(context.module.path)
        met[path] = jax.ShapeDtypeStruct(y.shape, y.dtype)
        return y + shifts[path] if path in shifts else y

    with nn.intercept_methods(shift):
        yield met


@contextlib.contextmanager
def given() -> Iterator[dict[str, jax.Array]]:
    """Yields, for each convolution and fully-connected layer called within, its path -> what it is
    given, in the order of the calls.
    """
    found: dict[str, jax.Array] = {}

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, Conv | nn.Dense) and context.method_name == "__call__":
            found["/".join(context.module.path)] = args[0]
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        yield found


@contextlib.contextmanager
def given_as(form: Callable[[jax.Array], jax.Array]) -> Iterator[None]:
    """Within, each convolution and fully-connected layer is given form(x) in the place of x."""

    def change(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, Conv | nn.Dense) and context.method_name == "__call__":
            args = (form(args[0]), *args[1:])
        return call(*args, **kwargs)

    with nn.intercept_methods(change):
        yield


@contextlib.contextmanager
def still(frozen: Callable[[str], bool]) -> Iterator[None]:
    """Within, batch normalisation at a `frozen` path is by its running statistics in training too,
    and leaves them as they are.
    """

    def hold(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, BatchNorm) and frozen("/".join(context.module.path)):
            kwargs = {**kwargs, "train": False}
        return call(*args, **kwargs)

    with nn.intercept_methods(hold):
        yield
