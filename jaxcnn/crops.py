"""How a net sees a picture in evaluation: in one crop or ten, or all of it at once; at one size or
at several.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn import ops
from jaxcnn.config import InputError
from jaxcnn.data import augment

Array = jax.Array
# The centre; the corners, the centre and their mirror images; the net slid over the whole picture.
Crops = Literal[1, 10, "dense"]
CROPS: tuple[Crops, ...] = (1, 10, "dense")


class Net(NamedTuple):
    """A model and what it is given; its variables travel apart, into the compiled program."""

    name: str
    model: Any
    side: int  # of the pictures that it sees
    channels: int
    see: Callable[[Array], Array]  # values from 0 to 255 [B, h, w, C] -> what the model takes
    classes: tuple[str, ...]  # its outputs; () where nobody says what they are
    pad: int = 0  # pixels of background around a picture before it is cropped
    # Whether the centre of an odd margin is rounded down, as in training; else as torchvision does.
    down: bool = False


def check(net: Net, crops: Crops, sides: tuple[int, ...]) -> None:
    """Raise `InputError` for what that net cannot see."""
    if crops not in CROPS:
        raise InputError(f"--crops: {crops} is not one of {', '.join(map(str, CROPS))}.")
    for side in sides:
        if side + 2 * net.pad < net.side:
            raise InputError(
                f"--resize: {side} is less than the {net.side} pixels of {net.name!r}."
            )


def views(images: Array, crop: int, crops: Literal[1, 10]) -> Array:
    """images [B, S, S, C] -> [crops, B, crop, crop, C]: the centre; or the four corners and the
    centre, and the same mirrored (Krizhevsky et al. 2012, section 4.1).
    """
    return jnp.stack(
        [_view(images, crop, *place) for place in places(images.shape[1], crop, crops)]
    )


def places(
    side: int, crop: int, crops: Literal[1, 10], down: bool = False
) -> list[tuple[int, int, bool]]:
    """(top, left, mirrored) of each crop in a square of `side` pixels."""
    middle, end = (side - crop) // 2 if down else round((side - crop) / 2), side - crop
    if crops == 1:
        return [(middle, middle, False)]
    corners = [(0, 0), (0, end), (end, 0), (end, end), (middle, middle)]
    return [(*corner, mirrored) for mirrored in (False, True) for corner in corners]


def predict(
    net: Net, variables: Any, images: Array, crops: Crops, sides: tuple[int, ...] = ()
) -> Array:
    """Probabilities [B, K] of pictures [B, S, S, C] uint8: the softmax, averaged over the crops, as
    Krizhevsky 2012 and Szegedy 2015 average it, and over the `sides` that the pictures are brought
    to, the largest of which is S. One crop after the other, so ten take the memory of one.
    """
    stored = images.shape[1]
    found = []
    for side in sides or (stored,):
        at = images
        if side != stored:  # linear; each new pixel a mean over those that it covers
            shape = (len(images), side, side, images.shape[-1])
            at = jax.image.resize(images.astype(jnp.float32), shape, "linear")
        at = augment.padded(at, net.pad)
        found.append((_dense if crops == "dense" else _cropped)(net, variables, at, crops))
    return jnp.stack(found).mean(0)


def _cropped(net: Net, variables: Any, images: Array, crops: Any) -> Array:
    def one(place: Array) -> Array:
        x = net.see(_view(images, net.side, place[0], place[1], place[2] > 0))
        logits, _ = net.model.apply(variables, x, train=False)
        return jax.nn.softmax(logits.astype(jnp.float32))

    where = places(images.shape[1], net.side, crops, net.down)
    return lax.map(one, jnp.array(where, jnp.int32)).mean(0)


def _dense(net: Net, variables: Any, images: Array, _: Any) -> Array:
    """The whole picture and its mirror image. Fully-connected layers are applied to every window,
    of the size that they are made for, of the last map, and the scores of all are averaged
    (Simonyan & Zisserman 2015, section 3.2); where a net averages its last map, that is a larger
    one (He et al. 2016, section 3.4).
    """

    def apply(variables: Any, images: Array) -> Array:
        return net.model.apply(variables, net.see(images), train=False)[0]

    own = jax.ShapeDtypeStruct((1, net.side, net.side, net.channels), images.dtype)
    with ops.sliding(None) as met:
        jax.eval_shape(apply, variables, own)

    def one(mirrored: Array) -> Array:
        with ops.sliding(met[0] if met else None):
            scores = apply(variables, jnp.where(mirrored, images[:, :, ::-1], images))
        scores = scores.astype(jnp.float32)
        return jax.nn.softmax(scores.mean((1, 2)) if scores.ndim == 4 else scores)

    return lax.map(one, jnp.array([False, True])).mean(0)


def _view(images: Array, crop: int, top: Any, left: Any, mirrored: Any) -> Array:
    batch, _, _, channels = images.shape
    part = lax.dynamic_slice(images, (0, top, left, 0), (batch, crop, crop, channels))
    return jnp.where(mirrored, part[:, :, ::-1], part)
