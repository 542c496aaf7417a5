"""A layer, what is followed through a program to find layers, and the equations that make one."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jax.extend.core import JaxprEqn

from jaxcnn.analysis import receptive
from jaxcnn.analysis.receptive import Field, Shape, Span

CONVOLUTION, DENSE, MATMUL = "conv", "fully connected", "matrix product"
MAX, MIN, AVERAGE, POOL = "max pool", "min pool", "avg pool", "pool"
SUBSAMPLING, GLOBAL, NORM = "subsampling", "global pool", "batch norm"
UNUSED = "in training only"

Path = tuple[str, ...]  # of modules, without the outermost


@dataclass(frozen=True)
class Layer:
    """A row of the table. `output` is without the batch; `macs` are for one picture.

    `connected` are the MACs whose kernel entries are parameters: fewer than `macs` where a kernel
    is filled up with zeros, as that of LeNet-5's C3 is.
    """

    name: str
    kind: str
    window: str  # "3x3/2": window and stride; "" where there is none
    output: Shape
    parameters: int
    macs: int
    connected: int
    field: Field | None  # None: not in the program

    @property
    def neurons(self) -> int:
        """Units, as Krizhevsky 2012 counts them: the outputs of convolutions and of
        fully-connected layers.
        """
        return math.prod(self.output) if self.kind in (CONVOLUTION, DENSE) else 0

    @property
    def span(self) -> Span | None:
        """The field along the picture's height; along the width it is the same in all nets here."""
        return self.field[0] if self.field else None


class Leaf(NamedTuple):
    """A parameter: its module, its place in the tree, its number of elements."""

    module: Path
    name: str
    size: int


@dataclass(frozen=True)
class Value:
    """What is known of an array: the parameters it is made of, or, once the picture is in it, what
    of the picture its units see and how many layers with weights lie before it.
    """

    weights: frozenset[Leaf] = frozenset()
    field: Field | None = None
    depth: int = 0


@dataclass
class Row:
    """A layer in the making."""

    path: Path
    kind: str = ""  # "": parameters that belong to no convolution, product or pooling
    window: str = ""
    output: Shape = ()
    macs: int = 0
    connected: int = 0
    field: Field | None = None
    leaves: list[Leaf] = dataclasses.field(default_factory=list)
    call: int = 1  # of those of this kind in this module


def read(eqn: JaxprEqn, values: list[Value]) -> Row | None:
    """The row that an equation makes; None where it is no layer's work."""
    name, output = eqn.primitive.name, receptive.shape_of(eqn.outvars[0])
    if name == "conv_general_dilated":
        return _conv(eqn, values, output)
    if name == "dot_general":
        return _dot(eqn, values, output)
    axes = receptive.live(values[0].field or ())
    if name.startswith("reduce_window"):
        axes = axes or range(1, len(output) - 1)  # the fields are lost, the map is not
        window = [eqn.params["window_dimensions"][axis] for axis in axes]
        if max(window, default=1) == 1:
            return None
        kinds = {"reduce_window_max": MAX, "reduce_window_min": MIN, "reduce_window_sum": AVERAGE}
        strides = [eqn.params["window_strides"][axis] for axis in axes]
        return Row((), kinds.get(name, POOL), _window(window, strides), output[1:])
    over = eqn.params.get("axes", ()) if name in ("reduce_sum", "reduce_max") else ()
    if axes and set(axes) <= set(over) and len(output) == 2:
        return Row((), GLOBAL, output=output[1:])
    return None


def _conv(eqn: JaxprEqn, values: list[Value], output: Shape) -> Row:
    _, rhs, out = eqn.params["dimension_numbers"]
    x, kernel = map(receptive.shape_of, eqn.invars)
    window, groups = [kernel[axis] for axis in rhs[2:]], eqn.params["feature_group_count"]
    words = [_window(window, eqn.params["window_strides"])]
    inserted, dilation = eqn.params["lhs_dilation"], eqn.params["rhs_dilation"]
    macs = math.prod(output) * math.prod(window) * kernel[rhs[1]]
    if max(inserted, default=1) > 1:  # transposed: nothing is multiplied by the inserted zeros
        macs = math.prod(x) * math.prod(window) * kernel[rhs[0]] // groups
        words.append(f"transposed by {_by(inserted)}")
    words += [f"dilated by {_by(dilation)}"] if max(dilation, default=1) > 1 else []
    words += [f"{groups} groups"] if groups > 1 else []
    shape = (*(output[axis] for axis in out[2:]), output[out[1]])
    connected = _connected(macs, values[1], math.prod(kernel))
    return Row((), CONVOLUTION, ", ".join(words), shape, macs, connected)


def _dot(eqn: JaxprEqn, values: list[Value], output: Shape) -> Row:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shapes = [*map(receptive.shape_of, eqn.invars)]
    macs = math.prod(output) * math.prod(shapes[0][axis] for axis in contracted)
    for value, shape in zip(values, shapes, strict=True):
        if value.weights:
            connected = _connected(macs, value, math.prod(shape))
            return Row((), DENSE, "", output[1:], macs, connected)
    return Row((), MATMUL, "", output[1:], macs, macs)


def _connected(macs: int, kernel: Value, entries: int) -> int:
    weights = sum(leaf.size for leaf in kernel.weights)
    return macs * weights // entries if 0 < weights < entries else macs


def _window(window: Sequence[int], stride: Sequence[int]) -> str:
    step = "" if set(stride) == {1} else f"/{_by(stride)}"
    return "x".join(map(str, window)) + step


def _by(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else "x".join(map(str, numbers))
