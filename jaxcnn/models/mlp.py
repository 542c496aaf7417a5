"""Fully-connected networks: LeCun et al. 1998, section III.C.4, the 28x28-300-100-10 net of Figure
9.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn import ops


class MLP(nn.Module):
    """Hidden layers of `widths`, each followed by the activation and, where asked for, dropout."""

    classes: int = 10
    widths: tuple[int, ...] = (300, 100)
    activation: str = "scaled_tanh"
    dropout: float | jax.Array = 0.0
    initializer: str = "lecun1998"
    batch_norm: bool = False
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    rank: int | None = None  # of the hidden fully-connected layers (compress.rank)
    radius: float | None = None  # of cosines, in place of the last layer's weighted sums
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """x [B, H, W, C] -> logits [B, K]."""
        act = ops.lookup(ops.ACTIVATIONS, self.activation, "model.activation")
        x = ops.flat(x)
        for i, width in enumerate(self.widths, start=1):
            x = ops.hidden(width, self.initializer, self.dtype, f"fc{i}", rank=self.rank)(x)
            if self.batch_norm:
                moments = (self.bn_momentum, self.bn_epsilon)
                x = ops.BatchNorm(*moments, dtype=self.dtype, name=f"fc{i}_bn")(x, train=train)
            x = act(x)
            x = ops.Dropout(self.dropout)(x, train=train)
        last = ops.output(self.classes, self.initializer, self.dtype, "output", self.radius)
        return last(x), {}


MLPS: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {"mlp": ((28, 28, 1), {})}
