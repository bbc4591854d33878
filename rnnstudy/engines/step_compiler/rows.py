"""What a traced step computes for each sequence, as values that lie in memory one after another and views of them.

A `Value` is what one operation computes: numbers without the batch axis, in the order of its other axes. A `Row` is a
view of one, as an operation reads it: permuting, slicing and reshaping take no time.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch.fx import Node

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
    ("add", "sub", "mul", "neg", "abs", "relu", "copy", "sign", "maximum", "minimum", "where", "square", "cube", "eq",
     "ne", "gt", "ge", "lt", "le", "logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or",
     "bitwise_not")
)  # fmt: skip
"""Those that the backward pass computes again instead of reading what the forward pass kept."""

TRUTHS = frozenset(
    ("eq", "ne", "gt", "ge", "lt", "le", "logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or",
     "bitwise_not")
)  # fmt: skip
"""Those whose result is true or false."""

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


def whole_row(value: Value) -> Row:
    """All of a value, as a row of a batch."""
    return Row(value, 0, (1, *value.shape), (0, *contiguous(value.shape)), 0)


def blank_row(size: int) -> Row:
    """Zeros."""
    return Row(0.0, 0, (1, size), (0, 0), 0)


def is_whole(row: Row) -> bool:
    """Whether a row is a whole value, number by number."""
    return isinstance(row.source, Value) and row.operand().whole(row.source.shape)


def flat(row: Row) -> Row:
    """A row with its numbers in one axis, as a sum over the batch reads it."""
    operand = row.operand()
    if len(operand.shape) < 2:
        return row
    if operand.strides == contiguous(operand.shape):
        return Row(row.source, row.offset, (1, row.operand_size), (0, 1), 0)
    return whole_row(Value("copy", operand.shape, [operand]))


def name_of(node: Node) -> str:
    """`add` for aten.add.Tensor."""
    if node.target is operator.getitem:
        return "getitem"
    return str(node.target).split(".")[1] if str(node.target).startswith("aten.") else str(node.target)
