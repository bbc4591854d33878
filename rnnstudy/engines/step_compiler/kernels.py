"""The C file for a cell: its step over all time steps, forward and back, and how the arrays lie that it works on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch.fx import Node

from rnnstudy.engines.step_compiler.graph import RowGraph
from rnnstudy.engines.step_compiler.prelude import PRELUDE
from rnnstudy.engines.step_compiler.rows import (
    CHEAP,
    Operand,
    Row,
    Value,
    blank_row,
    flat,
    is_whole,
    name_of,
    whole_row,
)
from rnnstudy.engines.step_compiler.source import Constants, Place, Program, padded
from rnnstudy.engines.step_compiler.templates import BACKWARD, FORWARD, NORM
from rnnstudy.engines.step_compiler.trace import TracedStep, UntraceableError

MOST_TIMES = 16
"""How many times as many numbers as it keeps and reads, a step may write for the gradients of its parameters."""


@dataclass(frozen=True)
class Segment:
    """Where some numbers of a row lie: `size` numbers from `offset` on."""

    offset: int
    size: int


class Layout:
    """Segments of a row, each padded to whole vectors."""

    def __init__(self) -> None:
        self.size = 0

    def add(self, size: int) -> Segment:
        found = Segment(self.size, size)
        self.size += padded(size)
        return found


@dataclass(frozen=True)
class Factor:
    """One factor of a sum over sequences: an array, by the name of its pointer, and where it lies in the rows."""

    array: str
    segment: Segment


@dataclass(frozen=True)
class Sum:
    """A sum over all sequences and steps, of outer products or of rows.

    Attributes:
        node: the operation that sums over the sequences of one step.
        offset: where its numbers begin among the totals: rows padded to whole vectors.
        left: the factor whose numbers are rows of the sum; None where rows are summed.
    """

    node: Node
    offset: int
    left: Factor | None
    right: Factor


@dataclass
class StepKernels:
    """The source of a cell's kernels and what they take.

    Attributes:
        step: the traced step.
        output: the state that is the output.
        text: the C file.
        constants: what the kernels take beside arrays of rows.
        read: numbers of a row of x_t or p_t, with the padding.
        kept: numbers of a row that the forward pass keeps.
        totals: numbers of all sums.
        sums: how they lie.
    """

    step: TracedStep
    output: str
    text: str = ""
    constants: Constants = field(default_factory=Constants)
    read: int = 0
    kept: int = 0
    totals: int = 0
    sums: list[Sum] = field(default_factory=list)


def step_kernels(step: TracedStep, output: str) -> StepKernels:
    """The kernels of a traced step whose output state is `output`. Raises `UntraceableError` where there is no code."""
    return _Assembly(step, output).kernels


class _Assembly:
    def __init__(self, step: TracedStep, output: str) -> None:
        self.step, self.graph = step, RowGraph(step)
        self.kernels = StepKernels(step, output, read=padded(step.read.meta["val"].shape[-1]))
        self._memo: dict[int, bool] = {}
        self.kept, self.written, self.copied, carried = Layout(), Layout(), Layout(), Layout()
        self.states = {name: self.kept.add(self._size(node)) for name, node in step.before.items()}
        self.carried = {name: carried.add(self._size(node)) for name, node in step.arriving.items()}
        self.saved: dict[int, tuple[Value, Segment]] = {}
        self.out: dict[int, tuple[Row, Place]] = {}
        self.after = {name: self._row(node) for name, node in step.after.items()}
        self._after = {id(row.source): name for name, row in self.after.items() if is_whole(row)}
        self._choose_sums()
        self._choose_saved()
        self.kernels.kept = self.kept.size
        self.strides = {
            "prev": "KEPT", "now": "KEPT", "p": "READ", "w": "SCRATCH", "cur": "CARRIED", "nxt": "CARRIED",
            "out": "WRITTEN", "aux": "COPIED", "at": "READ",
        }  # fmt: skip
        forward, scratch_forward = self._forward()
        backward, scratch_backward, totals = self._backward()
        sizes = (
            f"KEPT = {self.kept.size}, READ = {self.kernels.read}, CARRIED = {carried.size}, "
            f"WRITTEN = {self.written.size}, COPIED = {self.copied.size}, TOTALS = {self.kernels.totals}, "
            f"WIDTH = {self.states[output].size}, OUTPUT = {self.states[output].offset}, "
            f"CARRIED_OUTPUT = {self.carried[output].offset}"
        )
        pointers = "\n".join(
            f"  const float *c{i} = constants[{i}]; (void)c{i};" for i in range(len(self.kernels.constants.items))
        )
        parts = self.carried.values()
        self.kernels.text = PRELUDE + f"enum {{ {sizes} }};\n" + FORWARD.format(
            constants=pointers, scratch=scratch_forward, body=forward
        ) + BACKWARD.format(
            constants=pointers, scratch=scratch_backward, body=backward, sums=self._sums_code(),
            squares=" + ".join(f"sum_of_squares(cur + {one.offset}, {one.size})" for one in parts),
            largest=_nested("fmaxf", [f"largest(cur + {one.offset}, {one.size})" for one in parts]),
            norms="\n".join(
                NORM.format(state=i, total=text, size=one.size)
                for i, (text, one) in enumerate(zip(totals, parts, strict=True)) if text
            ),
        )  # fmt: skip

    def _row(self, node: Node) -> Row:
        return self.graph.result(node)

    def _size(self, node: Node) -> int:
        """Numbers of each sequence."""
        return node.meta["val"].numel() // self.step.batch

    # What is kept, and what is written.

    def _choose_sums(self) -> None:
        """The sums over sequences, and where the rows lie that they are sums of."""
        step, totals = self.step, Layout()
        results = [*step.at_parameters.values(), *step.at_prepared.values()]
        for node in _first_sums(step, [node for node in results if node is not None]):
            left, right = self._factors(node)
            rows = 1 if left is None else left.operand().shape[0] if left.operand().shape else 1
            factors = (None if left is None else self._factor(left, 0), self._factor(right, padded(right.operand_size)))
            offset = totals.size
            totals.size += rows * padded(right.operand_size)
            self.kernels.sums.append(Sum(node, offset, *factors))
        self.kernels.totals = totals.size
        most = MOST_TIMES * (self.kept.size + self.kernels.read)
        if self.written.size + self.copied.size > most:
            raise UntraceableError("the gradients of its parameters would need too much memory at each step")

    def _factors(self, node: Node) -> tuple[Row | None, Row]:
        """The two factors of a product that is summed over the batch; or the row alone of which there is a sum."""
        name = name_of(node)
        if name == "sum" and len(node.all_input_nodes) == 1:
            return None, flat(self._row(node.all_input_nodes[0]))
        if name in ("bmm", "mm"):
            left, right = (
                (self._row(one) for one in node.all_input_nodes[:2])
                if len(node.all_input_nodes) == 2
                else ([self._row(node.all_input_nodes[0])] * 2)
            )
            last = len(left.sizes) - 1
            if left.axis == last and right.axis == last - 1 and left.sizes[:-2] in ((), (1,)):
                return left, right
        raise UntraceableError(f"its gradient uses {node.target} in a way for which there is no code")

    def _factor(self, row: Row, room: int) -> Factor:
        """Where a factor lies, with so much room; copied where it does not lie that way."""
        operand = row.operand()
        value = operand.source
        if isinstance(value, Value) and self._of_gradient(value):
            return self._write(row, "out", self.written)
        size = operand.shape[0] if operand.shape else 1
        if isinstance(value, Value) and len(operand.shape) < 2 and operand.strides in ((), (1,)):
            found = self._lies(value, operand)
            if found is not None and found[1] >= room:
                return Factor(found[0], Segment(found[2], size))
        return self._write(row, "aux", self.copied)

    def _lies(self, value: Value, operand: Operand) -> tuple[str, int, int] | None:
        """Array, room and offset of a value of the forward pass that is kept, or will be."""
        if value.name.startswith("before "):
            segment, array = self.states[value.name.removeprefix("before ")], "prev"
        elif value.name == "read":
            segment, array = Segment(0, self.kernels.read), "p"
        elif value.operation != "input" and operand.whole(value.shape):
            segment, array = self._save(value), "now"
        else:
            return None
        return array, padded(segment.size) - operand.offset, segment.offset + operand.offset

    def _write(self, row: Row, array: str, layout: Layout) -> Factor:
        key = id(row.source) if is_whole(row) else id(row)
        size = row.operand_size
        if key not in self.out:
            self.out[key] = (row, Place(array, layout.add(size).offset, padded(size)))
        return Factor(array, Segment(self.out[key][1].offset, size))

    def _save(self, value: Value) -> Segment:
        if id(value) in self._after:
            return self.states[self._after[id(value)]]
        if id(value) not in self.saved:
            self.saved[id(value)] = (value, self.kept.add(value.size))
        return self.saved[id(value)][1]

    def _choose_saved(self) -> None:
        """What the backward pass reads of the forward pass: all that is not computed again sooner than read."""
        seen: set[int] = set()

        def visit(value: Value) -> None:
            known = value.operation == "input" or id(value) in self._after or id(value) in self.saved
            if id(value) in seen or known:
                return
            seen.add(id(value))
            if not self._of_gradient(value) and value.operation not in CHEAP | {"joined"}:
                self._save(value)
                return
            for operand in value.operands:
                if isinstance(operand.source, Value):
                    visit(operand.source)

        nodes = [*self.step.at_before.values(), *self.step.totals.values(), self.step.at_read]
        rows = [self._row(node) for node in nodes if node is not None]
        for row in [*rows, *(row for row, _ in self.out.values())]:
            if isinstance(row.source, Value):
                visit(row.source)

    def _of_gradient(self, value: Value) -> bool:
        if id(value) not in self._memo:
            below = [one.source for one in value.operands if isinstance(one.source, Value)]
            self._memo[id(value)] = value.name.startswith("arriving ") or any(map(self._of_gradient, below))
        return self._memo[id(value)]

    # The two programs.

    def _known(self) -> dict[int, Place]:
        """Where the inputs of the forward step lie."""
        found = {}
        for name, node in self.step.before.items():
            segment = self.states[name]
            found[id(self._row(node).source)] = Place("prev", segment.offset, padded(segment.size))
        found[id(self._row(self.step.read).source)] = Place("p", 0, self.kernels.read)
        return found

    def _forward(self) -> tuple[str, int]:
        program = Program(self._known(), self.kernels.constants, self.strides)
        for name, row in self.after.items():
            segment = self.states[name]
            program.compute(row, Place("now", segment.offset, padded(segment.size)))
        for value, segment in self.saved.values():
            program.compute(whole_row(value), Place("now", segment.offset, padded(segment.size)))
        return program.code(), program.scratch

    def _backward(self) -> tuple[str, int, list[str]]:
        """The code, the scratch numbers that it needs, and for each state where its total derivative lies, in C."""
        known = self._known()
        for name, row in self.after.items():
            # A state that is passed on as it came is known by its place a step earlier already.
            if is_whole(row) and id(row.source) not in known:
                segment = self.states[name]
                known[id(row.source)] = Place("now", segment.offset, padded(segment.size))
        for value, segment in self.saved.values():
            known[id(value)] = Place("now", segment.offset, padded(segment.size))
        for name, node in self.step.arriving.items():
            segment = self.carried[name]
            known[id(self._row(node).source)] = Place("cur", segment.offset, padded(segment.size))
        program = Program(known, self.kernels.constants, self.strides)
        for name, node in self.step.at_before.items():
            segment = self.carried[name]
            row = blank_row(segment.size) if node is None else self._row(node)
            program.compute(row, Place("nxt", segment.offset, padded(segment.size)))
        for row, place in self.out.values():
            program.compute(row, place)
        if self.step.at_read is not None:
            program.compute(self._row(self.step.at_read), Place("at", 0, self.kernels.read))
        totals = []
        for node in self.step.totals.values():
            row = None if node is None else self._row(node)
            place = known.get(id(row.source)) if row is not None and is_whole(row) else None
            if place is None and row is not None:
                place = Place("w", program.scratch, padded(row.operand_size))
                program.scratch += place.room
                program.compute(row, place)
            totals.append(
                "" if place is None else f"{place.array}_rows + b * {self.strides[place.array]} + {place.offset}"
            )
        return program.code(), program.scratch, totals

    def _sums_code(self) -> str:
        lines = []
        for one in self.kernels.sums:
            g, columns = self._pointer(one.right), padded(one.right.segment.size)
            if one.left is None:
                lines.append(f"add_sum(count, rows, {g}, {columns}, totals + {one.offset});")
            else:
                left, a = one.left.segment.size, self._pointer(one.left)
                lines.append(f"add_outer(count, rows, {left}, {a}, {g}, {columns}, totals + {one.offset});")
        return "\n".join(lines)

    def _pointer(self, factor: Factor) -> str:
        """The pointer to the first row of a block of steps, from step to step, and from row to row."""
        stride = self.strides[factor.array]
        if factor.array in ("out", "aux"):
            return f"{factor.array}_block + {factor.segment.offset}, rows * {stride}, {stride}"
        return f"{factor.array}_rows + {factor.segment.offset}, batch * {stride}, {stride}"


def _first_sums(step: TracedStep, results: Sequence[Node]) -> list[Node]:
    """The operations that sum over the batch, of which all other sums are made."""
    found: dict[Node, None] = {}
    seen: set[Node] = set()

    def visit(node: Node) -> None:
        if node in seen or step.kinds[node] == "CONSTANT":
            return
        seen.add(node)
        if any(step.kinds[below] == "ROW" for below in node.all_input_nodes):
            found[node] = None
            return
        for below in node.all_input_nodes:
            visit(below)

    for node in results:
        visit(node)
    return list(found)


def _nested(function: str, arguments: Sequence[str]) -> str:
    """f(f(a, b), c)."""
    found = arguments[0]
    for one in arguments[1:]:
        found = f"{function}({found}, {one})"
    return found
