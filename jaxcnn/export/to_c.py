"""The graph in C99: one file with the weights and the inference, one header, no library but libm.

Maps stand as H, W, C and kernels as h, w, C, O, so that each inner loop runs along memory. What
lies between the layers shares one scratch array that the caller brings: calls may run side by side.
"""

import math
import re
from collections.abc import Iterator

import numpy as np

from jaxcnn.config import InputError
from jaxcnn.export.graph import Node, Shape, ordered

PER_LINE = 8

# Of operations whose own names are C's.
NAMES = {name: f"apply_{name}" for name in ("tanh", "exp", "rsqrt", "div")}
# What a network may call; a file has those that its own does.
FUNCTIONS = {
    "conv": """
static void conv(const float *restrict x, int height, int width, int channels,
                 const float *restrict kernel, const float *restrict bias, int high, int wide,
                 int down, int right, int top, int left, int groups,
                 float *restrict y, int rows, int columns, int maps)
{
    int in = channels / groups, out = maps / groups;
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++, y += maps) {
            for (int m = 0; m < maps; m++)
                y[m] = bias[m];
            for (int i = 0; i < high; i++) {
                int row = r * down + i - top;
                if (row < 0 || row >= height)
                    continue;
                for (int j = 0; j < wide; j++) {
                    int column = c * right + j - left;
                    if (column < 0 || column >= width)
                        continue;
                    const float *from = x + (row * width + column) * channels;
                    for (int g = 0; g < groups; g++)
                        for (int q = 0; q < in; q++) {
                            float v = from[g * in + q];
                            const float *k = kernel + ((i * wide + j) * in + q) * maps + g * out;
                            float *to = y + g * out;
                            for (int m = 0; m < out; m++)
                                to[m] += v * k[m];
                        }
                }
            }
        }
}
""",
    "dense": """
static void dense(const float *restrict x, int n, const float *restrict kernel,
                  const float *restrict bias, float *restrict y, int m)
{
    for (int k = 0; k < m; k++)
        y[k] = bias[k];
    for (int i = 0; i < n; i++, kernel += m)
        for (int k = 0; k < m; k++)
            y[k] += x[i] * kernel[k];
}
""",
    "max_pool": """
static void max_pool(const float *restrict x, int height, int width, int high, int wide,
                     int down, int right, int top, int left,
                     float *restrict y, int rows, int columns, int maps)
{
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++, y += maps) {
            for (int m = 0; m < maps; m++)
                y[m] = -INFINITY;
            for (int i = r * down - top; i < r * down - top + high; i++)
                for (int j = c * right - left; j < c * right - left + wide; j++)
                    if (i >= 0 && i < height && j >= 0 && j < width)
                        for (int m = 0; m < maps; m++) {
                            float v = x[(i * width + j) * maps + m];
                            y[m] = v > y[m] ? v : y[m];
                        }
        }
}
""",
    "avg_pool": """
static void avg_pool(const float *restrict x, int height, int width, int high, int wide,
                     int down, int right, int top, int left,
                     float *restrict y, int rows, int columns, int maps)
{
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++, y += maps) {
            for (int m = 0; m < maps; m++)
                y[m] = 0;
            for (int i = r * down - top; i < r * down - top + high; i++)
                for (int j = c * right - left; j < c * right - left + wide; j++)
                    if (i >= 0 && i < height && j >= 0 && j < width)
                        for (int m = 0; m < maps; m++)
                            y[m] += x[(i * width + j) * maps + m];
            for (int m = 0; m < maps; m++)
                y[m] /= (float)(high * wide);
        }
}
""",
    "lrn": """
/* x / (k + alpha sum of n squares)^beta, over n neighbouring maps */
static void lrn(const float *restrict x, int n, float k, float alpha, float beta,
                float *restrict y, int pixels, int maps)
{
    for (int p = 0; p < pixels; p++, x += maps, y += maps)
        for (int m = 0; m < maps; m++) {
            float sum = 0;
            for (int q = m - n / 2; q < m - n / 2 + n; q++)
                if (q >= 0 && q < maps)
                    sum += x[q] * x[q];
            y[m] = x[m] * powf(k + alpha * sum, -beta);
        }
}
""",
    **{
        name: f"""
static void {NAMES.get(name, name)}(const float *restrict x, float *restrict y, int n)
{{
    for (int i = 0; i < n; i++)
        y[i] = {value};
}}
"""
        for name, value in (
            ("relu", "x[i] > 0 ? x[i] : 0"),
            ("tanh", "tanhf(x[i])"),
            ("sigmoid", "1 / (1 + expf(-x[i]))"),
            ("exp", "expf(x[i])"),
            ("rsqrt", "1 / sqrtf(x[i])"),
        )
    },
    "leaky_relu": """
static void leaky_relu(const float *restrict x, float slope, float *restrict y, int n)
{
    for (int i = 0; i < n; i++)
        y[i] = x[i] >= 0 ? x[i] : slope * x[i];
}
""",
    "affine": """
/* x scale + shift; each of the `size` pairs serves `along` numbers in a row */
static void affine(const float *restrict x, const float *restrict scale,
                   const float *restrict shift, int along, int size, float *restrict y, int n)
{
    for (int i = 0; i < n; i++) {
        int k = i / along % size;
        y[i] = x[i] * scale[k] + shift[k];
    }
}
""",
    **{
        name: f"""
static void {NAMES.get(name, name)}(const float *a, const float *b, float *restrict y, int n)
{{
    for (int i = 0; i < n; i++)
        y[i] = a[i] {sign} b[i];
}}
"""
        for name, sign in (("add", "+"), ("sub", "-"), ("mul", "*"), ("div", "/"))
    },
    "concat": """
/* blocks of n numbers, into places that stand `apart` */
static void concat(const float *restrict x, int blocks, int n, float *restrict y, int apart)
{
    for (int i = 0; i < blocks; i++)
        memcpy(y + i * apart, x + i * n, (size_t)n * sizeof(float));
}
""",
    "pad": """
/* zeros around x [a, b, c] in y, whose last axes are B and C */
static void pad(const float *restrict x, int a, int b, int c, float *restrict y, int n,
                int B, int C, int before_a, int before_b, int before_c)
{
    memset(y, 0, (size_t)n * sizeof(float));
    for (int i = 0; i < a; i++)
        for (int j = 0; j < b; j++)
            memcpy(y + ((i + before_a) * B + j + before_b) * C + before_c, x + (i * b + j) * c,
                   (size_t)c * sizeof(float));
}
""",
    "slice": """
/* y [a, b, c] of x, whose last axes are B and C: from a place, by steps */
static void slice(const float *restrict x, int B, int C, int from_a, int from_b, int from_c,
                  int by_a, int by_b, int by_c, float *restrict y, int a, int b, int c)
{
    for (int i = 0; i < a; i++)
        for (int j = 0; j < b; j++)
            for (int k = 0; k < c; k++)
                *y++ = x[((from_a + i * by_a) * B + from_b + j * by_b) * C + from_c + k * by_c];
}
""",
    "sum": """
/* over the middle axis of x [a, n, c] */
static void sum(const float *restrict x, int a, int n, int c, float *restrict y)
{
    for (int i = 0; i < a; i++, y += c) {
        for (int k = 0; k < c; k++)
            y[k] = 0;
        for (int j = 0; j < n; j++)
            for (int k = 0; k < c; k++)
                y[k] += *x++;
    }
}
""",
    "largest": """
/* of the middle axis of x [a, n, c] */
static void largest(const float *restrict x, int a, int n, int c, float *restrict y)
{
    for (int i = 0; i < a; i++, y += c) {
        for (int k = 0; k < c; k++)
            y[k] = -INFINITY;
        for (int j = 0; j < n; j++)
            for (int k = 0; k < c; k++, x++)
                y[k] = *x > y[k] ? *x : y[k];
    }
}
""",
    "mix": """
/* x [a, n, c] -> y [a, m, c], by the matrix [m, n] */
static void mix(const float *restrict x, int a, int n, int c, const float *restrict matrix,
                float *restrict y, int m)
{
    for (int i = 0; i < a; i++, x += n * c)
        for (int j = 0; j < m; j++, y += c) {
            for (int k = 0; k < c; k++)
                y[k] = 0;
            for (int q = 0; q < n; q++)
                for (int k = 0; k < c; k++)
                    y[k] += matrix[j * n + q] * x[q * c + k];
        }
}
""",
    "expand": """
/* x [a, c] -> y [a, n, c] */
static void expand(const float *restrict x, int a, int c, float *restrict y, int n)
{
    for (int i = 0; i < a; i++)
        for (int j = 0; j < n; j++, y += c)
            memcpy(y, x + i * c, (size_t)c * sizeof(float));
}
""",
}


def sources(output: Node, name: str, about: str) -> tuple[str, str]:
    """(.c, .h) of a graph, whose function is `identifier(name)`; `about` is a line on top."""
    c, order = identifier(name), ordered(output)
    place, floats = _places(order, output)
    picture, size = order[0].shape, math.prod(output.shape)
    constants, calls = [], []
    for i, node in enumerate(order):
        for key, array in _constants(node).items():
            constants.append(_array(f"{key}{i}", array))
        calls += [f"    {call}\n" for call in _calls(node, i, place)]
    used = {node.op for node in order}
    functions = [text for op, text in FUNCTIONS.items() if op in used]
    upper = c.upper()
    header = f"""/* {about} */
#ifndef {upper}_H
#define {upper}_H

#define {upper}_PIXELS {math.prod(picture)} /* {" x ".join(map(str, picture))}: row by row, \
channels last */
#define {upper}_OUTPUTS {size}
#define {upper}_WORK {max(floats, 1)} /* floats of scratch memory */

/* One picture, its pixels from 0 to 255; calls with a scratch memory each may run side by side. */
void {c}(const float *pixels, float *output, float *work);

#endif
"""
    body = "".join(calls)
    unused = "" if "work" in body else "    (void)work;\n"
    code = f"""/* {about} */
#include "{name}.h"

#include <math.h>
#include <string.h>
{"".join(functions)}
{"".join(constants)}
void {c}(const float *pixels, float *output, float *work)
{{
{unused}{body}}}
"""
    return code, header


def identifier(name: str) -> str:
    """A model's name as C takes it."""
    return re.sub(r"\W", "_", name)


def _array(name: str, array: np.ndarray) -> str:
    """Nine digits, which give back every float32."""
    numbers = [_number(v) for v in np.asarray(array, np.float32).ravel().tolist()]
    lines = [", ".join(numbers[i : i + PER_LINE]) for i in range(0, len(numbers), PER_LINE)]
    rows = ",\n    ".join(lines)
    return f"static const float {name}[{len(numbers)}] = {{\n    {rows}}};\n"


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise InputError(f"export: a weight is {value}; C has no number for it.")
    text = f"{float(value):.9g}"
    return f"{text}f" if {".", "e"} & set(text) else f"{text}.0f"


def _root(node: Node) -> Node:
    """Whose memory a value is: reshaping moves nothing."""
    return _root(node.inputs[0]) if node.op == "reshape" else node


def _places(order: list[Node], output: Node) -> tuple[dict[Node, str], int]:
    """Where each value lies, as a C expression, and how many floats of scratch memory that takes:
    the first gap among what is still needed.
    """
    last = {_root(x): i for i, node in enumerate(order) for x in node.inputs}
    place = {order[0]: "pixels"}
    taken: dict[Node, tuple[int, int]] = {}
    most = 0
    for i, node in enumerate(order):
        if node.op == "reshape":
            place[node] = place[_root(node)]
        elif node is _root(output) and node is not order[0]:
            place[node] = "output"
        elif node is not order[0]:
            taken = {n: span for n, span in taken.items() if last[n] >= i}
            start, size = 0, math.prod(node.shape)
            for begin, end in sorted(taken.values()):
                if begin - start >= size:
                    break
                start = max(start, end)
            taken[node] = (start, start + size)
            most = max(most, start + size)
            place[node] = f"work + {start}" if start else "work"
    return place, most


def _constants(node: Node) -> dict[str, np.ndarray]:
    """What a node's call reads besides its inputs; an affine's pairs in the order of its loop."""
    if node.op != "affine":
        return node.arrays
    scale, shift = np.broadcast_arrays(node.arrays["scale"], node.arrays["shift"])
    _, shape = _along(node)
    return {k: np.broadcast_to(v, shape) for k, v in (("scale", scale), ("shift", shift))}


def _along(node: Node) -> tuple[int, Shape]:
    """For how many numbers in a row one pair of an affine serves, and the shape of its pairs."""
    shape = np.broadcast_shapes(*(a.shape for a in node.arrays.values()))
    differing = [i for i, n in enumerate(shape) if n > 1]
    if not differing:
        return math.prod(node.shape), shape
    first, end = differing[0], differing[-1] + 1
    between = shape[:first] + node.shape[first:end] + shape[end:]
    return math.prod(node.shape[end:]), between


def _middle(axes: tuple[int, ...], shape: Shape) -> tuple[int, int, int]:
    """`shape` as [before, along `axes`, behind]."""
    first, end = min(axes), max(axes) + 1
    if len(axes) != end - first:
        raise InputError(f"export: axes {axes} of {shape} do not stand side by side.")
    return math.prod(shape[:first]), math.prod(shape[first:end]), math.prod(shape[end:])


def _three(numbers: Shape, filling: int) -> Shape:
    if len(numbers) > 3:
        raise InputError(f"export: C has no padding or slicing of {len(numbers)} axes.")
    return (filling,) * (3 - len(numbers)) + tuple(numbers)


def _calls(node: Node, i: int, place: dict[Node, str]) -> Iterator[str]:
    """The statements that make a node, the i-th."""

    def call(name: str, *arguments: object) -> str:
        words = [f"{_number(a)}" if isinstance(a, float) else str(a) for a in arguments]
        return f"{name}({', '.join(words)});"

    f, y, n = node.fields, place[node], math.prod(node.shape)
    xs = [place[x] for x in node.inputs]
    if node.op in ("conv", "max_pool", "avg_pool"):
        height, width, channels = node.inputs[0].shape
        (top, _), (left, _) = f["pads"]
        if node.op == "conv":
            high, wide = node.arrays["kernel"].shape[:2]
            given = (channels, f"kernel{i}", f"bias{i}", high, wide)
            more = (f["groups"],)
        else:
            given, more = f["window"], ()
        where = (*f["stride"], top, left, *more)
        yield call(node.op, *xs, height, width, *given, *where, y, *node.shape)
    elif node.op == "dense":
        given = node.inputs[0].shape[0]
        yield call("dense", *xs, given, f"kernel{i}", f"bias{i}", y, n)
    elif node.op == "lrn":
        maps = node.shape[-1]
        numbers = (f["n"], float(f["k"]), float(f["alpha"]), float(f["beta"]))
        yield call("lrn", *xs, *numbers, y, n // maps, maps)
    elif node.op == "leaky_relu":
        yield call("leaky_relu", *xs, f["slope"], y, n)
    elif node.op == "affine":
        along, shape = _along(node)
        yield call("affine", *xs, f"scale{i}", f"shift{i}", along, math.prod(shape), y, n)
    elif node.op == "concat":
        _, _, behind = _middle((f["axis"],), node.shape)
        apart, offset = node.shape[f["axis"]] * behind, 0
        for x, part in zip(xs, node.inputs, strict=True):
            blocks, along, _ = _middle((f["axis"],), part.shape)
            yield call("concat", x, blocks, along * behind, f"{y} + {offset}", apart)
            offset += along * behind
    elif node.op == "pad":
        given, made = _three(node.inputs[0].shape, 1), _three(node.shape, 1)
        yield call("pad", *xs, *given, y, n, *made[1:], *_three(f["low"], 0))
    elif node.op == "slice":
        where = (*_three(f["start"], 0), *_three(f["stride"], 1))
        given = _three(node.inputs[0].shape, 1)
        yield call("slice", *xs, *given[1:], *where, y, *_three(node.shape, 1))
    elif node.op == "mix":
        given = _middle((f["axis"],), node.inputs[0].shape)
        yield call("mix", *xs, *given, f"matrix{i}", y, node.shape[f["axis"]])
    elif node.op in ("sum", "largest"):
        yield call(node.op, *xs, *_middle(f["axes"], node.inputs[0].shape), y)
    elif node.op == "expand":
        given = node.inputs[0].shape
        axes = tuple(k for k, m in enumerate(node.shape) if m != given[k])
        before, along, behind = _middle(axes, node.shape)
        yield call("expand", *xs, before, behind, y, along)
    elif node.op not in ("input", "reshape"):
        yield call(NAMES.get(node.op, node.op), *xs, y, n)
