"""What a step does to its images: pure, inside the compiled program, a function of a key.

In this order: `pad`, `shift`, `crop`, `flip` move uint8 pixels, then come `color`, `normalize` and
`noise`. With `scale` or `area` the crop comes out of a box of random size, interpolated. A knob
that is off leaves nothing in the program, and no knob's draws depend on another's.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn import landmarks
from jaxcnn.config import Data, InputError

BACKGROUND = 0
# Every draw has its own fold_in(key, purpose): a new purpose at the end of the list moves no other.
PURPOSES = ("shift", "crop", "flip", "noise", "color", "scale", "area", "rotate", "zoom")
OFF = {"scale": 1.0, "area": 1.0, "zoom": 1.0}  # all others: None or 0
DRAWS = 10  # of a box of random area, until one lies in the picture

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
    scale: Array | float = 1.0,
    area: Array | float = 1.0,
    aspect: Array | float = 1.0,
    rotate: Array | float = 0.0,
    zoom: Array | float = 1.0,
) -> Array:
    """images [B, H, W, C] uint8, mean and std [C], covariance [C, C], the other numbers [] ->
    [B, h, w, C] float32.

    `noise`, `color`, `scale`, `area`, `aspect`, `rotate` and `zoom` stand in for those of `data`,
    which only say whether there is any: they may be traced.
    """
    keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(PURPOSES) if _on(data, name)}
    batch, *stored, _ = images.shape
    height, *_ = image_shape(data, images.shape[1:])
    if "rotate" in keys or "zoom" in keys:
        images = turned(images, _turns(keys, batch, rotate, zoom))
    if "scale" in keys:
        boxes = scale_boxes(keys["scale"], batch, stored, height, scale)
        images = boxed(images, boxes, height)
    elif "area" in keys:
        images = boxed(images, area_boxes(keys["area"], batch, stored, area, aspect), height)
    else:
        images = _moved(keys, images, data)
    if "flip" in keys:
        flip = _flipped(keys, batch)
        images = jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)
    x = _unit(images)
    if "color" in keys:
        x += _color(keys["color"], batch, covariance, color)[:, None, None]
    x = NORMALIZERS[data.normalize](x, mean, std)
    if "noise" in keys:
        x += noise * jax.random.normal(keys["noise"], x.shape)
    return x


def points(
    key: Array,
    points: Array,
    data: Data,
    shape: tuple[int, ...],
    rotate: Array | float = 0.0,
    zoom: Array | float = 1.0,
) -> Array:
    """Where the points of pictures of `shape` (H, W, C) are in what `augment` makes of them under
    the same key: [B, P, 2], x, y in pixels. In a mirror they change places (landmarks.py).
    """
    keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(PURPOSES) if _on(data, name)}
    batch = points.shape[0]
    _, width, _ = image_shape(data, shape)
    if "rotate" in keys or "zoom" in keys:
        middle = jnp.array([[[shape[1] - 1, shape[0] - 1]]], jnp.float32) / 2
        turns = _turns(keys, batch, rotate, zoom)
        points = jnp.einsum("bij,bpj->bpi", turns, points - middle, precision="highest") + middle
    offset = _offset(keys, batch, data, shape[:2])
    moved = points + data.pad + data.shift - offset[:, None, ::-1]
    if "flip" not in keys:
        return moved
    mirrored = moved[:, jnp.array(landmarks.points(points.shape[1]).mirror)]
    mirrored = mirrored * jnp.array([[[-1.0, 1.0]]]) + jnp.array([[[width - 1.0, 0.0]]])
    return jnp.where(_flipped(keys, batch)[:, None, None], mirrored, moved)


def evaluate_points(points: Array, data: Data, shape: tuple[int, ...]) -> Array:
    """The same of `evaluate_view`."""
    height, width, _ = image_shape(data, shape)
    top, left = ((n + 2 * data.pad - m) // 2 for n, m in zip(shape, (height, width), strict=False))
    return points + data.pad - jnp.array([[[left, top]]], jnp.float32)


def turned(images: Array, turns: Array) -> Array:
    """Each picture turned about its middle: images [B, H, W, C], turns [B, 2, 2] of x and y ->
    [B, H, W, C] float32 of the same values. Linear between pixels; beyond the border the nearest
    one's, for a black edge would tell how the picture was turned.
    """
    _, height, width, _ = images.shape
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    middle = jnp.array([[width - 1], [height - 1]]) / 2
    places = jnp.stack([x.ravel(), y.ravel()]) - middle

    def one(image: Array, turn: Array) -> Array:
        back = turn.T / jnp.linalg.det(turn)  # of a rotation and one factor, the inverse
        x, y = back @ places + middle
        show = jax.vmap(
            lambda channel: jax.scipy.ndimage.map_coordinates(channel, [y, x], 1, "nearest"), -1, -1
        )
        return show(image.astype(jnp.float32)).reshape(image.shape)

    return jax.vmap(one)(images, turns)


def _turns(
    keys: Mapping[str, Array], batch: int, rotate: Array | float, zoom: Array | float
) -> Array:
    """By an angle from U(-rotate, rotate) degrees, and enlarged by a factor log-uniform from
    1 / zoom to zoom: matrices of x and y [B, 2, 2].
    """
    angle, reach = jnp.zeros(batch), jnp.zeros(batch)
    if "rotate" in keys:
        angle = jax.random.uniform(keys["rotate"], (batch,), minval=-1.0, maxval=1.0)
        angle *= jnp.deg2rad(rotate)
    if "zoom" in keys:
        reach = jax.random.uniform(keys["zoom"], (batch,), minval=-1.0, maxval=1.0) * jnp.log(zoom)
    cos, sin = jnp.exp(reach) * jnp.cos(angle), jnp.exp(reach) * jnp.sin(angle)
    return jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)


def scale_boxes(
    key: Array, batch: int, stored: Sequence[int], crop: int, scale: Array | float
) -> Array:
    """A crop of `crop` pixels out of a picture (H, W) enlarged by a factor from U(1, scale): the
    top, left, height and width of what it shows, [B, 4], in pixels as stored; all places are
    alike (Simonyan & Zisserman 2015, section 3.1; He et al. 2016, section 3.4).
    """
    factor, place = jax.random.split(key)
    side = crop / jax.random.uniform(factor, (batch,), minval=1.0, maxval=scale)
    return _placed(place, jnp.stack([side, side], -1), stored)


def area_boxes(
    key: Array, batch: int, stored: Sequence[int], area: Array | float, aspect: Array | float
) -> Array:
    """Boxes of a share of the picture from U(area, 1), their width over their height
    log-uniform from 1 / aspect to aspect: top, left, height, width, [B, 4] (Szegedy et al. 2015,
    section 6; as in torchvision, the first of ten draws that lies in the picture, else the
    largest square in it).
    """
    share, ratio, place = jax.random.split(key, 3)
    height, width = stored[0], stored[1]
    shares = jax.random.uniform(share, (batch, DRAWS), minval=area, maxval=1.0)
    reach = jnp.log(aspect)
    ratios = jnp.exp(reach * jax.random.uniform(ratio, (batch, DRAWS), minval=-1.0, maxval=1.0))
    sizes = jnp.sqrt(jnp.stack([shares / ratios, shares * ratios], -1) * (height * width))
    inside = (sizes[..., 0] <= height) & (sizes[..., 1] <= width)
    first = jnp.argmax(inside, axis=1)[:, None, None]
    chosen = jnp.take_along_axis(sizes, first, axis=1)[:, 0]
    chosen = jnp.where(inside.any(axis=1)[:, None], chosen, float(min(height, width)))
    return _placed(place, chosen, stored)


def boxed(images: Array, boxes: Array, side: int) -> Array:
    """What each of the boxes [B, 4] shows of its picture, at `side` pixels: images [B, H, W, C] ->
    [B, side, side, C] float32 of the same values. Linear; where pixels are lost, a mean over those
    that a new one covers.
    """

    def one(image: Array, box: Array) -> Array:
        scale = side / box[2:]
        return jax.image.scale_and_translate(
            image.astype(jnp.float32),
            (side, side, image.shape[-1]),
            (0, 1),
            scale,
            -box[:2] * scale,
            "linear",
        )

    return jax.vmap(one)(images, boxes)


def evaluate_view(images: Array, data: Data, mean: Array, std: Array) -> Array:
    """images [B, H, W, C] uint8 -> [B, h, w, C] float32: padded, the central crop, normalised."""
    height, width, _ = image_shape(data, images.shape[1:])
    images = padded(images, data.pad)
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


def _placed(key: Array, sizes: Array, stored: Sequence[int]) -> Array:
    """Boxes of `sizes` [B, 2] anywhere within pictures (H, W): [B, 4]."""
    room = jnp.array([[stored[0], stored[1]]], jnp.float32) - sizes
    return jnp.concatenate([jax.random.uniform(key, sizes.shape) * room, sizes], -1)


def _moved(keys: Mapping[str, Array], images: Array, data: Data) -> Array:
    """images [B, H, W, C] -> [B, h, w, C]: padded, shifted, cropped."""
    batch, *stored, channels = images.shape
    height, width, _ = image_shape(data, images.shape[1:])
    # Shift and crop are one slice of an image with `shift` more pixels of background around it.
    images = padded(images, data.pad + data.shift)
    if "shift" in keys or "crop" in keys:
        offset = _offset(keys, batch, data, stored)
        images = jax.vmap(
            lambda image, at: lax.dynamic_slice(image, (*at, 0), (height, width, channels))
        )(images, offset)
    return images


def _offset(keys: Mapping[str, Array], batch: int, data: Data, stored: Sequence[int]) -> Array:
    """Where in the padded picture of stored size (H, W) the view begins: top, left, [B, 2]."""
    height, width, _ = image_shape(data, (*stored, 1))
    offset = jnp.zeros((batch, 2), jnp.int32)
    if "shift" in keys:
        offset += jax.random.randint(keys["shift"], (batch, 2), 0, 2 * data.shift + 1)
    if "crop" in keys:
        slack = 2 * data.pad + jnp.array([stored[0] - height, stored[1] - width])
        offset += jax.random.randint(keys["crop"], (batch, 2), 0, slack[None, :] + 1)
    return offset


def _flipped(keys: Mapping[str, Array], batch: int) -> Array:
    """Which pictures are, [B]."""
    return jax.random.bernoulli(keys["flip"], 0.5, (batch,))


def _on(data: Data, purpose: str) -> bool:
    return getattr(data, purpose) not in (None, OFF.get(purpose, 0))


def padded(images: Array, by: int) -> Array:
    """With so many pixels of background on every side: images [B, H, W, C]."""
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
