"""Residual nets and their plain twins: He, Zhang, Ren, Sun 2016, Deep residual learning for image
recognition, CVPR, arXiv:1512.03385, sections 3.3, 4.1 and 4.2, Tables 1 and 6.

| ImageNet | 18 | 34 | 50 | 101 | 152 |
|---|---|---|---|---|---|
| parameters | 11,689,512 | 21,797,672 | 25,557,032 | 44,549,160 | 60,192,808 |

| CIFAR-10 | 20 | 32 | 44 | 56 | 110 |
|---|---|---|---|---|---|
| parameters | 269,722 | 464,154 | 658,586 | 853,018 | 1,727,962 |
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn import ops
from jaxcnn.config import InputError
from jaxcnn.models.heatmaps import Heatmaps

# Table 1: blocks in each stage, and whether they are bottlenecks.
STAGES = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
CIFAR_DEPTHS = (20, 32, 44, 56, 110)  # section 4.2: 6n + 2 layers, n blocks in each of three stages
CHOICES = {
    "shortcut": ("A", "B", "C", None),
    "stride_at": ("1x1", "3x3"),
    "zeros_at": ("end", "both"),
    "stem": ("7x7", "3x3"),
}


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1 to four times the width (Figure 5), and the
    shortcut around them.
    """

    width: int
    stride: int
    bottleneck: bool
    shortcut: str | None
    stride_at: str
    zeros_at: str
    act: Callable[[jax.Array], jax.Array]
    conv: Callable[..., jax.Array]  # (x, features, window, stride, name), normalised

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        s, width = self.stride, self.width
        out = 4 * width if self.bottleneck else width
        if self.bottleneck:  # (features, window, stride)
            first = s if self.stride_at == "1x1" else 1
            layers = [(width, 1, first), (width, 3, s // first), (out, 1, 1)]
        else:
            layers = [(out, 3, s), (out, 3, 1)]
        y = x
        for i, layer in enumerate(layers, start=1):
            last = i == len(layers)
            y = self.conv(y, *layer, f"conv{i}", last=last)
            if not last:
                y = self.act(y)
        return self.act(y if self.shortcut is None else y + self._around(x, out))

    def _around(self, x: jax.Array, out: int) -> jax.Array:
        """Section 4.1: A appends maps of zeros, B projects where the shape changes, C always."""
        s, more = self.stride, out - x.shape[-1]
        same = s == 1 and more == 0
        if self.shortcut == "C" or (self.shortcut == "B" and not same):
            return self.conv(x, out, 1, s, "shortcut")
        if same:
            return x
        before = more // 2 if self.zeros_at == "both" else 0
        return jnp.pad(x[:, ::s, ::s], ((0, 0), (0, 0), (0, 0), (before, more - before)))


class ResNet(nn.Module):
    """Residual net; without shortcuts, the plain net of section 3.3. The defaults are ResNet-50's.

    `dropout`, in no net of the paper, stands before the output layer; `lrn` after the first
    activation. `pool` and its window and stride are those of the stem: the last pooling is always a
    mean over the map.
    """

    classes: int = 1000
    blocks: tuple[int, ...] = STAGES[50][0]
    bottleneck: bool = True
    widths: tuple[int, ...] = (64, 128, 256, 512)  # of the stages
    stem: str = "7x7"  # "3x3": the CIFAR nets', of stride 1 and with no pooling
    shortcut: str | None = "B"  # None: a plain net
    zeros_at: str = "end"  # of option A's new maps; "both": half before, half behind
    stride_at: str = "1x1"  # in a bottleneck, as in the paper; "3x3": v1.5
    activation: str = "relu"
    pool: str = "max"
    pool_window: int = 3
    pool_stride: int = 2
    dropout: float | jax.Array = 0.0
    lrn: str | None = None
    batch_norm: bool = True
    bn_momentum: float = 0.9
    bn_epsilon: float = 1e-5
    zero_gamma: bool = False  # each block starts as its shortcut
    conv_bias: bool = False
    initializer: str = "he_normal"
    scan: bool = False  # the equal blocks of a stage as one, compiled once; see `stacked`
    remat: bool = False  # blocks are computed again in the backward pass, for memory
    radius: float | None = None  # of cosines, in place of the last layer's weighted sums
    heatmaps: int = 0  # so many of the last stages make them; no mean over the map, no dropout then
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """x [B, H, W, C] -> logits [B, K]."""
        for field, choices in CHOICES.items():
            ops.lookup(dict.fromkeys(choices), getattr(self, field), f"model.{field}")
        if len(self.blocks) != len(self.widths):
            raise InputError(
                f"model.blocks: {self.blocks} is of {len(self.blocks)} stages, model.widths"
                f" {self.widths} of {len(self.widths)}."
            )
        act = ops.lookup(ops.ACTIVATIONS, self.activation, "model.activation")
        lrn = ops.lookup(ops.LRNS, self.lrn, "model.lrn")
        window, stride = (7, 2) if self.stem == "7x7" else (3, 1)

        def conv(
            x: jax.Array, features: int, window: int, stride: int, name: str, last: bool = False
        ) -> jax.Array:
            return self._conv(x, features, window, stride, name, train, self.zero_gamma and last)

        x = lrn(act(conv(x, self.widths[0], window, stride, "conv1")))
        if self.stem == "7x7":
            size = (self.pool_window, self.pool_stride)
            pool = (self.pool, *size, self.activation, self.initializer)
            x = ops.Pool(*pool, padding=self.pool_window // 2, name="pool1")(x)

        def apply(block: Block, x: jax.Array) -> jax.Array:
            return block(x)

        if self.remat:
            apply = nn.remat(apply)
        stages: list[jax.Array] = []
        for i, (count, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            for j in range(1, count + 1):
                stride = 2 if i > 0 and j == 1 else 1
                whole = self.scan and j == 2 and count > 2
                name = f"conv{i + 2}_rest" if whole else f"conv{i + 2}_{j}"
                block = Block(
                    width,
                    stride,
                    self.bottleneck,
                    self.shortcut,
                    self.stride_at,
                    self.zeros_at,
                    act,
                    conv,
                    name=name,
                )
                if not whole:
                    x = apply(block, x)
                    continue
                x, _ = nn.scan(
                    lambda block, x, _: (apply(block, x), None),
                    variable_axes={"params": 0, "batch_stats": 0},
                    split_rngs={"params": True},
                    length=count - 1,
                )(block, x, None)
                break
            stages.append(x)
        if self.heatmaps:
            head = (self.classes, self.heatmaps, self.initializer, self.dtype)
            return Heatmaps(*head, name="heatmaps")(stages), {}
        x = jnp.mean(x, axis=(1, 2))
        x = ops.Dropout(self.dropout)(x, train=train)
        return ops.output(self.classes, self.initializer, self.dtype, "fc", self.radius)(x), {}

    @nn.nowrap
    def _conv(
        self,
        x: jax.Array,
        features: int,
        window: int,
        stride: int,
        name: str,
        train: bool,
        zero: bool,
    ) -> jax.Array:
        """A convolution and its normalisation, as layers of the module that calls: net or block."""
        x = ops.Conv(
            features,
            window,
            window // 2,
            self.initializer,
            stride=stride,
            use_bias=self.conv_bias or not self.batch_norm,
            dtype=self.dtype,
            name=name,
        )(x)
        if not self.batch_norm:
            return x
        moments = (self.bn_momentum, self.bn_epsilon)
        return ops.BatchNorm(*moments, zero, self.dtype, name=f"{name}_bn")(x, train=train)


def stacked(variables: Any, blocks: tuple[int, ...]) -> Any:
    """Variables of a ResNet -> those of the same net with `scan`, whose equal blocks are one with a
    leading axis.
    """
    out = {}
    for collection, tree in variables.items():
        out[collection] = dict(tree)
        for i, count in enumerate(blocks, start=2):
            if count > 2:
                rest = [out[collection].pop(f"conv{i}_{j}") for j in range(2, count + 1)]
                out[collection][f"conv{i}_rest"] = jax.tree.map(lambda *a: jnp.stack(a), *rest)
    return out


_V15 = {"stride_at": "3x3"}
_CIFAR = {
    "bottleneck": False,
    "widths": (16, 32, 64),
    "stem": "3x3",
    "shortcut": "A",
    "classes": 10,
}


def _imagenet(depth: int, **fields: Any) -> tuple[tuple[int, int, int], dict[str, Any]]:
    blocks, bottleneck = STAGES[depth]
    return (224, 224, 3), {"blocks": blocks, "bottleneck": bottleneck, **fields}


RESNETS: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    **{f"resnet{depth}": _imagenet(depth) for depth in STAGES},
    # torchvision's and timm's: the 3x3 convolution has the stride (Goyal et al. 2017, section 5)
    **{f"resnet{depth}_v1.5": _imagenet(depth, **_V15) for depth in (50, 101, 152)},
    # Keras's: biases before the normalisation, and its epsilon
    "resnet50_keras": _imagenet(50, conv_bias=True, bn_epsilon=1e-3),
    **{f"plain{depth}": _imagenet(depth, shortcut=None) for depth in (18, 34)},
    **{
        f"resnet{depth}": ((32, 32, 3), {"blocks": (depth // 6,) * 3, **_CIFAR})
        for depth in CIFAR_DEPTHS
    },
    **{
        f"plain{depth}": ((32, 32, 3), {"blocks": (depth // 6,) * 3, **_CIFAR, "shortcut": None})
        for depth in CIFAR_DEPTHS
    },
}
