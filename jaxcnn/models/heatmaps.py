"""Heatmaps: for each point a map of where it is, and its place their centre of mass, so that the
places themselves are what is trained (soft-argmax: Luvizon et al. 2017; Nibali et al. 2018,
Numerical coordinate regression with convolutional neural networks, arXiv:1801.07372, section 3; of
maps as such: Newell et al. 2016, Stacked hourglass networks, ECCV).

The scores of a place are those of its cell in each of some last stages of a net, the smaller maps
enlarged: coarse ones see the face, fine ones the corner of an eye (the sum over stages: Long et al.
2015, Fully convolutional networks, CVPR, section 4.2).
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn import ops
from jaxcnn.config import InputError


class Heatmaps(nn.Module):
    """The head of a net with `outputs` numbers, x and y of each point, in the place of all
    fully-connected layers; `stages` is how many of its last stages have a say.
    """

    outputs: int
    stages: int
    initializer: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> jax.Array:
        """The last maps [B, H, W, C] of each of the net's stages -> [B, 2 P] float32: x, y from the
        picture's middle, in halves of it; a map's places are the middles of its cells.
        """
        if self.outputs % 2:
            raise InputError(
                f"model.heatmaps: {self.stages}; {self.outputs} outputs are not x and y of points."
            )
        if self.stages > len(maps):
            raise InputError(f"model.heatmaps: {self.stages}; this net has {len(maps)} stages.")
        first = len(maps) - self.stages
        batch, height, width, _ = maps[first].shape
        points = self.outputs // 2
        scores = jnp.zeros((batch, height, width, points))
        for i, x in enumerate(maps[first:], start=first + 1):
            conv = ops.Conv(points, 1, 0, self.initializer, dtype=self.dtype, name=f"score{i}")
            own = conv(x).astype(jnp.float32)
            scores += jax.image.resize(own, scores.shape, "linear")
        shares = jax.nn.softmax(scores.reshape(batch, height * width, points), axis=1)
        shares = shares.reshape(scores.shape)
        across, down = (2 * (jnp.arange(n) + 0.5) / n - 1 for n in (width, height))
        x = jnp.sum(jnp.sum(shares, axis=1) * across[None, :, None], axis=1)
        y = jnp.sum(jnp.sum(shares, axis=2) * down[None, :, None], axis=1)
        return jnp.stack([x, y], axis=-1).reshape(batch, self.outputs)
