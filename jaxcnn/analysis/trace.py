"""Goes through the traced program of a network, equation by equation, and collects its layers.

Names come from the program (Linen writes the module into each equation) and from the parameters'
places in their tree; which parameters a layer has, from following them through the program.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jax.extend.core import Jaxpr, JaxprEqn, Literal

from jaxcnn.analysis import layers, receptive
from jaxcnn.analysis.layers import (
    AVERAGE,
    CONVOLUTION,
    DENSE,
    GLOBAL,
    NORM,
    SUBSAMPLING,
    UNUSED,
    Layer,
    Leaf,
    Path,
    Row,
    Value,
)
from jaxcnn.analysis.receptive import Field, Shape


class Walk:
    """Goes through a program and collects `rows`. `top` is the outermost module's name, `modules`
    are all that have parameters.
    """

    def __init__(self, top: str, modules: set[Path]) -> None:
        self.rows: list[Row] = []
        self._top, self._modules = top, modules
        self._claimed: set[Leaf] = set()
        self._seen: dict[Any, Row] = {}

    def run(
        self,
        jaxpr: Jaxpr,
        inputs: Sequence[Value],
        path: Path = (),
        site: tuple[int, ...] = (),
    ) -> list[Value]:
        """`path`: the modules, `site`: the calls around this part of the program."""
        known: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Value:
            return Value() if isinstance(atom, Literal) else known.get(atom, Value())

        for eqn in jaxpr.eqns:
            inside = (*path, *self._path(str(eqn.source_info.name_stack)))
            outputs = self._equation(eqn, [*map(read, eqn.invars)], inside, site)
            known.update(zip(eqn.outvars, outputs, strict=True))
        return [*map(read, jaxpr.outvars)]

    def layers(self, normed: set[Path]) -> tuple[Layer, ...]:
        """The rows under their final names. `normed`: modules that keep running statistics."""
        return tuple(self._layer(row, normed) for row in self.rows)

    def unused(self, leaves: Iterable[Leaf]) -> None:
        """Rows for the parameters that the program does not touch."""
        met = {leaf.name for leaf in self._claimed}
        left = [leaf for leaf in leaves if leaf.name not in met]
        for module, group in itertools.groupby(left, key=lambda leaf: leaf.module):
            self.rows.append(Row(module, UNUSED, leaves=[*group]))

    def _layer(self, row: Row, normed: set[Path]) -> Layer:
        kind, path = row.kind, row.path
        if kind == AVERAGE and row.leaves:
            kind = SUBSAMPLING
        if not kind:
            plain = tuple(part.split("[")[0] for part in path)
            names = sorted({leaf.name.split("/")[-1] for leaf in row.leaves})
            kind = NORM if plain in normed else ", ".join(names)
        has_parts = any(r.path[: len(path)] == path != r.path for r in self.rows)
        if not row.leaves and (not path or has_parts):  # an operation between modules
            path = (*path, kind.replace(" ", "_"))
        name = "/".join(path) or self._top
        name += f" ({row.call})" if row.call > 1 else ""
        size = sum(leaf.size for leaf in row.leaves)
        rest = row.macs, row.connected, row.field
        return Layer(name, kind, row.window, row.output, size, *rest)

    def _path(self, names: str) -> Path:
        """'ResNet/conv2_1/conv2_1.apply/conv1' -> conv2_1, conv1."""
        # not the names of methods ("conv2_1.apply") and of an einsum ("bhwc,yh->byc")
        parts = [part for part in names.split("/") if re.fullmatch(r"[\w\-\[\]]+", part)]
        return tuple(parts[1:] if parts[:1] == [self._top] else parts)

    def _equation(
        self, eqn: JaxprEqn, values: list[Value], path: Path, site: tuple[int, ...]
    ) -> list[Value]:
        weights = frozenset[Leaf]().union(*(v.weights for v in values))
        if all(v.field is None for v in values):
            return [Value(weights)] * len(eqn.outvars)
        if eqn.primitive.name == "scan":
            return self._scan(eqn, values, path, (*site, id(eqn)))
        inner = _inner(eqn, values)
        if inner is not None:
            return self.run(*inner, path, (*site, id(eqn)))
        fields = receptive.after(eqn, [v.field for v in values])
        depth = max(v.depth for v in values if v.field is not None)
        row = layers.read(eqn, values)
        if row is not None and not (row.kind == GLOBAL and path and path in self._modules):
            depth += 1 if weights and row.kind in (CONVOLUTION, DENSE) else 0
            row.field = fields[0]
            self._add(row, path, weights, (site, id(eqn), weights))
        elif weights:
            self._mix(weights, receptive.shape_of(eqn.outvars[0])[1:], fields[0])
        return [Value(field=f, depth=depth) for f in fields]

    def _add(self, new: Row, path: Path, weights: frozenset[Leaf], key: Any) -> None:
        """A convolution, product or pooling becomes a row, or more work of its row in a loop."""
        if key in self._seen:
            row = self._seen[key]
            row.macs, row.connected = row.macs + new.macs, row.connected + new.connected
            row.field = new.field
            return
        modules = {leaf.module for leaf in weights}
        new.path = modules.pop() if len(modules) == 1 else path
        same = [row for row in self.rows if row.path == new.path]
        if same and not same[-1].kind and (weights or self._whole(new.path)):
            # its parameters came first
            new.leaves = same[-1].leaves
            self.rows[self.rows.index(same[-1])] = new
        else:
            new.call = 1 + sum(row.kind == new.kind for row in same)
            self.rows.append(new)
        self._seen[key] = new
        self._claim(new, weights)

    def _mix(self, weights: frozenset[Leaf], output: Shape, seen: Field) -> None:
        """Parameters meet the picture elsewhere: biases, scales, embeddings of positions."""
        for leaf in sorted(weights):
            own = [
                row
                for row in self.rows
                if row.path == leaf.module
                and (row.leaves or not row.kind or self._whole(leaf.module))
            ]
            if not own:
                own = [Row(leaf.module)]
                self.rows += own
            row = own[-1]
            if not row.kind:
                row.output, row.field = output, seen
            self._claim(row, [leaf])

    def _whole(self, path: Path) -> bool:
        """A module that is one layer, not a net of layers."""
        return bool(path) and not any(m[: len(path)] == path != m for m in self._modules)

    def _claim(self, row: Row, leaves: Iterable[Leaf]) -> None:
        """Shared parameters count where they are used first."""
        row.leaves += [leaf for leaf in sorted(leaves) if leaf not in self._claimed]
        self._claimed.update(leaves)

    def _scan(
        self, eqn: JaxprEqn, values: list[Value], path: Path, site: tuple[int, ...]
    ) -> list[Value]:
        """Every turn of the loop is walked, so that fields grow and each turn's weights count."""
        if "ft_in" in eqn.params:  # since jax 0.12
            first, carried = map(len, eqn.params["ft_in"].unpack()[:2])
        else:
            first, carried = eqn.params["num_consts"], eqn.params["num_carry"]
        after = first + carried
        consts, carry = values[:first], values[first:after]
        stacks = [*zip(values[after:], map(receptive.shape_of, eqn.invars[after:]), strict=True)]
        out = [Value()] * len(eqn.outvars)
        for i in range(eqn.params["length"]):
            turn = [_turn(value, shape, i + 1) for value, shape in stacks]
            out = self.run(_programs(eqn)[0], [*consts, *carry, *turn], path, site)
            carry = out[: len(carry)]
        ys = [
            Value(v.weights, None if v.field is None else receptive.stacked(v.field), v.depth)
            for v in out[len(carry) :]
        ]
        return [*carry, *ys]


def _turn(value: Value, shape: Shape, i: int) -> Value:
    """Slice i of an array that a loop runs along."""
    weights = frozenset(
        Leaf((*m[:-1], f"{''.join(m[-1:])}[{i}]"), name, size // shape[0])
        for m, name, size in value.weights
    )
    seen = None if value.field is None else receptive.unstacked(value.field, shape)
    return Value(weights, seen, value.depth)


def _inner(eqn: JaxprEqn, values: list[Value]) -> tuple[Jaxpr, list[Value]] | None:
    """The program inside an equation that only calls one: jit, remat, custom derivatives; of a
    `cond` the branch with the most MACs; of a `while`, whose turns nobody knows, one turn.
    """
    params = eqn.params
    if eqn.primitive.name == "cond":
        return max((b.jaxpr for b in params["branches"]), key=_all_macs), values[1:]
    if eqn.primitive.name == "while":
        return params["body_jaxpr"].jaxpr, values[params["cond_nconsts"] :]
    shapes = [*map(receptive.shape_of, eqn.invars)]
    for jaxpr in _programs(eqn):
        if [receptive.shape_of(v) for v in jaxpr.invars] == shapes:
            return jaxpr, values
    return None


def _programs(eqn: JaxprEqn) -> list[Jaxpr]:
    found = []
    for parameter in eqn.params.values():
        for each in parameter if isinstance(parameter, tuple) else (parameter,):
            jaxpr = getattr(each, "jaxpr", each)
            if isinstance(jaxpr, Jaxpr):
                found.append(jaxpr)
    return found


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """All of a program, also those inside of others; the turns of a loop once."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in _programs(eqn):
            yield from equations(inner)


def _all_macs(jaxpr: Jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        row = layers.read(eqn, [Value()] * len(eqn.invars))
        inside = sum(map(_all_macs, _programs(eqn)))
        total += row.macs if row is not None else inside * eqn.params.get("length", 1)
    return total
