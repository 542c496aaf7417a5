"""A network as a small graph, read off its traced evaluation, for the writers of ONNX and C.

What depends on parameters alone is folded into constants, sums and products with constants are
`affine` nodes that merge, and one behind a convolution or a fully-connected layer goes into its
weights: a batch normalisation leaves no node. Shapes are those of one example, images H, W, C:

| op | of its inputs, fields and arrays |
|---|---|
| input | the picture |
| conv | kernel [h, w, C / groups, O], bias [O]; stride, groups, pads ((top, low), (left, right)) |
| dense | kernel [D, K], bias [K] |
| max_pool, avg_pool | window, stride, pads; the mean counts the zeros of the padding |
| lrn | n, k, alpha, beta as `ops.LRN` has them |
| affine | x scale + shift, both with ones where they are the same all along an axis |
| relu, tanh, sigmoid, leaky_relu, exp, rsqrt | of each number; slope |
| add, sub, mul, div | of two inputs of one shape |
| mix | matrix [n, m], by which the numbers along an axis of a map become n others |
| reshape, expand, concat, pad, slice, sum, largest | axes or axis; low and high; start and stride |
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from jaxcnn import kernels, ops
from jaxcnn.config import InputError

Shape = tuple[int, ...]
BATCH = 2  # of the trace; axis 0 of whatever depends on the picture
CALLS = ("jit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat2")
NHWC = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))  # as jax spells NHWC, HWIO, NHWC


@dataclass(frozen=True, eq=False)
class Node:
    """A value and how it is made."""

    op: str
    shape: Shape
    inputs: tuple["Node", ...] = ()
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)


Value = Node | np.ndarray  # what depends on the picture, and what does not


def read(function: Callable[[jax.Array], jax.Array], image: Shape) -> Node:
    """The graph of `function`, [B, *image] float32 -> [B, ...], each example by itself.

    Raises `InputError` that names the operation which has no place in a graph.
    """
    with kernels.plain():
        program = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((BATCH, *image), jnp.float32))
    (output,) = _run(program.jaxpr, program.consts, [Node("input", tuple(image))])
    if not isinstance(output, Node):
        raise InputError("export: the model's output does not depend on its picture.")
    return output


def ordered(output: Node) -> list[Node]:
    """All that `output` is made of, each behind its inputs."""
    order: dict[Node, None] = {}
    stack = [output]
    while stack:
        missing = [node for node in stack[-1].inputs if node not in order]
        if missing:
            stack += missing
        else:
            order[stack.pop()] = None
    return list(order)


def _run(jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Value]) -> list[Value]:
    values: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
    values |= zip(jaxpr.invars, arguments, strict=True)

    def value(v: Any) -> Value:
        return np.asarray(v.val) if isinstance(v, Literal) else values[v]

    for lrn, group in itertools.groupby(jaxpr.eqns, _lrn):
        eqns = list(group)
        if lrn is not None:
            given = [v for e in eqns for v in e.invars if not isinstance(v, Literal)]
            (x,) = {n for v in given if isinstance(n := values.get(v), Node)}
            values[eqns[-1].outvars[0]] = Node("lrn", x.shape, (x,), fields=lrn)
            continue
        for eqn in eqns:
            values |= zip(eqn.outvars, _equation(eqn, [*map(value, eqn.invars)]), strict=True)
    return [*map(value, jaxpr.outvars)]


def _lrn(eqn: JaxprEqn) -> dict[str, Any] | None:
    """The numbers of the `ops.LRN` that an equation is part of: its name in the trace has them."""
    found = re.search(r"\bLRN\((.*?)\)", str(eqn.source_info.name_stack))
    if found is None:
        return None
    numbers = dict(part.split("=") for part in found[1].split(", "))
    return ops.LRN(int(numbers.pop("n")), **{k: float(v) for k, v in numbers.items()})._asdict()


def _equation(eqn: JaxprEqn, values: list[Value]) -> list[Value]:
    name = eqn.primitive.name
    if name == "jit" and eqn.params["name"] in FUNCTIONS and isinstance(values[0], Node):
        return [FUNCTIONS[eqn.params["name"]](eqn, values[0])]
    if name in CALLS:
        inner: Any = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        return _run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), values)
    if not any(isinstance(v, Node) for v in values):
        if name == "broadcast_in_dim":  # a view, for `_constant` to see what is the same
            return [_broadcast(values[0], **_only(eqn, "shape", "broadcast_dimensions"))]
        found = eqn.primitive.bind(*map(jnp.asarray, values), **eqn.params)
        return [*map(np.asarray, found if eqn.primitive.multiple_results else [found])]
    if name not in RULES:
        raise InputError(
            f"export: the model's operation {name!r} has no translation; those that have one:"
            f" {', '.join(sorted(RULES))}."
        )
    return [RULES[name](eqn, *values)]


def _only(eqn: JaxprEqn, *names: str) -> dict[str, Any]:
    return {name: eqn.params[name] for name in names}


def _refuse(eqn: JaxprEqn, why: str) -> InputError:
    return InputError(f"export: {eqn.primitive.name} of the model {why}, which has no translation.")


def _broadcast(x: Any, shape: Shape, broadcast_dimensions: Sequence[int]) -> np.ndarray:
    whole = [1] * len(shape)
    for axis, size in zip(broadcast_dimensions, x.shape, strict=True):
        whole[axis] = size
    return np.broadcast_to(x.reshape(whole), shape)


def _example(eqn: JaxprEqn) -> Shape:
    """The shape of one example of what an equation makes."""
    shape = eqn.outvars[0].aval.shape  # type: ignore[attr-defined]
    if shape[:1] != (BATCH,):
        raise _refuse(eqn, f"{shape} mixes the examples of a batch")
    return shape[1:]


def _constant(eqn: JaxprEqn, x: np.ndarray, rank: int) -> np.ndarray:
    """[1 or B, ...] or [] -> float64 of `rank` axes, of size 1 where it is the same all along."""
    same = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in x.strides)
    x = np.asarray(x[same], np.float64)
    if x.ndim == 0:
        return x.reshape((1,) * rank)
    if (x != x[:1]).any():
        raise _refuse(eqn, "treats the examples of a batch differently")
    return x[0]


# Operations ----------------------------------------------------------------------------------


def _affine(x: Node, scale: np.ndarray, shift: np.ndarray) -> Node:
    """x scale + shift, merged with what x is where that goes."""
    channels = all(math.prod(a.shape[:-1]) == 1 for a in (scale, shift))
    if x.op == "affine":
        shift = x.arrays["shift"] * scale + shift
        scale, x = x.arrays["scale"] * scale, x.inputs[0]
    elif x.op in ("conv", "dense") and channels:
        by, more = scale.reshape(-1), shift.reshape(-1)
        kernel, bias = x.arrays["kernel"], x.arrays["bias"]
        arrays = {"kernel": kernel if (by == 1).all() else (kernel * by).astype(np.float32)}
        arrays["bias"] = bias * by + more
        return Node(x.op, x.shape, x.inputs, arrays, x.fields)
    if (np.float32(scale) == 1).all() and (np.float32(shift) == 0).all():
        return x
    return Node("affine", x.shape, (x,), {"scale": scale, "shift": shift})


def _arithmetic(eqn: JaxprEqn, a: Value, b: Value) -> Node:
    op, shape = eqn.primitive.name, _example(eqn)
    if isinstance(a, Node) and isinstance(b, Node):
        return Node(op, shape, (_expanded(a, shape), _expanded(b, shape)))
    x, other = (a, b) if isinstance(a, Node) else (b, a)
    assert isinstance(x, Node) and isinstance(other, np.ndarray)
    x = _expanded(x, shape)
    number = _constant(eqn, other, len(shape))
    one, zero = np.ones_like(number), np.zeros_like(number)
    if op in ("add", "sub"):
        behind = op == "sub" and other is a  # number - x
        sign = -1 if op == "sub" and other is b else 1
        return _affine(x, -one if behind else one, sign * number)
    if op == "div" and other is a:
        raise _refuse(eqn, "divides by what depends on the picture")
    return _affine(x, number if op == "mul" else 1 / number, zero)


def _negative(eqn: JaxprEqn, x: Node) -> Node:
    one = np.ones((1,) * len(x.shape))
    return _affine(x, -one, 0 * one)


def _maximum(eqn: JaxprEqn, a: Value, b: Value) -> Node:
    x, other = (a, b) if isinstance(a, Node) else (b, a)
    numbers = [] if isinstance(other, Node) else np.unique(other)
    if not isinstance(x, Node) or len(numbers) != 1:
        raise _refuse(eqn, "is not with a number")
    if np.isneginf(numbers[0]):  # in a softmax
        return x
    least = np.full((1,) * len(x.shape), numbers[0], np.float64)
    one = np.ones_like(least)
    x = _affine(x, one, -least)
    return _affine(Node("relu", x.shape, (x,)), one, least)


def _power(eqn: JaxprEqn, x: Node) -> Node:
    if eqn.params.get("y", 2) != 2:
        raise _refuse(eqn, f"is the {eqn.params['y']}th power")
    return Node("mul", x.shape, (x, x))


def _convolution(eqn: JaxprEqn, x: Value, kernel: Value) -> Node:
    p = eqn.params
    dilated = {*p["lhs_dilation"], *p["rhs_dilation"]} != {1}
    if dilated or p["dimension_numbers"] != NHWC or p["batch_group_count"] != 1:
        raise _refuse(eqn, "is dilated or not of NHWC and HWIO")
    if not isinstance(x, Node) or isinstance(kernel, Node):
        raise _refuse(eqn, "has weights that depend on the picture")
    fields = {"stride": p["window_strides"], "pads": tuple(map(tuple, p["padding"]))}
    fields["groups"] = p["feature_group_count"]
    arrays = {"kernel": kernel, "bias": np.zeros(kernel.shape[-1])}
    return Node("conv", _example(eqn), (x,), arrays, fields)


def _product(eqn: JaxprEqn, x: Value, kernel: Value) -> Node:
    (mine, theirs), batched = eqn.params["dimension_numbers"]
    if not isinstance(x, Node) or isinstance(kernel, Node) or kernel.ndim != 2 or any(batched):
        raise _refuse(eqn, "is not of an example and a matrix of weights")
    if len(x.shape) != 1 or tuple(mine) != (1,):
        raise _refuse(eqn, f"sums over axes {tuple(mine)} of an example of shape {x.shape}")
    kernel = kernel.T if tuple(theirs) == (1,) else kernel
    arrays = {"kernel": kernel, "bias": np.zeros(kernel.shape[1])}
    return Node("dense", _example(eqn), (x,), arrays)


def _pool(eqn: JaxprEqn, x: Node) -> Node:
    p, shape = eqn.params, _example(eqn)
    sizes, strides, pads = p["window_dimensions"], p["window_strides"], p["padding"]
    dilated = {*p["base_dilation"], *p["window_dilation"]} != {1}
    if dilated or len(sizes) != 4 or sizes[0] != 1 or sizes[3] != 1:
        raise _refuse(eqn, "is not over windows of a map")
    fields = {"window": tuple(sizes[1:3]), "stride": tuple(strides[1:3])}
    fields["pads"] = tuple(map(tuple, pads[1:3]))
    if eqn.primitive.name == "reduce_window_max":
        return Node("max_pool", shape, (x,), fields=fields)
    mean = Node("avg_pool", shape, (x,), fields=fields)
    area = np.full((1, 1, 1), math.prod(sizes), np.float64)
    return _affine(mean, area, 0 * area)


def _reshape(eqn: JaxprEqn, x: Node) -> Node:
    shape = _example(eqn)
    x = x.inputs[0] if x.op == "reshape" else x
    return x if shape == x.shape else Node("reshape", shape, (x,))


def _expand(eqn: JaxprEqn, x: Node) -> Node:
    shape, axes = _example(eqn), eqn.params["broadcast_dimensions"]
    if axes[:1] != (0,):
        raise _refuse(eqn, "does not keep the examples of a batch in front")
    whole = [1] * len(shape)
    for axis, size in zip(axes[1:], x.shape, strict=True):
        whole[axis - 1] = size
    if tuple(whole) != x.shape:
        x = Node("reshape", tuple(whole), (x,))
    return _expanded(x, shape)


def _expanded(x: Node, shape: Shape) -> Node:
    return x if x.shape == shape else Node("expand", shape, (x,))


def _concat(eqn: JaxprEqn, *parts: Value) -> Node:
    if not all(isinstance(part, Node) for part in parts):
        raise _refuse(eqn, "has a part that does not depend on the picture")
    axis = eqn.params["dimension"] - 1
    return Node("concat", _example(eqn), parts, fields={"axis": axis})  # type: ignore[arg-type]


def _pad(eqn: JaxprEqn, x: Node, filling: np.ndarray) -> Node:
    low, high, inside = zip(*eqn.params["padding_config"][1:], strict=True)
    if np.any(filling) or any(inside) or min(low + high) < 0:
        raise _refuse(eqn, "is not with zeros around")
    shape = _example(eqn)
    return x if shape == x.shape else Node("pad", shape, (x,), fields={"low": low, "high": high})


def _slice(eqn: JaxprEqn, x: Node) -> Node:
    shape, start = _example(eqn), tuple(eqn.params["start_indices"][1:])
    stride = tuple((eqn.params["strides"] or (1,) * (1 + len(shape)))[1:])
    fields = {"start": start, "stride": stride}
    return x if shape == x.shape else Node("slice", shape, (x,), fields=fields)


def _stack(eqn: JaxprEqn, *parts: Value) -> Node:
    axis, shape = eqn.params["axis"] - 1, _example(eqn)
    if not all(isinstance(part, Node) for part in parts):
        raise _refuse(eqn, "has a part that does not depend on the picture")
    one = shape[:axis] + (1,) + shape[axis + 1 :]
    thin = tuple(Node("reshape", one, (part,)) for part in parts if isinstance(part, Node))
    return Node("concat", shape, thin, fields={"axis": axis})


def _reduce(op: str) -> Callable[..., Node]:
    def rule(eqn: JaxprEqn, x: Node) -> Node:
        axes = tuple(axis - 1 for axis in eqn.params["axes"])
        return Node(op, _example(eqn), (x,), fields={"axes": axes})

    return rule


def _same(eqn: JaxprEqn, x: Node) -> Node:
    if eqn.outvars[0].aval.dtype != jnp.float32:  # type: ignore[attr-defined]
        raise _refuse(eqn, "leaves float32")
    return x


def _unary(op: str) -> Callable[..., Node]:
    return lambda eqn, x: Node(op, x.shape, (x,))


def _leaky_relu(eqn: JaxprEqn, x: Node) -> Node:
    (product,) = (e for e in eqn.params["jaxpr"].eqns if e.primitive.name == "mul")
    (slope,) = (v.val for v in product.invars if isinstance(v, Literal))
    return Node("leaky_relu", x.shape, (x,), fields={"slope": float(slope)})


def _resize(eqn: JaxprEqn, x: Node) -> Node:
    """`jax.image.resize` of maps: a matrix for the rows, then one for the columns."""
    before, after = x.shape, _example(eqn)
    for axis, (n, m) in enumerate(zip(before, after, strict=True)):
        if n != m:
            matrix = np.asarray(jax.image.resize(np.eye(n, dtype=np.float32), (m, n), "linear"))
            shape = (*x.shape[:axis], m, *x.shape[axis + 1 :])
            x = Node("mix", shape, (x,), {"matrix": matrix}, {"axis": axis})
    # What the trace has lost is whether the method was 'linear'.
    drawn = np.random.default_rng(0).normal(size=(BATCH, *before)).astype(np.float32)
    (wanted,) = jaxpr_as_fun(eqn.params["jaxpr"])(drawn)
    linear = jax.image.resize(drawn, (BATCH, *after), "linear")
    if len(before) != 3 or before[2] != after[2] or not np.allclose(wanted, linear, atol=1e-4):
        raise _refuse(eqn, "resizes what is no map, or not 'linear'")
    return x


FUNCTIONS: dict[str, Callable[..., Node]] = {"leaky_relu": _leaky_relu, "_resize": _resize}


RULES: dict[str, Callable[..., Node]] = {
    **dict.fromkeys(("add", "sub", "mul", "div"), _arithmetic),
    "neg": _negative,
    "max": _maximum,
    **dict.fromkeys(("square", "integer_pow"), _power),
    "tanh": _unary("tanh"),
    "logistic": _unary("sigmoid"),
    **{name: _unary(name) for name in ("exp", "rsqrt")},
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    **dict.fromkeys(("reduce_window_max", "reduce_window_sum"), _pool),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
    "broadcast_in_dim": _expand,
    "concatenate": _concat,
    "stack": _stack,
    "pad": _pad,
    "slice": _slice,
    "reduce_sum": _reduce("sum"),
    "reduce_max": _reduce("largest"),
    **dict.fromkeys(("convert_element_type", "copy", "stop_gradient"), _same),
}
