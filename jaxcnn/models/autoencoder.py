"""The stacked autoencoder, and the classifier that starts from it.

Hinton, Salakhutdinov 2006, Reducing the dimensionality of data with neural networks, Science
313:504-507: 784-1000-500-250-30, logistic units around 30 linear ones. They pre-train by restricted
Boltzmann machines; layer-wise training of autoencoders is that of Bengio, Lamblin, Popovici,
Larochelle 2007, Greedy layer-wise training of deep networks, NIPS 19, section 4.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn import ops


class Autoencoder(nn.Module):
    """Layers fc1, fc2, ... of `widths`, the last of which is the code, and decoder1, decoder2, ...
    that mirror them. Pictures have pixels in [0, 1], which decoder1 ends in a sigmoid for.

    With `classes` it is a classifier on the code, and has its decoders only for the layer-wise
    training that `decoders` asks for. `tied` decoders have the encoders' weights, transposed, and
    biases of their own.
    """

    classes: int = 0
    widths: tuple[int, ...] = (1000, 500, 250, 30)
    activation: str = "sigmoid"
    code_activation: str = "identity"
    tied: bool = False
    decoders: bool = True
    dropout: float | jax.Array = 0.0
    initializer: str = "glorot_uniform"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, layer: int | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """x [B, H, W, C] -> logits [B, K] or, without classes, the reconstruction [B, H W C];
        extras: the 'code' [B, widths[-1]].

        `layer` k instead runs the one autoencoder that layer k is: from the codes of layer k - 1,
        as given, to their reconstruction, both [B, D], the former as 'target'; without dropout.
        """
        x = x.reshape(x.shape[0], -1)
        sizes = (x.shape[1], *self.widths)
        last = len(self.widths)
        fc = {
            k: ops.dense(sizes[k], self.initializer, self.dtype, f"fc{k}")
            for k in range(1, last + 1)
        }

        def act(k: int) -> Any:
            """What the units of layer k do; layer 0 are the pixels."""
            name = {0: "sigmoid", last: self.code_activation}.get(k, self.activation)
            field = "model.code_activation" if k == last else "model.activation"
            return ops.lookup(ops.ACTIVATIONS, name, field)

        def encode(k: int, y: jax.Array) -> jax.Array:
            return act(k)(fc[k](y))

        def decode(k: int, y: jax.Array) -> jax.Array:
            if not self.tied:
                name = f"decoder{k}"
                y = ops.dense(sizes[k - 1], self.initializer, self.dtype, name)(y)
                return act(k - 1)(y)
            bias = self.param(f"decoder{k}", nn.initializers.zeros, (sizes[k - 1],))
            kernel = fc[k].variables["params"]["kernel"]
            return act(k - 1)(y @ kernel.T.astype(y.dtype) + bias.astype(y.dtype)[None])

        if layer is not None:
            target = x
            for k in range(1, layer):
                target = encode(k, target)
            target = lax.stop_gradient(target)
            return decode(layer, encode(layer, target)), {"target": target}

        y = x
        for k in range(1, last + 1):
            y = ops.Dropout(self.dropout)(encode(k, y), train=train)
        extras = {"code": y}
        if self.decoders and (not self.classes or self.is_initializing()):
            for k in range(last, 0, -1):
                y = decode(k, y)
        if not self.classes:
            return y, extras
        return ops.dense(self.classes, self.initializer, self.dtype, "output")(
            extras["code"]
        ), extras


AUTOENCODERS: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "autoencoder": ((28, 28, 1), {}),
}
