"""Convolution and pooling in the formulations that XLA runs fast; the functions are those of `lax`.

On a CPU a training step of LeNet-5 takes a quarter of the plain one's time so
(benchmarks/cpu_step.py). A GPU gets two things of it: convolutions of few channels (LeNet-5's step
219 -> 127 us on an H200, of 256 runs side by side 27.5 -> 4.3 ms) and the gradient of max pooling
(0.2 to 0.8 of the time of `lax`'s); of pooling without overlap the form that moves fewest bytes
there. A TPU gets the plain `lax` operations.

- Inside a loop (`lax.scan`, `fori_loop`, `lax.map`) the gradients that `lax` derives of a
  convolution keep layouts which miss XLA's fast path (jax-ml/jax#12868); here they are written out.
- With few input channels even those leave most of a vector register empty. There the convolution
  is one matrix product over several output columns at a time, and each gradient another.
- Where a window is larger than the map under it, XLA's convolution is slow beyond measure; there it
  is one matrix product with the windows written out.
- Where native/ was compiled, oneDNN convolves in place of all that, or forms of its own where they
  are faster, and max pooling is its own.
- The gradient of max pooling is as that of `lax.reduce_window` and PyTorch: of equal largest
  values the first, row by row, takes all of it.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn import native

Pair = tuple[int, int]
Padding = str | Sequence[Pair]

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


_plain = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Within, what is traced has the operations of `lax` alone: to be read, or to be beaten."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def _fast(*backends: str) -> bool:
    return not _plain.get() and jax.default_backend() in backends


def _native(*arrays: jax.Array) -> bool:
    """Whether it goes to native/."""
    there = _fast("cpu") and native.version() is not None
    return there and all(a.dtype == jnp.float32 for a in arrays)


def conv(
    x: jax.Array,
    w: jax.Array,
    bias: jax.Array | None = None,
    *,
    stride: int | Pair = (1, 1),
    padding: Padding = "SAME",
    groups: int = 1,
) -> jax.Array:
    """Cross-correlation. x [B, H, W, C], w [h, w, C / groups, O], bias [O] -> [B, H', W', O].

    padding: "SAME", "VALID" or ((low, high), (low, high)).
    """
    stride = _pair(stride)
    pads = _pads(x.shape[1:3], w.shape[:2], stride, padding)
    x, pads = _within_reach(x, w, pads)
    if _native(x, w):
        return native.conv(x, w, bias, stride, pads, groups)
    y = _without_bias(x, w, stride, pads, groups)
    return y if bias is None else y + bias[None, None, None]


def _without_bias(
    x: jax.Array, w: jax.Array, stride: Pair, pads: tuple[Pair, Pair], groups: int
) -> jax.Array:
    larger = w.shape[0] > x.shape[1] or w.shape[1] > x.shape[2]
    if _fast("gpu") and groups == 1 and _narrow(w, stride) and not larger:
        return _conv(x, w, stride, pads)
    if not _fast("cpu"):
        return _lax_conv(x, w, stride, pads, groups=groups)
    if groups > 2:
        return _lax_conv(x, w, stride, pads, groups=groups)
    one = _patches_conv if larger else _conv
    if groups == 1:
        return one(x, w, stride, pads)
    halves = zip(jnp.split(x, 2, axis=3), jnp.split(w, 2, axis=3), strict=True)
    return jnp.concatenate([one(half, v, stride, pads) for half, v in halves], axis=3)


def max_pool(
    x: jax.Array, window: int | Pair, stride: int | Pair | None = None, padding: Padding = "VALID"
) -> jax.Array:
    """Largest value of each window. x [B, H, W, C] -> [B, H', W', C]; stride None: the window."""
    window, stride, pads = _pooling(x, window, stride, padding)
    if _native(x):
        return native.max_pool(x, window, stride, pads)
    if not _fast("cpu", "gpu"):
        return lax.reduce_window(x, -jnp.inf, lax.max, *_windows(window, stride, pads))
    if _tiles(window, stride, pads) and _fast("cpu"):
        return _max_tiles(x, window)
    return _max_windows(x, window, stride, pads)


def avg_pool(
    x: jax.Array, window: int | Pair, stride: int | Pair | None = None, padding: Padding = "VALID"
) -> jax.Array:
    """Mean of each window, padding not counted. x [B, H, W, C] -> [B, H', W', C]."""
    window, stride, pads = _pooling(x, window, stride, padding)
    if _tiles(window, stride, pads) and _fast("cpu"):
        return jnp.mean(_tiled(x, window), (2, 4))
    where = _windows(window, stride, pads)
    total = lax.reduce_window(x, 0.0, lax.add, *where)
    if not any(map(any, pads)):
        return total / (window[0] * window[1])
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return total / jnp.broadcast_to(lax.reduce_window(ones, 0.0, lax.add, *where), total.shape)


# Convolution ---------------------------------------------------------------------------------


def _within_reach(
    x: jax.Array, w: jax.Array, pads: tuple[Pair, Pair]
) -> tuple[jax.Array, tuple[Pair, Pair]]:
    """x with the padding that no window shares with a pixel, and what is left of `pads`. The
    gradient would crop there, and XLA's convolution on a CPU reads beside the picture where it is
    to crop the start of an axis and to pad its end.
    """
    sizes = zip(pads, w.shape[:2], strict=True)
    reach = [(min(low, k - 1), min(high, k - 1)) for (low, high), k in sizes]
    rest = [(a - c, b - d) for (a, b), (c, d) in zip(pads, reach, strict=True)]
    if any(map(any, rest)):
        x = jnp.pad(x, ((0, 0), *rest, (0, 0)))
    return x, (reach[0], reach[1])


def _lax_conv(
    x, w, stride=(1, 1), pads=((0, 0), (0, 0)), *, groups=1, x_dilation=None, w_dilation=None
) -> jax.Array:
    return lax.conv_general_dilated(
        x, w, stride, pads, x_dilation, w_dilation, DIMENSIONS, feature_group_count=groups
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: jax.Array, w: jax.Array, stride: Pair, pads: tuple[Pair, Pair]) -> jax.Array:
    if _narrow(w, stride):
        return _band_conv(x, w, pads)
    return _lax_conv(x, w, stride, pads)


def _conv_forward(x, w, stride, pads):
    return _conv(x, w, stride, pads), (x, w)


def _conv_backward(stride, pads, saved, g):
    x, w = saved
    # Where the picture shrinks a lot, the other form of dx works mostly on zeros: 1.6 to 14 times
    # slower, measured without padding for 12x12 and 14x14 to 8x8 and 10x10, and 8x8 to 4x4.
    wasteful = stride == (1, 1) and x.shape[1] * x.shape[2] > 1.9 * g.shape[1] * g.shape[2]
    dx = _band_dx if _narrow(w, stride) or wasteful else partial(_conv_dx, stride=stride)
    dw = _band_dw if _narrow(w, stride) else partial(_conv_dw, stride=stride)
    return dx(g, w, pads, x.shape), dw(x, g, pads, w.shape)


_conv.defvjp(_conv_forward, _conv_backward)


def _conv_dx(g, w, pads, shape, *, stride):
    to_x = []
    for size, kernel, out, step, (low, _) in zip(
        shape[1:3], w.shape[:2], g.shape[1:3], stride, pads, strict=True
    ):
        to_x.append((kernel - 1 - low, size + low - (out - 1) * step - 1))
    turned = jnp.transpose(w[::-1, ::-1], (0, 1, 3, 2))
    return _lax_conv(g, turned, (1, 1), to_x, x_dilation=stride)


def _conv_dw(x, g, pads, shape, *, stride):
    """Sums over the batch: x as [C, H, W, B] against g as [H', W', B, O]."""
    to_w = []
    for size, kernel, out, step, (low, _) in zip(
        x.shape[1:3], shape[:2], g.shape[1:3], stride, pads, strict=True
    ):
        to_w.append((low, kernel + (out - 1) * step - size - low))
    x, g = jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(g, (1, 2, 0, 3))
    return jnp.transpose(_lax_conv(x, g, (1, 1), to_w, w_dilation=stride), (1, 2, 0, 3))


def _patches_conv(x: jax.Array, w: jax.Array, stride: Pair, pads: tuple[Pair, Pair]) -> jax.Array:
    """One product with every window written out. Where the window is larger than the map, XLA's
    convolution took 3 to 55 times as long; where it is not, this loses.
    """
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    (height, width, _, o), (down, right) = w.shape, stride
    rows, columns = (x.shape[1] - height) // down + 1, (x.shape[2] - width) // right + 1
    windows = jnp.concatenate(
        [
            x[:, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right]
            for i in range(height)
            for j in range(width)
        ],
        axis=3,
    )
    y = _product(windows.reshape(-1, windows.shape[3]), w.reshape(-1, o))
    return y.astype(x.dtype).reshape(x.shape[0], rows, columns, o)


# Few input channels: a row of the output is n blocks of t columns. A block's t O outputs are the
# h (t + w - 1) C inputs under it times t shifted copies of the kernel, the band. Part of the band
# is zeros, but a product of this shape runs near the peak: LeNet-5's second dx, 7.2 -> 1.6 ms.


ROW = 28  # LeNet-5's, the longest tried whole: 256 side by side take 0.68 of the time on an H200


def _narrow(w: jax.Array, stride: Pair) -> bool:
    """Where bands were faster, of 30 shapes with kernels from 3x3 to 7x7."""
    return stride == (1, 1) and w.shape[1] > 1 and w.shape[2] <= 6 and w.shape[3] <= 32


def _blocks(columns: int, kernel: int) -> tuple[int, int, int]:
    """t, n, and over how many blocks the inputs under one block reach.

    t is 4 to 7, whichever leaves the fewest columns of the last block unused. A GPU has products
    with zeros to spare, and fewer bytes to move with whole rows.
    """
    if _fast("gpu") and columns <= ROW:
        t = columns
    else:
        t = min(range(min(4, columns), min(8, columns + 1)), key=lambda t: -columns % t)
    return t, -(-columns // t), -(-(t + kernel - 1) // t)


def _band(w: jax.Array, t: int) -> jax.Array:
    """[h, w, C, O] -> [h (t + w - 1) C, t O]."""
    copies = [jnp.pad(w, ((0, 0), (j, t - 1 - j), (0, 0), (0, 0))) for j in range(t)]
    return jnp.stack(copies, axis=3).reshape(-1, t * w.shape[3])


def _inputs(x: jax.Array, kernel: Pair, pads: tuple[Pair, Pair]) -> jax.Array:
    """[B, H, W, C] -> [B H' n, h (t + w - 1) C]: what lies under each block, padding included."""
    (top, bottom), (left, right) = pads
    size, height, width, c = x.shape
    rows, columns = height + top + bottom - kernel[0] + 1, width + left + right - kernel[1] + 1
    t, n, steps = _blocks(columns, kernel[1])
    right = (n + steps - 1) * t - width - left  # at least the padding asked for
    x = jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    x = x.reshape(size, -1, n + steps - 1, t * c)
    last = (kernel[1] - 1 - (steps - 2) * t) * c  # what is needed of the last of these blocks
    under = [
        x[:, i : i + rows, q : q + n, : t * c if q < steps - 1 else last]
        for i in range(kernel[0])
        for q in range(steps)
    ]
    return jnp.concatenate(under, axis=3).reshape(size * rows * n, -1)


def _outputs(g: jax.Array, t: int) -> jax.Array:
    """[B, H', W', O] -> [B H' n, t O]."""
    g = jnp.pad(g, ((0, 0), (0, 0), (0, -g.shape[2] % t), (0, 0)))
    return g.reshape(-1, t * g.shape[3])


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Sums in float32 or better, as a convolution does."""
    return jnp.matmul(a, b, preferred_element_type=jnp.promote_types(a.dtype, jnp.float32))


def _band_conv(x, w, pads):
    height, width, _, o = w.shape
    rows, columns = (
        size + sum(pad) - kernel + 1
        for size, kernel, pad in zip(x.shape[1:3], w.shape[:2], pads, strict=True)
    )
    t, _, _ = _blocks(columns, width)
    # Not for cuBLAS: it would add a bias that was written out for every pixel.
    y = lax.optimization_barrier(_inputs(x, (height, width), pads) @ _band(w, t))
    return y.reshape(x.shape[0], rows, -1, o)[:, :, :columns]


def _band_dw(x, g, pads, shape):
    height, width, c, o = shape
    t, _, _ = _blocks(g.shape[2], width)
    band = _product(_inputs(x, (height, width), pads).T, _outputs(g, t))
    band = band.reshape(height, -1, c, t, o)
    dw = sum((band[:, j : j + width, :, j] for j in range(1, t)), band[:, :width, :, 0])
    return dw.astype(x.dtype)


def _band_dx(g, w, pads, shape):
    height, width, c, _ = w.shape
    size, rows, columns, _ = g.shape
    t, n, _ = _blocks(columns, width)
    under = _product(_outputs(g, t), _band(w, t).T).reshape(size, rows, n, height, -1)
    high, wide = rows + height - 1, n * t * c + (width - 1) * c
    dx = jnp.zeros((size, high, wide), under.dtype)
    for i in range(
        height
    ):  # one sum of padded parts is one loop; by rows, then blocks, takes longer
        for b in range(n):
            left = b * t * c
            to = ((0, 0), (i, height - 1 - i), (left, wide - left - under.shape[4]))
            dx += jnp.pad(under[:, :, b, i], to)
    (top, _), (left, _) = pads
    dx = dx.reshape(size, high, -1, c).astype(g.dtype)
    return dx[:, top : top + shape[1], left : left + shape[2]]


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
    size, rows, columns, c = y.shape
    taken = jnp.zeros(y.shape, bool)
    lines = []
    for i in range(height):
        line = []
        for j in range(width):
            first = (x[:, i::height, j::width][:, :rows, :columns] == y) & ~taken
            taken |= first
            line.append(jnp.where(first, g, jnp.zeros_like(g)))
        lines.append(jnp.stack(line, axis=3))
    dx = jnp.stack(lines, axis=2).reshape(size, rows * height, columns * width, c)
    rest = ((0, x.shape[1] - dx.shape[1]), (0, x.shape[2] - dx.shape[2]))
    return (jnp.pad(dx, ((0, 0), *rest, (0, 0))),)


_max_tiles.defvjp(_max_tiles_forward, _max_tiles_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_windows(x: jax.Array, window: Pair, stride: Pair, pads: tuple[Pair, Pair]) -> jax.Array:
    """Windows that overlap, with `lax`'s gradient in 0.3 to 0.45 of its time."""
    return lax.reduce_window(x, -jnp.inf, lax.max, *_windows(window, stride, pads))


def _max_windows_forward(x, window, stride, pads):
    y = _max_windows(x, window, stride, pads)
    return y, (x, y)


def _max_windows_backward(window, stride, pads, saved, g):
    """What is stride apart lies in the same plane of dx, and each plane is a sum of shifted g."""
    x, y = saved
    (height, width), (down, right), zero = window, stride, jnp.zeros((), g.dtype)
    padding = ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0))
    padded = lax.pad(x, jnp.array(-jnp.inf, x.dtype), padding)
    size, rows, columns, c = y.shape
    first = jnp.full(y.shape, height * width, jnp.int8 if height * width < 128 else jnp.int32)
    for n in reversed(range(height * width)):
        i, j = divmod(n, width)
        below = padded[:, i : i + (rows - 1) * down + 1 : down]
        one = below[:, :, j : j + (columns - 1) * right + 1 : right]
        first = jnp.where(one == y, jnp.array(n, first.dtype), first)
    first = lax.optimization_barrier(first)  # found once, not for each term of the sums below
    high, wide = -(-padded.shape[1] // down), -(-padded.shape[2] // right)
    lines = []
    for u in range(down):
        line = []
        for v in range(right):
            plane = jnp.zeros((size, high, wide, c), g.dtype)
            for i in range(u, height, down):
                for j in range(v, width, right):
                    taken = jnp.where(first == i * width + j, g, zero)
                    a, b = i // down, j // right
                    to = ((a, high - rows - a, 0), (b, wide - columns - b, 0))
                    plane += lax.pad(taken, zero, ((0, 0, 0), *to, (0, 0, 0)))
            line.append(plane)
        lines.append(jnp.stack(line, axis=3))
    dx = jnp.stack(lines, axis=2).reshape(size, high * down, wide * right, c)
    (top, _), (left, _) = pads
    return (dx[:, top : top + x.shape[1], left : left + x.shape[2]],)


_max_windows.defvjp(_max_windows_forward, _max_windows_backward)


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
    for name, n, k, pad in zip(("high", "wide"), size, window, padding, strict=True):
        if k > n + sum(pad):
            raise ValueError(f"a window {k} {name} does not fit into {n} with padding {pad}")
    rows, columns = ((int(low), int(high)) for low, high in padding)
    return rows, columns
