"""What follows a convolution by oneDNN goes into it, where nothing needs the gradient: the bias,
batch normalisation with running statistics, a shortcut's maps, ReLU. Else they read and write the
maps once more.

    fused(f)(*args)  # what f(*args) is, to rounding

`f` is traced and its program run again, operation by operation; a convolution is kept back while
what comes next is a number for each of its maps, added or multiplied, then other maps of its shape,
added, then the maximum with zero.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from jaxcnn import native

INLINED = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")


@dataclass(frozen=True)
class Convolution:
    """scale conv(x, w) + shift + beside, still to be computed; scale and shift are [1, 1, 1, O] or
    [], beside is of the maps' shape.
    """

    x: jax.Array
    w: jax.Array
    shape: tuple[int, ...]
    options: dict[str, Any]
    scale: Any = 1.0
    shift: Any = 0.0
    beside: jax.Array | None = None

    def array(self, relu: bool = False) -> jax.Array:
        w, bias = self.w * self.scale, jnp.reshape(self.shift, -1)
        bias = jnp.broadcast_to(bias, self.shape[-1:])
        behind = {"bias": bias, "beside": self.beside, "relu": relu}
        return native.forward(self.x, w, self.shape, **self.options, **behind)


Value = Any  # jax.Array | Convolution


def fused(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` with its convolutions as above; `f` itself where they are not oneDNN's."""
    if native.version() is None:
        return f

    def call(*args: Any) -> Any:
        program, shape = jax.make_jaxpr(f, return_shape=True)(*args)
        found = _run(program.jaxpr, program.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), [_array(v) for v in found])

    return call


def _array(value: Value) -> jax.Array:
    return value.array() if isinstance(value, Convolution) else value


def _run(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Value]) -> list[Value]:
    uses = Counter(v for eqn in jaxpr.eqns for v in eqn.invars if not isinstance(v, Literal))
    uses.update(v for v in jaxpr.outvars if not isinstance(v, Literal))
    values: dict[Any, Value] = {}

    def write(variables: Sequence[Any], found: Sequence[Value]) -> None:
        for variable, value in zip(variables, found, strict=True):
            if isinstance(value, Convolution) and uses[variable] != 1:
                value = value.array()  # else each use would compute it
            values[variable] = value

    def read(variable: Any) -> Value:
        return variable.val if isinstance(variable, Literal) else values[variable]

    write(jaxpr.constvars, consts)
    write(jaxpr.invars, args)
    for eqn in jaxpr.eqns:
        write(eqn.outvars, _equation(eqn, [read(v) for v in eqn.invars]))
    return [read(v) for v in jaxpr.outvars]


def _equation(eqn: JaxprEqn, inputs: list[Value]) -> Sequence[Value]:
    name = eqn.primitive.name
    if name in INLINED:
        inner: Any = eqn.params["jaxpr" if "jaxpr" in eqn.params else "call_jaxpr"]
        if isinstance(inner, ClosedJaxpr):
            return _run(inner.jaxpr, inner.consts, inputs)
        return _run(inner, (), inputs)
    if name == "ffi_call" and eqn.params["target_name"] in (native.FORWARD, native.BIASED[0]):
        shape = eqn.outvars[0].aval.shape  # type: ignore[attr-defined]
        x, w, *bias = map(_array, inputs)
        options = native.options(eqn.params["attributes"])
        return [Convolution(x, w, shape, options, shift=bias[0][None, None, None] if bias else 0.0)]
    if any(isinstance(value, Convolution) for value in inputs):
        followed = _followed(name, *inputs) if len(inputs) == 2 else None
        if followed is not None:
            return [followed]
    found = eqn.primitive.bind(*map(_array, inputs), **eqn.params)
    return found if eqn.primitive.multiple_results else [found]


def _followed(name: str, a: Value, b: Value) -> Value | None:
    """a and b, one of them a convolution, by an operation; None where that does not go into it."""
    conv, other = (a, b) if isinstance(a, Convolution) else (b, a)
    if name == "max" and _zero(other):
        return conv.array(relu=True)
    if conv.beside is not None:
        return None
    if name == "add" and conv.shape == getattr(other, "shape", ()):
        return replace(conv, beside=_array(other))
    if isinstance(other, Convolution) or jnp.shape(other)[:-1] not in ((), (1, 1, 1)):
        return None
    if name == "add":
        return replace(conv, shift=conv.shift + other)
    if name == "sub" and conv is a:
        return replace(conv, shift=conv.shift - other)
    if name == "mul":
        return replace(conv, scale=conv.scale * other, shift=conv.shift * other)
    return None


def _zero(number: Any) -> bool:
    return isinstance(number, float | np.generic | np.ndarray) and not np.any(number)
