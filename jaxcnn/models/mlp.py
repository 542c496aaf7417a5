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
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """x [B, H, W, C] -> logits [B, K]."""
        act = ops.lookup(ops.ACTIVATIONS, self.activation, "model.activation")
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.widths, start=1):
            x = act(ops.dense(width, self.initializer, self.dtype, f"fc{i}")(x))
            x = ops.Dropout(self.dropout)(x, train=train)
        return ops.dense(self.classes, self.initializer, self.dtype, "output")(x), {}


MLPS: dict[str, dict[str, Any]] = {"mlp": {}}
