"""The graph in ONNX. Pictures come and maps leave as B, H, W, C; ONNX's convolutions are of
B, C, H, W, so a map is turned where the first one wants it so and stays turned to the last.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnn.config import InputError
from jaxcnn.export.graph import Node, ordered

OPSET, IR_VERSION = 17, 8  # of 2022: what nearly all runtimes read
TURN, BACK = (0, 3, 1, 2), (0, 2, 3, 1)
UNARY = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "leaky_relu": "LeakyRelu"}
UNARY |= {"exp": "Exp"}
BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"}
MAPS_ONLY = ("conv", "max_pool", "avg_pool", "lrn", "mix")  # wants channels first


def installed() -> Any:
    """The package onnx; `InputError` where it is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise InputError("--to onnx: needs onnx. Run: pip install onnx") from error
    return onnx


def model(output: Node, name: str) -> Any:
    """The `onnx.ModelProto` of a graph: 'pixels' float32 [B, H, W, C] -> 'output' [B, ...], with
    any number B of pictures.
    """
    onnx = installed()
    from onnx import helper

    order = ordered(output)
    writer = _Writer()
    for node in order:
        writer.write(node)
    writer.nodes.append(helper.make_node("Identity", [writer.get(output, False)], ["output"]))
    given = helper.make_tensor_value_info("pixels", 1, ["batch", *order[0].shape])
    made = helper.make_tensor_value_info("output", 1, ["batch", *output.shape])
    graph = helper.make_graph(writer.nodes, name, [given], [made], writer.constants)
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="jaxcnn"
    )
    proto.ir_version = IR_VERSION
    onnx.checker.check_model(proto, full_check=True)
    return proto


class _Writer:
    """ONNX's nodes and constants so far, and the names of what they make."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        # by node and whether its channels come first
        self._names: dict[tuple[Node, bool], str] = {}

    def get(self, node: Node, first: bool) -> str:
        """The name of a value, turned if need be, once."""
        if (node, first) not in self._names:
            there = self._names[node, not first]
            self._names[node, first] = self._emit("Transpose", there, perm=TURN if first else BACK)
        return self._names[node, first]

    def write(self, node: Node) -> None:
        first = node.op in MAPS_ONLY or self._turned(node)
        inputs = [self.get(x, first) for x in node.inputs]
        is_map = len(node.shape) == 3
        self._names[node, first and is_map] = self._translated(node, inputs, first)

    def _turned(self, node: Node) -> bool:
        """Whether a value's inputs, and so itself, have their channels first."""
        if node.op in ("input", "reshape", "expand"):
            return False
        if node.op in ("sum", "largest") and node.fields["axes"] != (0, 1):
            return False
        return any((x, True) in self._names for x in node.inputs)

    def _emit(self, op: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def _constant(self, array: Any, dtype: Any = np.float32) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(array, dtype)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def _integers(self, values: Sequence[int]) -> str:
        return self._constant(values, np.int64)

    def _translated(self, node: Node, inputs: list[str], first: bool) -> str:
        f, a = node.fields, node.arrays

        def axis(i: int) -> int:
            """Of an example's axis i, H, W, C, the place in what ONNX sees."""
            return BACK[1:][i] if first else i + 1

        if node.op == "input":
            return "pixels"
        if node.op in UNARY:
            slope = {"alpha": f["slope"]} if "slope" in f else {}
            return self._emit(UNARY[node.op], *inputs, **slope)
        if node.op == "rsqrt":
            return self._emit("Reciprocal", self._emit("Sqrt", *inputs))
        if node.op in BINARY:
            return self._emit(BINARY[node.op], *inputs)
        if node.op == "affine":
            (x,) = inputs
            turned = {k: v.transpose(2, 0, 1) if first else v for k, v in a.items()}
            if (turned["scale"] != 1).any():
                x = self._emit("Mul", x, self._constant(turned["scale"]))
            if (turned["shift"] != 0).any():
                x = self._emit("Add", x, self._constant(turned["shift"]))
            return x
        if node.op == "mix":
            if f["axis"] == 0:
                return self._emit("MatMul", self._constant(a["matrix"]), *inputs)
            return self._emit("MatMul", *inputs, self._constant(a["matrix"].T))
        if node.op == "dense":
            return self._emit("Gemm", *inputs, *map(self._constant, (a["kernel"], a["bias"])))
        if node.op == "lrn":
            if f["n"] % 2 == 0:
                raise InputError(
                    f"export: LRN over n = {f['n']} maps; of an even number ONNX takes others."
                )
            # ONNX divides alpha by the size
            return self._emit(
                "LRN", *inputs, size=f["n"], bias=f["k"], alpha=f["alpha"] * f["n"], beta=f["beta"]
            )
        if node.op in ("conv", "max_pool", "avg_pool"):
            (top, bottom), (left, right) = f["pads"]
            where = {"strides": f["stride"], "pads": (top, left, bottom, right)}
            if node.op == "conv":
                kernel = self._constant(a["kernel"].transpose(3, 2, 0, 1))
                where["group"] = f["groups"]
                return self._emit("Conv", *inputs, kernel, self._constant(a["bias"]), **where)
            where["kernel_shape"] = f["window"]
            if node.op == "max_pool":
                return self._emit("MaxPool", *inputs, **where)
            return self._emit("AveragePool", *inputs, count_include_pad=1, **where)
        if node.op == "reshape":
            return self._emit("Reshape", *inputs, self._integers((-1, *node.shape)))
        if node.op == "expand":
            return self._emit("Expand", *inputs, self._integers((1, *node.shape)))
        if node.op == "concat":
            return self._emit("Concat", *inputs, axis=axis(f["axis"]))
        if node.op == "sum":
            axes = self._integers([axis(i) for i in f["axes"]])
            return self._emit("ReduceSum", *inputs, axes, keepdims=0)
        if node.op == "largest":
            axes = [axis(i) for i in f["axes"]]
            return self._emit("ReduceMax", *inputs, axes=axes, keepdims=0)
        axes = [axis(i) for i in range(len(node.shape))]
        if node.op == "pad":
            low, high = ([0] * (len(axes) + 1) for _ in range(2))
            for i, before, behind in zip(axes, f["low"], f["high"], strict=True):
                low[i], high[i] = before, behind
            return self._emit("Pad", *inputs, self._integers([*low, *high]))
        assert node.op == "slice", node.op
        ends = [
            s + (n - 1) * d + 1 for s, n, d in zip(f["start"], node.shape, f["stride"], strict=True)
        ]
        return self._emit(
            "Slice", *inputs, *map(self._integers, (f["start"], ends, axes, f["stride"]))
        )
