"""Convolution and pooling in the formulations that XLA runs fast; the functions are those of `lax`.

Accelerators get the plain `lax` operations. On the CPU the gradients of a convolution are written
out here, because inside a loop (`lax.scan`, `fori_loop`, `lax.map`) the ones that `lax` derives
keep layouts which miss XLA's fast path (jax-ml/jax#12868).
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
Padding = str | Sequence[Pair]

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv(
    x: jax.Array,
    w: jax.Array,
    *,
    stride: int | Pair = (1, 1),
    padding: Padding = "SAME",
    groups: int = 1,
) -> jax.Array:
    """Cross-correlation. x [B, H, W, C], w [h, w, C / groups, O] -> [B, H', W', O].

    padding: "SAME", "VALID" or ((low, high), (low, high)).
    """
    stride = _pair(stride)
    pads = _pads(x.shape[1:3], w.shape[:2], stride, padding)
    if jax.default_backend() != "cpu" or groups > 1:
        return _lax_conv(x, w, stride, pads, groups=groups)
    return _conv(x, w, stride, pads)


def max_pool(
    x: jax.Array, window: int | Pair, stride: int | Pair | None = None, padding: Padding = "VALID"
) -> jax.Array:
    """Largest value of each window. x [B, H, W, C] -> [B, H', W', C].

    Among equal largest values the first (row by row) takes the whole gradient.
    """
    window, stride, pads = _pooling(x, window, stride, padding)
    if _tiles(window, stride, pads) and jax.default_backend() == "cpu":
        return _max_tiles(x, window)
    lowest = jnp.array(-jnp.inf, x.dtype)
    return lax.reduce_window(x, lowest, lax.max, *_windows(window, stride, pads))


def avg_pool(
    x: jax.Array, window: int | Pair, stride: int | Pair | None = None, padding: Padding = "VALID"
) -> jax.Array:
    """Mean of each window, padding not counted. x [B, H, W, C] -> [B, H', W', C]."""
    window, stride, pads = _pooling(x, window, stride, padding)
    if _tiles(window, stride, pads) and jax.default_backend() == "cpu":
        return jnp.mean(_tiled(x, window), (2, 4))
    zero = jnp.zeros((), x.dtype)
    where = _windows(window, stride, pads)
    total = lax.reduce_window(x, zero, lax.add, *where)
    if not any(map(any, pads)):
        return total / (window[0] * window[1])
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return total / jnp.broadcast_to(lax.reduce_window(ones, zero, lax.add, *where), total.shape)


# Convolution ---------------------------------------------------------------------------------


def _lax_conv(x, w, stride, pads, *, groups=1, lhs_dilation=(1, 1), rhs_dilation=(1, 1)):
    return lax.conv_general_dilated(
        x,
        w,
        stride,
        pads,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=DIMENSIONS,
        feature_group_count=groups,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: jax.Array, w: jax.Array, stride: Pair, pads: tuple[Pair, Pair]) -> jax.Array:
    if x.shape[3] == 1 and stride == (1, 1):
        return _conv_from_grey(x, w, pads)
    return _lax_conv(x, w, stride, pads)


def _conv_from_grey(x: jax.Array, w: jax.Array, pads: tuple[Pair, Pair]) -> jax.Array:
    """One input channel, stride 1: a sum of shifted images, which XLA fuses into one loop."""
    height, width, _, _ = w.shape
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    return sum(
        x[:, i : i + rows, j : j + columns, :] * w[i, j, 0][None, None, None, :]
        for i in range(height)
        for j in range(width)
    )


def _conv_forward(x, w, stride, pads):
    return _conv(x, w, stride, pads), (x, w)


def _conv_backward(stride, pads, saved, g):
    """The two gradients as convolutions in the same layout as the forward one."""
    x, w = saved
    to_x, to_w = [], []
    for size, kernel, out, step, (low, _) in zip(
        x.shape[1:3], w.shape[:2], g.shape[1:3], stride, pads, strict=True
    ):
        reach = (out - 1) * step + 1  # rows from the first to the last output, zeros between
        to_x.append((kernel - 1 - low, size - reach + low))
        to_w.append((low, kernel - 1 + reach - size - low))
    turned = jnp.transpose(w[::-1, ::-1], (0, 1, 3, 2))
    dx = _lax_conv(g, turned, (1, 1), to_x, lhs_dilation=stride)
    # The batch is what is summed over: x as [C, H, W, B] against g as [H', W', B, O].
    dw = _lax_conv(
        jnp.transpose(x, (3, 1, 2, 0)),
        jnp.transpose(g, (1, 2, 0, 3)),
        (1, 1),
        to_w,
        rhs_dilation=stride,
    )
    return dx, jnp.transpose(dw, (1, 2, 0, 3))


_conv.defvjp(_conv_forward, _conv_backward)


# Pooling -------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_tiles(x: jax.Array, window: Pair) -> jax.Array:
    return jnp.max(_tiled(x, window), (2, 4))


def _max_tiles_forward(x, window):
    y = _max_tiles(x, window)
    return y, (x, y)


def _max_tiles_backward(window, saved, g):
    x, y = saved
    height, width = window
    taken = jnp.zeros(y.shape, bool)
    rows = []
    for i in range(height):
        row = []
        for j in range(width):
            part = x[:, i::height, j::width][:, : y.shape[1], : y.shape[2]]
            here = (part == y) & ~taken
            taken |= here
            row.append(jnp.where(here, g, 0))
        rows.append(jnp.stack(row, 3))
    dx = jnp.stack(rows, 2).reshape(g.shape[0], g.shape[1] * height, g.shape[2] * width, g.shape[3])
    rest = ((0, x.shape[1] - dx.shape[1]), (0, x.shape[2] - dx.shape[2]))
    return (jnp.pad(dx, ((0, 0), *rest, (0, 0))),)


_max_tiles.defvjp(_max_tiles_forward, _max_tiles_backward)


def _tiled(x: jax.Array, window: Pair) -> jax.Array:
    """[B, H, W, C] -> [B, H', h, W', w, C]; rows and columns that fill no window are cut off."""
    rows, columns = x.shape[1] // window[0], x.shape[2] // window[1]
    x = x[:, : rows * window[0], : columns * window[1]]
    return x.reshape(x.shape[0], rows, window[0], columns, window[1], x.shape[3])


def _tiles(window: Pair, stride: Pair, pads: tuple[Pair, Pair]) -> bool:
    return window == stride and not any(map(any, pads))


def _windows(window: Pair, stride: Pair, pads: tuple[Pair, Pair]):
    return (1, *window, 1), (1, *stride, 1), ((0, 0), *pads, (0, 0))


def _pooling(x, window, stride, padding):
    window = _pair(window)
    stride = window if stride is None else _pair(stride)
    return window, stride, _pads(x.shape[1:3], window, stride, padding)


def _pair(n: int | Pair) -> Pair:
    return (n, n) if isinstance(n, int) else n


def _pads(size, window, stride, padding: Padding) -> tuple[Pair, Pair]:
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(size, window, stride, padding)
    rows, columns = ((int(low), int(high)) for low, high in padding)
    return rows, columns
