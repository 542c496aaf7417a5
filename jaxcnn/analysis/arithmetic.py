"""The arithmetic of convolutions: map sizes, padding, parameters, receptive fields, and the matrix
that a convolution is.

One axis at a time: M pixels, a window of m, a stride of u, p pixels of padding on each side. For
whole networks `analyse` reads the same numbers off the traced program.
"""

from collections.abc import Sequence

import numpy as np

from jaxcnn.config import InputError


def output_size(
    size: int, window: int, stride: int = 1, padding: int = 0, *, ceil: bool = False
) -> int:
    """K = floor((M + 2 p - m) / u) + 1, the largest K <= (M + 2 p - m) / u + 1.

    `ceil` rounds up.
    """
    check(size, window, stride, padding)
    room = size + 2 * padding - window
    return (-(-room // stride) if ceil else room // stride) + 1


def padding_needed(
    size: int, window: int, stride: int = 1, output: int | None = None
) -> tuple[int, int]:
    """Pixels before and after that give `output` units; None: ceil(M / u), so that stride 1 keeps
    the size. An odd pixel goes behind.
    """
    check(window, window, stride, 0)
    output = -(-size // stride) if output is None else output
    total = max(0, (output - 1) * stride + window - size)
    return total // 2, total - total // 2


def conv_parameters(
    channels: int, window: int, kernels: int, *, groups: int = 1, bias: bool = True
) -> int:
    """Weights of `kernels` kernels of m x m x C / groups, and a bias each: 6 of 5x5x3 have 450, and
    456 with biases.
    """
    if channels % groups or kernels % groups:
        raise InputError(f"groups: {groups} does not divide {channels} and {kernels} maps.")
    return kernels * (window * window * (channels // groups) + bias)


def receptive_field(layers: Sequence[tuple[int, int]]) -> int:
    """Pixels that one unit sees behind a stack of (window, stride): 3x3 twice 5, three times 7."""
    field, step = 1, 1
    for window, stride in layers:
        field += (window - 1) * step
        step *= stride
    return field


def as_matrix(
    kernel: np.ndarray, height: int, width: int, *, stride: int = 1, padding: int = 0
) -> np.ndarray:
    """The fully-connected layer that a convolution is. kernel [m, n, C, O] -> [H W C, h w O].

    x [B, H, W, C] flattened, times this, is the convolution flattened. Each weight stands once in
    the rows of every output position, and all the rest is zero: weights shared, connections local.
    """
    m, n, channels, kernels = kernel.shape
    rows = output_size(height, m, stride, padding)
    columns = output_size(width, n, stride, padding)
    matrix = np.zeros((height, width, channels, rows, columns, kernels), kernel.dtype)
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride - padding, j * stride - padding
            y, x = slice(max(top, 0), min(top + m, height)), slice(max(left, 0), left + n)
            inside = kernel[y.start - top : y.stop - top, x.start - left :][:, : width - x.start]
            matrix[y, x, :, i, j] = inside
    return matrix.reshape(height * width * channels, rows * columns * kernels)


def check(size: int, window: int, stride: int, padding: int) -> None:
    """Raise `InputError` unless the window fits at least once."""
    for name, value, least in (
        ("window", window, 1),
        ("stride", stride, 1),
        ("padding", padding, 0),
    ):
        if value < least:
            raise InputError(f"{name}: {value} is not allowed; it must be at least {least}.")
    if window > size + 2 * padding:
        raise InputError(
            f"window: {window} is larger than {size} pixels with {padding} on each side."
        )
