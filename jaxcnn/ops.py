"""The knobs of the ablations: activations, initialisers, convolution, pooling, dropout.

Models use these and never `nn.relu`, `nn.max_pool` or `nn.Dropout` themselves, so that a knob
reaches every place it names. Images are NHWC: B batch, H height, W width, C channels.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

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
}

POOLS = ("max", "avg", "subsample")


def lookup(choices: dict[str, Any], name: str, field: str) -> Any:
    """`choices[name]`, or `InputError` naming the field and its choices."""
    if name not in choices:
        raise InputError(f"{field}: {name!r} is not one of {', '.join(map(repr, choices))}.")
    return choices[name]


class Conv(nn.Module):
    """Convolution with bias. x [B, H, W, C] -> [B, h, w, features].

    `maps` lists, for each output map, the input maps it is connected to (LeCun 1998, Table 1); only
    those kernels exist as parameters. None connects all.
    """

    features: int
    window: int
    padding: int = 0
    initializer: str = "lecun_normal"
    maps: tuple[tuple[int, ...], ...] | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        k, c, height, width = self.window, x.shape[-1], x.shape[1], x.shape[2]
        if k > min(height, width) + 2 * self.padding:
            raise InputError(
                f"{self.name}: its {k}x{k} window is larger than the {height}x{width} map before"
                " it; take larger images (data.pad) or a smaller model.pool_window or pool_stride."
            )
        init = lookup(INITS, self.initializer, "model.initializer")
        if self.maps is None:
            kernel = self.param("kernel", init, (k, k, c, self.features))
        else:
            kernel = self._partial(init, self.maps, c)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        pad = (self.padding, self.padding)
        y = kernels.conv(x.astype(self.dtype), kernel.astype(self.dtype), padding=(pad, pad))
        return y + bias.astype(self.dtype)[None, None, None]

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


def dense(features: int, init: str, dtype: Any, name: str) -> nn.Dense:
    """A fully-connected layer, x [B, D] -> [B, features]."""
    kernel_init = lookup(INITS, init, "model.initializer")
    return nn.Dense(features, kernel_init=kernel_init, dtype=dtype, name=name)


class Pool(nn.Module):
    """Pooling by kind. x [B, H, W, C] -> [B, h, w, C], h = (H - window) // stride + 1.

    'subsample' is LeCun's: the window's sum times a trainable coefficient plus a trainable bias,
    one of each a map, then the activation (LeCun 1998, section II.B). 'max' and 'avg' have no
    activation.
    """

    kind: str
    window: int
    stride: int
    activation: str = "identity"
    initializer: str = "lecun_normal"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, _, height, width = self.window, *x.shape[:3]
        if n > min(height, width):
            map_size = f"{height}x{width} map before {self.name}"
            raise InputError(f"model.pool_window: {n} is larger than the {map_size}.")
        if self.kind == "max":
            return kernels.max_pool(x, n, self.stride)
        mean = kernels.avg_pool(x, n, self.stride)
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
