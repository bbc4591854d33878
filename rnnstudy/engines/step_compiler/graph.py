"""From the graph of a traced step to the values that it computes for each sequence."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from rnnstudy.engines.step_compiler.rows import (
    POINTWISE,
    POWERS,
    SAME,
    TRUTHS,
    Operand,
    Row,
    Value,
    contiguous,
    name_of,
    squeezed,
)
from rnnstudy.engines.step_compiler.trace import TracedStep, UntraceableError, is_item
from rnnstudy.engines.step_compiler.views import VIEWS, sliced

REDUCTIONS = ("sum", "mean", "amax", "amin")


class RowGraph:
    """All values of a traced step that belong to single sequences. Raises `UntraceableError` for what has no code."""

    def __init__(self, step: TracedStep) -> None:
        self.step = step
        self.rows: dict[Node, Row | list[Row]] = {}
        for node in step.module.graph.nodes:
            if node.op != "output" and step.kinds[node] == "ROW":
                self._add(node)
        self._fold_sums_into_products()

    def row(self, node: Node) -> Row:
        """The row of a node with one result."""
        found = self.rows[node]
        assert isinstance(found, Row)
        return found

    def result(self, node: Node) -> Row:
        """The row of a result: also of one that no input of the step changes."""
        if node in self.rows:
            return self.row(node)
        raise UntraceableError("its step returns something that is the same for all sequences")

    # From a node to its row.

    def _add(self, node: Node) -> None:
        if node.op == "placeholder":
            kind = self._input(node)
            self.rows[node] = self._whole(node, Value("input", self._shape(node), name=kind))
            return
        name, arguments = name_of(node), list(node.args)
        self._require_floats(node)
        if is_item(node):
            several = self.rows[arguments[0]]  # type: ignore[index]
            assert isinstance(several, list)
            self.rows[node] = several[arguments[1]]  # type: ignore[index]
        elif name in SAME:
            self.rows[node] = self.row(arguments[0])  # type: ignore[arg-type]
        elif name == "copy_":
            self.rows[node] = self.rows[arguments[0]] = self._read(arguments[1], node)  # type: ignore[index]
        elif name.endswith("_") and not name.endswith("__"):
            self.rows[node] = self.rows[arguments[0]] = self._computed(node, name[:-1], arguments)  # type: ignore[index]
        elif name in VIEWS:
            self.rows[node] = VIEWS[name](node, self.row(arguments[0]), *arguments[1:])  # type: ignore[arg-type]
        else:
            self.rows[node] = self._computed(node, name, arguments)

    def _input(self, node: Node) -> str:
        step = self.step
        if node is step.read:
            return "read"
        for kind, nodes in (("before", step.before), ("arriving", step.arriving)):
            for state, one in nodes.items():
                if one is node:
                    return f"{kind} {state}"
        raise AssertionError(node)

    def _require_floats(self, node: Node) -> None:
        value = node.meta["val"]
        for one in value if isinstance(value, tuple | list) else [value]:
            if one.dtype not in (torch.float32, torch.bool, torch.int64):
                raise UntraceableError(f"its step computes in {str(one.dtype).removeprefix('torch.')}")

    def _axis(self, node: Node) -> int:
        return list(node.meta["val"].shape).index(self.step.batch)

    def _shape(self, node: Node) -> tuple[int, ...]:
        axis = self._axis(node)
        return squeezed([size for i, size in enumerate(node.meta["val"].shape) if i != axis])

    def _whole(self, node: Node, value: Value | float) -> Row:
        """The row of a node that is all of a value."""
        sizes, axis = tuple(node.meta["val"].shape), self._axis(node)
        inner = iter(contiguous([size for i, size in enumerate(sizes) if i != axis]))
        strides = tuple(0 if i == axis or isinstance(value, float) else next(inner) for i in range(len(sizes)))
        return Row(value, 0, sizes, strides, axis)

    def _read(self, argument: Any, node: Node) -> Row:
        """`argument` as a row with the axes of `node`: copied unless it has them already."""
        if isinstance(argument, Node) and argument in self.rows:
            row = self.row(argument)
            if row.sizes == tuple(node.meta["val"].shape):
                return row
        return self._pointwise(node, "copy", [argument])

    def _computed(self, node: Node, name: str, arguments: list[Any]) -> Row:
        options = dict(node.kwargs)
        if name in ("full_like", "zeros_like", "ones_like", "empty_permuted", "empty_like", "new_zeros", "new_full"):
            fill = {"full_like": arguments[1:2], "ones_like": [1.0], "new_full": arguments[2:3]}.get(name, [0.0])
            return self._whole(node, float(fill[0]))
        if name in ("add", "sub", "rsub") and options.get("alpha", 1) != 1:
            scaled = self._pointwise(node, "mul", [arguments[1], options["alpha"]], arguments[1])
            arguments = [arguments[0], scaled]
        if name == "rsub":
            name, arguments = "sub", [arguments[1], arguments[0]]
        if name == "pow" and isinstance(arguments[1], int | float) and float(arguments[1]) in POWERS:
            name, arguments = POWERS[float(arguments[1])], arguments[:1]
        if name == "clamp":
            lower, upper = (*arguments[1:], None, None)[:2]
            row: Any = arguments[0]
            for bound, how in ((options.get("min", lower), "maximum"), (options.get("max", upper), "minimum")):
                row = row if bound is None else self._pointwise(node, how, [row, bound])
            return row if isinstance(row, Row) else self._read(row, node)
        if name in ("clamp_min", "clamp_max"):
            name = {"clamp_min": "maximum", "clamp_max": "minimum"}[name]
        if name in ("bmm", "mm"):
            return self._product(node, *arguments)
        if name in REDUCTIONS:
            return self._reduced(node, name, *arguments)
        if name == "cat":
            return self._joined(node, *arguments)
        if name == "slice_scatter":
            return self._scattered(node, *arguments)
        if name == "constant_pad_nd":
            return self._padded(node, *arguments)
        if name == "sgn":
            name = "sign"
        if name not in POINTWISE or (name in ("div",) and options.get("rounding_mode")):
            raise UntraceableError(f"its step uses {node.target}, for which there is no code")
        return self._pointwise(node, name, arguments)

    def _pointwise(self, node: Node, name: str, arguments: Sequence[Any], like: Any = None) -> Row:
        """The row of a value with the axes of `node`, or of the node `like`."""
        like = like if isinstance(like, Node) and self.step.kinds[like] == "ROW" else node
        sizes, axis = tuple(like.meta["val"].shape), self._axis(like)
        operands = [self._broadcast(one, sizes, axis) for one in arguments]
        truth = name in TRUTHS or (name in ("copy", "where") and like.meta["val"].dtype == torch.bool)
        return self._whole(like, Value(name, self._shape(like), operands, truth))

    def _broadcast(self, argument: Any, sizes: tuple[int, ...], axis: int) -> Operand:
        """What an operation whose result has these axes reads at each place."""
        inner = [i for i, size in enumerate(sizes) if i != axis and size != 1]
        if isinstance(argument, bool | int | float):
            return Operand(float(argument))
        if isinstance(argument, Node) and argument not in self.rows:
            fill = _fill(argument)
            if fill is not None:
                return Operand(fill)
            own = tuple(argument.meta["val"].shape)
            if self.step.batch in own:
                raise UntraceableError("its step uses a constant for each sequence of a batch")
            if argument.meta["val"].dtype not in (torch.float32, torch.bool, torch.int64):
                raise UntraceableError(f"its step reads constants of {argument.meta['val'].dtype}")
            strides = contiguous(own)
            source: Any = argument
            offset = 0
        else:
            row = argument if isinstance(argument, Row) else self.row(argument)
            own, strides, source, offset = row.sizes, row.strides, row.source, row.offset
            if isinstance(source, float):
                return Operand(source)
            if row.axis + len(sizes) - len(own) != axis:
                raise UntraceableError("its step mixes the sequences of a batch")
        shift = len(sizes) - len(own)
        found = tuple(strides[i - shift] if i >= shift and own[i - shift] != 1 else 0 for i in inner)
        return Operand(source, offset, found, tuple(sizes[i] for i in inner))

    # Products, sums and joins.

    def _product(self, node: Node, left: Node, right: Node) -> Row:
        kinds = [self.step.kinds[one] for one in (left, right)]
        if kinds == ["ROW", "ROW"]:
            return self._pairs(node, self.row(left), self.row(right))
        constant, row, flipped = (right, self.row(left), False) if kinds[0] == "ROW" else (left, self.row(right), True)
        matrix = tuple(constant.meta["val"].shape)
        # The batch must be the free axis of the row: rows · matrix, or matrix · columns.
        if (
            self.step.batch in matrix
            or row.axis != len(row.sizes) - (1 if flipped else 2)
            or matrix[:-2] not in ((), (1,))
        ):
            raise UntraceableError(f"its step uses {node.target} in a way for which there is no code")
        # Between two axes of which one is the batch lies the one that is summed over.
        operand = row.operand()
        depth = matrix[-1] if flipped else matrix[-2]
        if (
            operand.shape != squeezed([depth])
            or (operand.shape and operand.strides != (1,))
            or isinstance(operand.source, float)
        ):
            copy = Value("copy", squeezed([depth]), [operand])
            operand = Operand(copy, 0, contiguous(copy.shape), copy.shape)
        value = Value("products", self._shape(node), [operand], matrices=[(constant, flipped)])
        return self._whole(node, value)

    def _pairs(self, node: Node, left: Row, right: Row) -> Row:
        """A product of two matrices of each sequence."""
        if left.axis != 0 or right.axis != 0 or len(left.sizes) != 3:
            raise UntraceableError(f"its step uses {node.target} in a way for which there is no code")
        sizes = tuple(node.meta["val"].shape)
        inner = [axis for axis in (1, 2) if sizes[axis] != 1]
        of_left = tuple(left.strides[1] if axis == 1 else 0 for axis in inner)
        of_right = tuple(right.strides[2] if axis == 2 else 0 for axis in inner)
        depth = left.sizes[2]
        operands = [
            Operand(left.source, left.offset, (*of_left, left.strides[2])),
            Operand(right.source, right.offset, (*of_right, right.strides[1])),
        ]
        return self._whole(node, Value("pairs", self._shape(node), operands, extents=(depth,)))

    def _reduced(self, node: Node, name: str, argument: Node, axes: Any = None, *_: Any) -> Row:
        row = self.row(argument)
        axes = range(len(row.sizes)) if axes is None or axes == [] else axes if isinstance(axes, list) else [axes]
        over = {axis % len(row.sizes) for axis in axes}
        kept = [i for i, size in enumerate(row.sizes) if i not in over and i != row.axis and size != 1]
        summed = [i for i in sorted(over) if row.sizes[i] != 1]
        strides = tuple(row.strides[i] for i in (*kept, *summed))
        value = Value(
            "reduce", tuple(row.sizes[i] for i in kept), [Operand(row.source, row.offset, strides)],
            name=name, extents=tuple(row.sizes[i] for i in summed),
        )  # fmt: skip
        return self._whole(node, value)

    def _joined(self, node: Node, parts: Sequence[Node], axis: int = 0) -> Row:
        sizes = tuple(node.meta["val"].shape)
        axis %= len(sizes)
        found, begin = [], 0
        for part in parts:
            found.append((part, begin))
            begin += part.meta["val"].shape[axis]
        return self._of_parts(node, axis, [(part, begin, part.meta["val"].shape[axis]) for part, begin in found])

    def _scattered(
        self, node: Node, base: Any, part: Node, axis: int = 0, start: int | None = 0, end: Any = None, step: int = 1
    ) -> Row:
        sizes = tuple(node.meta["val"].shape)
        axis %= len(sizes)
        first, last, _ = slice(start, end).indices(sizes[axis])
        if step != 1 or axis == self._axis(node):
            raise UntraceableError(f"its step uses {node.target} in a way for which there is no code")
        whole = self._whole(node, fill) if (fill := _fill(base)) is not None else self.row(base)
        parts = [
            (sliced(whole, axis, 0, first), 0, first),
            (part, first, last - first),
            (sliced(whole, axis, last, sizes[axis]), last, sizes[axis] - last),
        ]
        return self._of_parts(node, axis, [one for one in parts if one[2] > 0])

    def _padded(self, node: Node, part: Node, widths: Sequence[int], fill: float = 0.0) -> Row:
        sizes = tuple(node.meta["val"].shape)
        if len(widths) != 2 or min(widths) < 0 or len(sizes) - 1 == self._axis(node):
            raise UntraceableError(f"its step uses {node.target} in a way for which there is no code")
        axis, (before, after) = len(sizes) - 1, widths
        blank = self._whole(node, float(fill))
        parts = [
            (sliced(blank, axis, 0, before), 0, before),
            (part, before, sizes[axis] - before - after),
            (sliced(blank, axis, 0, after), sizes[axis] - after, after),
        ]
        return self._of_parts(node, axis, [one for one in parts if one[2] > 0])

    def _of_parts(self, node: Node, axis: int, parts: Sequence[tuple[Node | Row, int, int]]) -> Row:
        sizes, batch = tuple(node.meta["val"].shape), self._axis(node)
        whole = self._whole(node, Value("joined", self._shape(node)))
        value = whole.source
        assert isinstance(value, Value)
        for part, begin, length in parts:
            own = (*sizes[:axis], length, *sizes[axis + 1 :])
            inner = [i for i, size in enumerate(own) if i != batch and size != 1]
            operand = self._broadcast(part, own, batch)
            copy = Value("copy", tuple(own[i] for i in inner), [operand])
            value.operands.append(Operand(copy, 0, contiguous(copy.shape), copy.shape))
            value.offsets.append(begin * whole.strides[axis])
            value.places.append(tuple(whole.strides[i] for i in inner))
        return whole

    # Where a sum is added to something, it begins with it.

    def values(self) -> list[Value]:
        """Every value, each after those that it reads."""
        found: dict[int, Value] = {}

        def visit(value: Value) -> None:
            if id(value) not in found:
                for operand in value.operands:
                    if isinstance(operand.source, Value):
                        visit(operand.source)
                found[id(value)] = value

        for rows in self.rows.values():
            for row in rows if isinstance(rows, list) else [rows]:
                if isinstance(row.source, Value):
                    visit(row.source)
        return list(found.values())

    def _fold_sums_into_products(self) -> None:
        """x + Σ a W becomes one value, whose first operand is x, unless the sum is used elsewhere too."""
        values = self.values()
        uses: dict[int, int] = {}
        for value in values:
            for operand in value.operands:
                uses[id(operand.source)] = uses.get(id(operand.source), 0) + 1
        for value in values:
            if value.operation != "add":
                continue
            for index in (1, 0):
                found = value.operands[index]
                source = found.source
                if (
                    isinstance(source, Value) and source.operation == "products" and found.whole(value.shape)
                    and uses[id(source)] == 1
                ):  # fmt: skip
                    other = value.operands[1 - index]
                    factors, matrices = source.operands[-len(source.matrices) :], source.matrices
                    begins = source.operands[: -len(source.matrices)]
                    if begins:
                        # It begins with something already: the sum of both.
                        begin = Value("add", value.shape, [begins[0], other])
                        other = Operand(begin, 0, contiguous(value.shape), value.shape)
                    value.operation, value.matrices, value.operands = "products", list(matrices), [other, *factors]
                    break


def _fill(node: Any) -> float | None:
    """The one number that fills a constant which the step itself makes; None where it is another constant."""
    if not isinstance(node, Node) or node.op != "call_function":
        return None
    name = name_of(node)
    if name in (*SAME, *VIEWS, "copy_"):
        return _fill(node.args[1 if name == "copy_" else 0])
    known = {"full": node.args[1:2], "full_like": node.args[1:2], "scalar_tensor": node.args[:1]}
    known |= {"ones": (1.0,), "ones_like": (1.0,)}
    # What is empty is written before it is read.
    number = known.get(name, (0.0,) if name.startswith(("zeros", "empty")) else ())
    return float(number[0]) if number and isinstance(number[0], bool | int | float) else None
