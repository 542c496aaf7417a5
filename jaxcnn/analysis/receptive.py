"""Receptive fields through a traced program: what each equation does to what an array's units see.

After Araujo, Norris, Sim 2019, Computing receptive fields of convolutional neural networks,
Distill, section 2: sizes, strides and centres follow from windows alone. Padding belongs to the
field, so a field may be larger than the picture. Where an equation mixes an axis in a way that is
not written down here, its units count as seeing all of that axis: never too little.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jax.extend.core import JaxprEqn


@dataclass(frozen=True)
class Span:
    """What the units of an array see along one axis of the picture, in pixels.

    Unit i along the array's `axis` sees `size` pixels around `centre` + i `stride`; the first pixel
    reaches from 0 to 1, so its centre is 0.5. `axis` None: the array has no axis along the picture
    any more, and each unit sees this much.
    """

    size: float
    stride: float
    centre: float
    axis: int | None


Field = tuple[Span, ...]  # a span for each spatial axis of the picture; () for a vector
Shape = tuple[int, ...]


def picture(shape: Shape) -> Field:
    """The field of the input itself, [B, ..., C]: each pixel sees itself."""
    return tuple(Span(1, 1, 0.5, axis) for axis in range(1, len(shape) - 1))


def after(eqn: JaxprEqn, fields: Sequence[Field | None]) -> list[Field]:
    """The fields of an equation's results. None: an operand that does not depend on the picture."""
    shapes = [shape_of(v) for v in eqn.invars]
    name = eqn.primitive.name
    for names, rule in _RULES.items():
        if name in names:
            return rule(eqn.params, shapes, fields, [shape_of(v) for v in eqn.outvars])
    pairs = [(f, s) for f, s in zip(fields, shapes, strict=True) if f is not None]
    out = []
    for shape in map(shape_of, eqn.outvars):
        each = all(_fits(s, shape) for _, s in pairs) and name not in _MIXING
        parts = [_spread(f, s, shape) if each else collapse(f, s) for f, s in pairs]
        out.append(union(parts, shape))
    return out


def shape_of(variable: Any) -> Shape:
    """Of a variable or a literal; () where it is no array."""
    return tuple(getattr(variable.aval, "shape", ()))


def live(field: Field) -> list[int]:
    """The axes of the array that lie along the picture."""
    return [span.axis for span in field if span.axis is not None]


def collapse(field: Field, shape: Shape) -> Field:
    """Each unit sees what all units together see."""
    return tuple(_collapsed(span, shape) for span in field)


def stacked(field: Field) -> Field:
    """Of an array that has got a new leading axis."""
    return tuple(dataclasses.replace(s, axis=None if s.axis is None else s.axis + 1) for s in field)


def unstacked(field: Field, shape: Shape) -> Field:
    """Of a slice along the leading axis."""
    return tuple(_without((0,))(span, shape) for span in field)


def union(fields: Sequence[Field], shape: Shape) -> Field:
    """Of arrays of one shape, unit by unit: from the first pixel that any sees to the last."""
    out = []
    for spans in zip(*fields, strict=True):
        kept = [s for s in spans if s.axis is not None]
        if len({(s.axis, s.stride) for s in kept}) > 1:  # they run past each other
            spans, kept = [_collapsed(s, shape) for s in spans], []
        low = min(s.centre - s.size / 2 for s in spans)
        high = max(s.centre + s.size / 2 for s in spans)
        hull = Span(high - low, 0, (low + high) / 2, None)
        if kept:
            hull = dataclasses.replace(hull, stride=kept[0].stride, axis=kept[0].axis)
            if len(kept) < len(spans):  # one of them sees all from everywhere
                hull = dataclasses.replace(hull, centre=kept[0].centre)
        out.append(hull)
    return tuple(out)


def _fits(shape: Shape, result: Shape) -> bool:
    """An elementwise operand: of the result's shape, or of length 1 where it is spread out."""
    same_rank = len(shape) == len(result)
    return not shape or (same_rank and all(n in (1, m) for n, m in zip(shape, result, strict=True)))


def _spread(field: Field, shape: Shape, result: Shape) -> Field:
    return tuple(
        s if s.axis is None or shape[s.axis] == result[s.axis] else _collapsed(s, shape)
        for s in field
    )


def _collapsed(span: Span, shape: Shape) -> Span:
    if span.axis is None:
        return span
    last = (shape[span.axis] - 1) * span.stride
    return Span(span.size + abs(last), 0, span.centre + last / 2, None)


def _slid(
    span: Span, window: int, stride: int, low: int, dilation: int = 1, inserted: int = 1
) -> Span:
    """A window runs along the span's axis; `inserted` is the dilation of the array under it."""
    reach = (window - 1) * dilation + 1
    step = span.stride / inserted
    return dataclasses.replace(
        span,
        size=span.size + (math.ceil(reach / inserted) - 1) * abs(span.stride),
        centre=span.centre + ((reach - 1) / 2 - low) * step,
        stride=step * stride,
    )


# Rules: (parameters, shapes in, fields in, shapes out) -> fields out ---------------------------

Fields = Sequence[Field | None]


def _each(change: Callable[[Any, Span, int, Shape], Span]) -> Callable[..., list[Field]]:
    """A rule from what happens to a single span on a living axis of the first operand."""

    def rule(params: Any, shapes: list[Shape], fields: Fields, outs: list[Shape]) -> list[Field]:
        if fields[0] is None:  # the picture decides where in it to look
            parts = zip(fields, shapes, strict=True)
            return [union([collapse(f, s) for f, s in parts if f is not None], outs[0])]
        out = []
        for span in fields[0]:
            out.append(span if span.axis is None else change(params, span, span.axis, shapes[0]))
        return [tuple(out)] * len(outs)

    return rule


def _moved(span: Span, shape: Shape, axes: dict[int, int]) -> Span:
    """The span's axis is another one in the result, or none where `axes` does not have it."""
    if span.axis is None or span.axis not in axes:
        return _collapsed(span, shape)
    return dataclasses.replace(span, axis=axes[span.axis])


def _conv(params: Any, shapes: list[Shape], fields: Fields, outs: list[Shape]) -> list[Field]:
    lhs, rhs, out = params["dimension_numbers"]
    spans = []
    for span in fields[0] or ():
        if span.axis in lhs[2:]:
            i = lhs.index(span.axis) - 2
            window, (low, _) = shapes[1][rhs[2 + i]], params["padding"][i]
            dilations = params["rhs_dilation"][i], params["lhs_dilation"][i]
            span = _slid(span, window, params["window_strides"][i], low, *dilations)
            spans.append(dataclasses.replace(span, axis=out[2 + i]))
        else:  # the batch goes along, the channels are summed over
            spans.append(_moved(span, shapes[0], {lhs[0]: out[0]}))
    if fields[1] is None:
        return [tuple(spans)]
    weights = collapse(fields[1], shapes[1])
    return [union([tuple(spans), weights], outs[0]) if spans else weights]


def _reduce_window(params: Any, span: Span, axis: int, shape: Shape) -> Span:
    window, stride = params["window_dimensions"][axis], params["window_strides"][axis]
    low, _ = params["padding"][axis]
    dilations = (params.get(f"{what}_dilation") for what in ("window", "base"))
    return _slid(span, window, stride, low, *(d[axis] if d else 1 for d in dilations))


def _slice(params: Any, span: Span, axis: int, shape: Shape) -> Span:
    first, step = params["start_indices"][axis], (params["strides"] or [1] * len(shape))[axis]
    centre = span.centre + first * span.stride
    return dataclasses.replace(span, centre=centre, stride=span.stride * step)


def _dynamic_slice(params: Any, span: Span, axis: int, shape: Shape) -> Span:
    return span if params["slice_sizes"][axis] == shape[axis] else _collapsed(span, shape)


def _pad(params: Any, span: Span, axis: int, shape: Shape) -> Span:
    low, _, interior = params["padding_config"][axis]
    step = span.stride / (1 + interior)
    return dataclasses.replace(span, centre=span.centre - low * step, stride=step)


def _reverse(params: Any, span: Span, axis: int, shape: Shape) -> Span:
    if axis not in params["dimensions"]:
        return span
    last = span.centre + (shape[axis] - 1) * span.stride
    return dataclasses.replace(span, centre=last, stride=-span.stride)


def _transpose(params: Any, span: Span, axis: int, shape: Shape) -> Span:
    return dataclasses.replace(span, axis=params["permutation"].index(axis))


def _broadcast(params: Any, span: Span, axis: int, shape: Shape) -> Span:
    to = params["broadcast_dimensions"][axis]
    grown = params["shape"][to] != shape[axis]
    return _collapsed(span, shape) if grown else dataclasses.replace(span, axis=to)


def _without(gone: Iterable[int]) -> Callable[[Span, Shape], Span]:
    """The axes in `gone` are summed over or dropped, and the others close ranks."""

    def change(span: Span, shape: Shape) -> Span:
        kept = [axis for axis in range(len(shape)) if axis not in gone]
        return _moved(span, shape, {axis: i for i, axis in enumerate(kept)})

    return change


def _reduce(params: Any, span: Span, axis: int, shape: Shape) -> Span:
    return _without(params["axes"])(span, shape)


def _squeeze(params: Any, span: Span, axis: int, shape: Shape) -> Span:
    return _without([d % len(shape) for d in params["dimensions"]])(span, shape)


def _reshape(params: Any, span: Span, axis: int, shape: Shape) -> Span:
    """An axis survives where as many elements lie before it, and it is as long, as before."""
    if shape[axis] == 1:
        return _collapsed(span, shape)
    new, before = params["new_sizes"], math.prod(shape[:axis])
    kept = [i for i, n in enumerate(new) if n == shape[axis] and math.prod(new[:i]) == before]
    return _moved(span, shape, {axis: kept[0]} if kept else {})


def _concatenate(
    params: Any, shapes: list[Shape], fields: Fields, outs: list[Shape]
) -> list[Field]:
    parts = []
    for field, shape in zip(fields, shapes, strict=True):
        if field is not None:  # joined along the picture, units of one place come from several
            along = params["dimension"] in live(field)
            parts.append(collapse(field, shape) if along else field)
    return [union(parts, outs[0])]


def _split(params: Any, shapes: list[Shape], fields: Fields, outs: list[Shape]) -> list[Field]:
    axis, first, out = params["axis"], 0, []
    for size in params["sizes"]:
        out.append(
            tuple(
                dataclasses.replace(s, centre=s.centre + first * s.stride) if s.axis == axis else s
                for s in fields[0] or ()
            )
        )
        first += size
    return out


def _dot(params: Any, shapes: list[Shape], fields: Fields, outs: list[Shape]) -> list[Field]:
    contracted, batch = params["dimension_numbers"]
    parts, free = [], len(batch[0])
    for i in (0, 1):
        kept = [d for d in range(len(shapes[i])) if d not in (*contracted[i], *batch[i])]
        axes = dict(zip(batch[i], range(len(batch[i])), strict=True))
        axes |= {axis: free + j for j, axis in enumerate(kept)}
        free += len(kept)
        field = fields[i]
        if field is not None:
            parts.append(tuple(_moved(s, shapes[i], axes) for s in field))
    return [union(parts, outs[0])]


_RULES: dict[tuple[str, ...], Callable[..., list[Field]]] = {
    ("conv_general_dilated",): _conv,
    ("dot_general",): _dot,
    ("concatenate",): _concatenate,
    ("split",): _split,
    tuple(f"reduce_window{end}" for end in ("", "_max", "_min", "_sum")): _each(_reduce_window),
    ("slice",): _each(_slice),
    ("dynamic_slice",): _each(_dynamic_slice),
    ("pad",): _each(_pad),
    ("rev",): _each(_reverse),
    ("transpose",): _each(_transpose),
    ("broadcast_in_dim",): _each(_broadcast),
    ("squeeze",): _each(_squeeze),
    ("reshape",): _each(_reshape),
    (
        *(f"reduce_{what}" for what in ("sum", "max", "min", "prod", "and", "or", "xor")),
        *("argmax", "argmin"),
    ): _each(_reduce),
}
# Of the shape that they take, and yet no elementwise function of it.
_MIXING = (
    *("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "sort", "fft", "cholesky"),
    *("triangular_solve", "scatter", "scatter-add", "dynamic_update_slice", "gather"),
)
