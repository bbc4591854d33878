"""What a traced step computes for each sequence, as values that lie in memory one after another and views of them.

A `Value` is what one operation computes: numbers without the batch axis, in the order of its other axes. A `Row` is a
view of one, as an operation reads it: permuting, slicing and reshaping take no time.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node

from rnnstudy.engines.step_trace import TracedStep, UntraceableError, is_item

POINTWISE: dict[str, str] = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}", "neg": "-{0}",
    "reciprocal": "1.0f / {0}", "abs": "fabsf({0})", "relu": "({0} < 0.0f ? 0.0f : {0})", "copy": "{0}",
    "sign": "(float)(({0} > 0.0f) - ({0} < 0.0f))", "sqrt": "sqrtf({0})", "rsqrt": "1.0f / sqrtf({0})",
    "exp": "exponential({0})", "expm1": "exponential_less_one({0})", "log": "logarithm({0})",
    "log1p": "logarithm_of_one_plus({0})", "tanh": "hyperbolic_tangent({0})", "sigmoid": "logistic({0})",
    "sin": "sinf({0})", "cos": "cosf({0})", "erf": "erff({0})", "atan": "atanf({0})", "pow": "powf({0}, {1})",
    "maximum": "({0} != {0} || {0} > {1} ? {0} : {1})", "minimum": "({0} != {0} || {0} < {1} ? {0} : {1})",
    "where": "({0} ? {1} : {2})", "square": "{0} * {0}", "cube": "{0} * {0} * {0}",
    "eq": "{0} == {1}", "ne": "{0} != {1}", "gt": "{0} > {1}", "ge": "{0} >= {1}", "lt": "{0} < {1}",
    "le": "{0} <= {1}", "logical_and": "{0} && {1}", "logical_or": "{0} || {1}", "logical_not": "!{0}",
    "bitwise_and": "{0} && {1}", "bitwise_or": "{0} || {1}", "bitwise_not": "!{0}",
}  # fmt: skip
"""The operations on single numbers, in C."""

CHEAP = frozenset(
    "add sub mul neg abs relu copy sign maximum minimum where square cube eq ne gt ge lt le logical_and logical_or "
    "logical_not bitwise_and bitwise_or bitwise_not".split()
)
"""Those that the backward pass computes again instead of reading what the forward pass kept."""

POWERS = {2.0: "square", 3.0: "cube", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal", 1.0: "copy"}

SAME = ("alias", "clone", "detach", "lift_fresh_copy", "contiguous", "_to_copy", "lift_fresh")
"""Operations whose result is their argument."""


@dataclass(eq=False)
class Value:
    """What one operation computes.

    Attributes:
        operation: a key of `POINTWISE`, or "input", "products", "reduce", "pairs" or "joined".
        shape: its axes without the batch and without those of length 1.
        operands: what it reads, each with one stride for each axis of `shape` (pointwise), or as it lies.
        truth: whether it is true or false.
        name: of an input, which one; of a "reduce", how.
        matrices: of "products", the constant that each operand is multiplied by, and whether it is transposed first.
        extents: of "reduce", the lengths of the summed axes, whose strides follow those of `shape`; of "pairs",
            the length of the axis that is summed over.
        offsets: of "joined", where each operand begins; its strides in the whole are in `places`.
    """

    operation: str
    shape: tuple[int, ...]
    operands: list["Operand"] = field(default_factory=list)
    truth: bool = False
    name: str = ""
    matrices: list[tuple[Node, bool]] = field(default_factory=list)
    extents: tuple[int, ...] = ()
    offsets: list[int] = field(default_factory=list)
    places: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def pointwise(self) -> bool:
        return self.operation in POINTWISE


@dataclass(frozen=True)
class Operand:
    """Something read by an operation: a number, a constant, or a value, from `offset` on with `strides`."""

    source: Value | Node | float
    offset: int = 0
    strides: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()

    def whole(self, shape: tuple[int, ...]) -> bool:
        """Whether it is a whole value of this shape, number by number."""
        return (
            isinstance(self.source, Value)
            and self.offset == 0
            and self.source.shape == shape
            and self.strides == contiguous(shape)
        )


@dataclass(frozen=True)
class Row:
    """A view of a value with all axes that torch sees, the batch among them.

    Attributes:
        sizes, strides: of every axis; the batch has stride 0.
        axis: which one is the batch.
    """

    source: Value | float
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    axis: int

    @property
    def operand_size(self) -> int:
        """Numbers of each sequence."""
        return math.prod(size for axis, size in enumerate(self.sizes) if axis != self.axis)

    def operand(self) -> Operand:
        """As it lies, without the batch and the axes of length 1."""
        kept = [i for i, size in enumerate(self.sizes) if i != self.axis and size != 1]
        shape = tuple(self.sizes[i] for i in kept)
        return Operand(self.source, self.offset, tuple(self.strides[i] for i in kept), shape)


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of numbers that lie one after another."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


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
            self.rows[node] = VIEWS[name](self, node, *arguments)
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
            if argument.meta["val"].dtype != torch.float32:
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
        if self.step.batch in matrix or row.axis != len(row.sizes) - (1 if flipped else 2) or matrix[:-2] not in ((), (1,)):
            raise UntraceableError(f"its step uses {node.target} in a way for which there is no code")
        # Between two axes of which one is the batch lies the one that is summed over.
        operand = row.operand()
        depth = matrix[-1] if flipped else matrix[-2]
        if operand.shape != squeezed([depth]) or (operand.shape and operand.strides != (1,)) or isinstance(
            operand.source, float
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
            (_sliced(whole, axis, 0, first), 0, first),
            (part, first, last - first),
            (_sliced(whole, axis, last, sizes[axis]), last, sizes[axis] - last),
        ]
        return self._of_parts(node, axis, [one for one in parts if one[2] > 0])

    def _padded(self, node: Node, part: Node, widths: Sequence[int], fill: float = 0.0) -> Row:
        sizes = tuple(node.meta["val"].shape)
        if len(widths) != 2 or min(widths) < 0 or len(sizes) - 1 == self._axis(node):
            raise UntraceableError(f"its step uses {node.target} in a way for which there is no code")
        axis, (before, after) = len(sizes) - 1, widths
        blank = self._whole(node, float(fill))
        parts = [
            (_sliced(blank, axis, 0, before), 0, before),
            (part, before, sizes[axis] - before - after),
            (_sliced(blank, axis, 0, after), sizes[axis] - after, after),
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

    # Views.

    def _view(self, node: Node, argument: Node, *_: Any) -> Row:
        row, sizes, axis = self.row(argument), tuple(node.meta["val"].shape), self._axis(node)
        if math.prod(row.sizes[: row.axis]) != 1 or math.prod(sizes[:axis]) != 1:
            raise UntraceableError("its step mixes the sequences of a batch")
        if isinstance(row.source, float):
            return self._whole(node, row.source)
        operand = row.operand()
        if operand.strides != contiguous(operand.shape):
            kept = squeezed([size for i, size in enumerate(sizes) if i != axis])
            if kept != operand.shape:
                copy = Value("copy", operand.shape, [operand])
                operand = Operand(copy, 0, contiguous(copy.shape), copy.shape)
            else:
                inner = iter(operand.strides)
                strides = tuple(0 if i == axis or size == 1 else next(inner) for i, size in enumerate(sizes))
                return Row(row.source, row.offset, sizes, strides, axis)
        inner = iter(contiguous([size for i, size in enumerate(sizes) if i != axis]))
        strides = tuple(0 if i == axis else next(inner) for i in range(len(sizes)))
        return Row(operand.source, operand.offset, sizes, strides, axis)  # type: ignore[arg-type]

    def _permute(self, node: Node, argument: Node, order: Sequence[int]) -> Row:
        row = self.row(argument)
        order = [axis % len(row.sizes) for axis in order]
        sizes, strides = (tuple(one[axis] for axis in order) for one in (row.sizes, row.strides))
        return Row(row.source, row.offset, sizes, strides, order.index(row.axis))

    def _expand(self, node: Node, argument: Node, *_: Any) -> Row:
        row, sizes = self.row(argument), tuple(node.meta["val"].shape)
        shift = len(sizes) - len(row.sizes)
        strides = tuple(
            row.strides[i - shift] if i >= shift and row.sizes[i - shift] == size else 0 for i, size in enumerate(sizes)
        )
        return Row(row.source, row.offset, sizes, strides, row.axis + shift)

    def _unsqueeze(self, node: Node, argument: Node, axis: int) -> Row:
        row = self.row(argument)
        axis %= len(row.sizes) + 1
        sizes, strides = (
            (*one[:axis], new, *one[axis:]) for one, new in ((row.sizes, 1), (row.strides, 0))
        )
        return Row(row.source, row.offset, sizes, strides, row.axis + (axis <= row.axis))

    def _squeeze(self, node: Node, argument: Node, axes: Any = None) -> Row:
        row = self.row(argument)
        chosen = range(len(row.sizes)) if axes is None else [axes] if isinstance(axes, int) else axes
        gone = {axis % len(row.sizes) for axis in chosen}
        kept = [i for i, size in enumerate(row.sizes) if i not in gone or size != 1]
        sizes, strides = (tuple(one[i] for i in kept) for one in (row.sizes, row.strides))
        return Row(row.source, row.offset, sizes, strides, kept.index(row.axis))

    def _slice(self, node: Node, argument: Node, axis: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Row:
        row = self.row(argument)
        axis %= len(row.sizes)
        first, last, _ = slice(start, end).indices(row.sizes[axis])
        if axis == row.axis and (first, last) != (0, row.sizes[axis]):
            raise UntraceableError("its step mixes the sequences of a batch")
        if step != 1:
            raise UntraceableError(f"its step uses {node.target} in a way for which there is no code")
        return _sliced(row, axis, first, last)

    def _select(self, node: Node, argument: Node, axis: int, index: int) -> Row:
        row = self.row(argument)
        axis, index = axis % len(row.sizes), index % row.sizes[axis]
        if axis == row.axis:
            raise UntraceableError("its step mixes the sequences of a batch")
        sizes, strides = ((*one[:axis], *one[axis + 1 :]) for one in (row.sizes, row.strides))
        return Row(row.source, row.offset + index * row.strides[axis], sizes, strides, row.axis - (axis < row.axis))

    def _split(self, node: Node, argument: Node, lengths: Any, axis: int = 0) -> list[Row]:
        row = self.row(argument)
        axis %= len(row.sizes)
        if axis == row.axis:
            raise UntraceableError("its step mixes the sequences of a batch")
        ends = [value.shape[axis] for value in node.meta["val"]]
        begins = [sum(ends[:i]) for i in range(len(ends))]
        return [_sliced(row, axis, begin, begin + length) for begin, length in zip(begins, ends, strict=True)]

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


def _sliced(row: Row, axis: int, first: int, last: int) -> Row:
    sizes = (*row.sizes[:axis], last - first, *row.sizes[axis + 1 :])
    return Row(row.source, row.offset + first * row.strides[axis], sizes, row.strides, row.axis)


def name_of(node: Node) -> str:
    """`add` for aten.add.Tensor."""
    if node.target is operator.getitem:
        return "getitem"
    return str(node.target).split(".")[1] if str(node.target).startswith("aten.") else str(node.target)


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


TRUTHS = frozenset(("eq", "ne", "gt", "ge", "lt", "le", "logical_and", "logical_or", "logical_not"))
TRUTHS |= {"bitwise_and", "bitwise_or", "bitwise_not"}
REDUCTIONS = ("sum", "mean", "amax", "amin")
VIEWS: dict[str, Callable[..., Any]] = {
    "view": RowGraph._view, "reshape": RowGraph._view, "_unsafe_view": RowGraph._view, "permute": RowGraph._permute,
    "expand": RowGraph._expand, "unsqueeze": RowGraph._unsqueeze, "squeeze": RowGraph._squeeze,
    "slice": RowGraph._slice, "select": RowGraph._select, "split_with_sizes": RowGraph._split, "split": RowGraph._split,
}  # fmt: skip
"""The operations that compute nothing."""
