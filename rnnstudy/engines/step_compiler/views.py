"""Views of rows: the operations of a step that compute nothing, such as permuting, slicing and reshaping."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch.fx import Node

from rnnstudy.engines.step_compiler.rows import Operand, Row, Value, contiguous, squeezed
from rnnstudy.engines.step_compiler.trace import UntraceableError

MIXES = "its step mixes the sequences of a batch"


def sliced(row: Row, axis: int, first: int, last: int) -> Row:
    """The numbers of one axis from `first` to `last` (exclusive)."""
    sizes = (*row.sizes[:axis], last - first, *row.sizes[axis + 1 :])
    return Row(row.source, row.offset + first * row.strides[axis], sizes, row.strides, row.axis)


def _view(node: Node, row: Row, *_: Any) -> Row:
    sizes = tuple(node.meta["val"].shape)
    axis = sizes.index(row.sizes[row.axis])
    if math.prod(row.sizes[: row.axis]) != 1 or math.prod(sizes[:axis]) != 1:
        raise UntraceableError(MIXES)
    if isinstance(row.source, float):
        return Row(row.source, 0, sizes, (0,) * len(sizes), axis)
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


def _permute(node: Node, row: Row, order: Sequence[int]) -> Row:
    order = [axis % len(row.sizes) for axis in order]
    sizes, strides = (tuple(one[axis] for axis in order) for one in (row.sizes, row.strides))
    return Row(row.source, row.offset, sizes, strides, order.index(row.axis))


def _expand(node: Node, row: Row, *_: Any) -> Row:
    sizes = tuple(node.meta["val"].shape)
    shift = len(sizes) - len(row.sizes)
    strides = tuple(
        row.strides[i - shift] if i >= shift and row.sizes[i - shift] == size else 0 for i, size in enumerate(sizes)
    )
    return Row(row.source, row.offset, sizes, strides, row.axis + shift)


def _unsqueeze(node: Node, row: Row, axis: int) -> Row:
    axis %= len(row.sizes) + 1
    sizes, strides = ((*one[:axis], new, *one[axis:]) for one, new in ((row.sizes, 1), (row.strides, 0)))
    return Row(row.source, row.offset, sizes, strides, row.axis + (axis <= row.axis))


def _squeeze(node: Node, row: Row, axes: Any = None) -> Row:
    chosen = range(len(row.sizes)) if axes is None else [axes] if isinstance(axes, int) else axes
    gone = {axis % len(row.sizes) for axis in chosen}
    kept = [i for i, size in enumerate(row.sizes) if i not in gone or size != 1]
    sizes, strides = (tuple(one[i] for i in kept) for one in (row.sizes, row.strides))
    return Row(row.source, row.offset, sizes, strides, kept.index(row.axis))


def _slice(node: Node, row: Row, axis: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Row:
    axis %= len(row.sizes)
    first, last, _ = slice(start, end).indices(row.sizes[axis])
    if axis == row.axis and (first, last) != (0, row.sizes[axis]):
        raise UntraceableError(MIXES)
    if step != 1:
        raise UntraceableError(f"its step uses {node.target} in a way for which there is no code")
    return sliced(row, axis, first, last)


def _select(node: Node, row: Row, axis: int, index: int) -> Row:
    axis, index = axis % len(row.sizes), index % row.sizes[axis]
    if axis == row.axis:
        raise UntraceableError(MIXES)
    sizes, strides = ((*one[:axis], *one[axis + 1 :]) for one in (row.sizes, row.strides))
    return Row(row.source, row.offset + index * row.strides[axis], sizes, strides, row.axis - (axis < row.axis))


def _split(node: Node, row: Row, lengths: Any, axis: int = 0) -> list[Row]:
    axis %= len(row.sizes)
    if axis == row.axis:
        raise UntraceableError(MIXES)
    ends = [value.shape[axis] for value in node.meta["val"]]
    begins = [sum(ends[:i]) for i in range(len(ends))]
    return [sliced(row, axis, begin, begin + length) for begin, length in zip(begins, ends, strict=True)]


VIEWS: dict[str, Callable[..., Any]] = {
    "view": _view, "reshape": _view, "_unsafe_view": _view, "permute": _permute, "expand": _expand,
    "unsqueeze": _unsqueeze, "squeeze": _squeeze, "slice": _slice, "select": _select, "split_with_sizes": _split,
    "split": _split,
}  # fmt: skip
"""By name: the row, or the rows, that an operation makes of a node, a row, and its other arguments."""
