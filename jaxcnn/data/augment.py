"""What a step does to its images: pure, inside the compiled program, a function of a key.

In this order: `pad`, `shift`, `crop`, `flip` move uint8 pixels, then come `color`, `normalize` and
`noise`. A knob that is off leaves nothing in the program, and no knob's draws depend on another's.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn.config import Data, InputError

BACKGROUND = 0
# Every draw has its own fold_in(key, purpose): a new purpose at the end of the list moves no other.
PURPOSES = ("shift", "crop", "flip", "noise", "color")

Array = jax.Array


def image_shape(data: Data, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape (H, W, C) as stored -> (h, w, C) as the model sees it.

    Raises `InputError` for a shift or a crop that the image has no room for.
    """
    height, width, channels = shape
    height, width = height + 2 * data.pad, width + 2 * data.pad
    smaller = min(height, width)
    if data.shift >= smaller:
        raise InputError(
            f"data.shift: {data.shift} can move all of the {height}x{width} pixels out of sight; it"
            f" must be below {smaller}."
        )
    if data.crop is None:
        return height, width, channels
    if data.crop > smaller:
        raise InputError(
            f"data.crop: {data.crop} is larger than the image of {height}x{width} pixels (with"
            f" data.pad {data.pad}); it must be at most {smaller}."
        )
    return data.crop, data.crop, channels


def augment(
    key: Array,
    images: Array,
    data: Data,
    mean: Array,
    std: Array,
    covariance: Array,
    noise: Array | float,
    color: Array | float,
) -> Array:
    """images [B, H, W, C] uint8, mean and std [C], covariance [C, C], noise and color [] ->
    [B, h, w, C] float32.

    `noise` and `color` stand in for `data.noise` and `data.color`, which only say whether there is
    any: they may be traced.
    """
    keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(PURPOSES) if _on(data, name)}
    batch, *stored, _ = images.shape
    height, width, channels = image_shape(data, images.shape[1:])
    # Shift and crop are one slice of an image with `shift` more pixels of background around it.
    images = _pad(images, data.pad + data.shift)
    offset = jnp.zeros((batch, 2), jnp.int32)
    if "shift" in keys:
        offset += jax.random.randint(keys["shift"], (batch, 2), 0, 2 * data.shift + 1)
    if "crop" in keys:
        slack = 2 * data.pad + jnp.array([stored[0] - height, stored[1] - width])
        offset += jax.random.randint(keys["crop"], (batch, 2), 0, slack[None, :] + 1)
    if "shift" in keys or "crop" in keys:
        images = jax.vmap(
            lambda image, at: lax.dynamic_slice(image, (*at, 0), (height, width, channels))
        )(images, offset)
    if "flip" in keys:
        flip = jax.random.bernoulli(keys["flip"], 0.5, (batch,))
        images = jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)
    x = _unit(images)
    if "color" in keys:
        x += _color(keys["color"], batch, covariance, color)[:, None, None]
    x = NORMALIZERS[data.normalize](x, mean, std)
    if "noise" in keys:
        x += noise * jax.random.normal(keys["noise"], x.shape)
    return x


def evaluate_view(images: Array, data: Data, mean: Array, std: Array) -> Array:
    """images [B, H, W, C] uint8 -> [B, h, w, C] float32: padded, the central crop, normalised."""
    height, width, _ = image_shape(data, images.shape[1:])
    images = _pad(images, data.pad)
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    images = images[:, top : top + height, left : left + width]
    return NORMALIZERS[data.normalize](_unit(images), mean, std)


def _color(key: Array, batch: int, covariance: Array, color: Array | float) -> Array:
    """What is added to all pixels of an image, [B, C]: each principal component times its
    eigenvalue times a draw from N(0, color), Krizhevsky 2012, section 4.1; pixels are in 0..1.

    With P diag(l) P^T the covariance that is P diag(l) a, a = color z; and as P^T z is drawn as z
    is, the covariance itself times color z, with no eigenvector to be found.
    """
    z = jax.random.normal(key, (batch, covariance.shape[0]))
    return color * z @ covariance


def _on(data: Data, purpose: str) -> bool:
    return getattr(data, purpose) not in (None, 0)


def _pad(images: Array, by: int) -> Array:
    if by == 0:
        return images
    return jnp.pad(images, ((0, 0), (by, by), (by, by), (0, 0)), constant_values=BACKGROUND)


def _unit(images: Array) -> Array:
    return images.astype(jnp.float32) / 255


def _standardize(x: Array, mean: Array, std: Array) -> Array:
    # A channel that never changes carries nothing: it becomes 0, not NaN.
    std = jnp.where(std > 0, std, 1)
    return (x - mean[None, None, None]) / std[None, None, None]


def _lecun1998(x: Array, mean: Array, std: Array) -> Array:
    # LeCun et al. 1998, sec. II.B: background -0.1, ink 1.175, so that mean is about 0, variance 1.
    return x * 1.275 - 0.1


# Of pixels in 0..1.
NORMALIZERS = {
    "unit": lambda x, mean, std: x,
    "standardize": _standardize,
    "lecun1998": _lecun1998,
}
