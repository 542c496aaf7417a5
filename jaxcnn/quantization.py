"""8-bit integers in training and evaluation: kernels, and whatever they are multiplied by.

Jacob et al. 2018, Quantization and training of neural networks for efficient integer-arithmetic-
only inference, CVPR, arXiv:1712.05877: the net computes with numbers of a grid, and gradients pass
the rounding as if it were not there (straight-through, Bengio et al. 2013, arXiv:1308.3432).

    number = integer * scale, integer in -127 .. 127, scale = largest |number| / 127

A kernel has a scale for each output channel; what a layer is given, one for each picture, found at
that moment, so that nothing has to be calibrated and no picture's answer depends on its company.
Sums and what is between the layers (biases, normalisation, activations, pooling) are float32, as
integers of 32 bits would be summed exactly up to its rounding. Scales have 16 bits of mantissa:
then every product above is exact, and a number of a grid is on its own grid again.

qwix 0.1.8 does the same by putting itself in the place of `lax.conv_general_dilated` and
`lax.dot_general`. Few of the convolutions here are that on a CPU (kernels.py): oneDNN's it would
not see, and of those by bands it would round the bands, so that a run would be another net there.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn import ops
from jaxcnn.config import Compress

LARGEST = 127

Array = jax.Array


def begins(own: Compress, steps: int) -> int:
    """After how many of `steps` the net computes with integers; at the end it does in any case."""
    return max(1, round(own.int8_from * steps))


def on_grid(x: Array, axes: Sequence[int]) -> Array:
    """The nearest numbers of the grid of x, with a scale for each place along the other axes."""
    largest = jnp.max(jnp.abs(x), axis=axes, keepdims=True)
    scale = lax.reduce_precision(largest / LARGEST, exponent_bits=8, mantissa_bits=15)
    scale = jnp.where(scale > 0, scale, 1)
    return jnp.clip(jnp.round(x / scale), -LARGEST, LARGEST) * scale


def kernel_on_grid(kernel: Array) -> Array:
    """[..., O] with a scale for each of the O; of stacked blocks, in each of them."""
    return on_grid(kernel, range(max(0, kernel.ndim - 4), kernel.ndim - 1))


def kernels_on_grid(params: Any, on: Array | bool) -> Any:
    """The parameters with kernels as a net sees them that is `on`."""

    def own(path: Any, leaf: Array) -> Array:
        if path[-1].key != "kernel":
            return leaf
        return _passed(jnp.where(on, kernel_on_grid(leaf), leaf), leaf)

    return jax.tree_util.tree_map_with_path(own, params)


def inputs_on_grid(on: Array | bool) -> contextlib.AbstractContextManager[None]:
    """Within, so is what convolutions and fully-connected layers are given, [B, ...]."""

    def own(x: Array) -> Array:
        return _passed(jnp.where(on, on_grid(x, range(1, x.ndim)), x), x)

    return ops.given_as(own)


def _passed(value: Array, x: Array) -> Array:
    """`value`, with the gradient of x."""
    return lax.stop_gradient(value) + (x - lax.stop_gradient(x))
