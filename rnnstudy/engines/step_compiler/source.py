"""C code for one step of a cell forward, and for one step back, from the values that the step computes.

The operations on single numbers are put into loops over the numbers of a row, as many as possible into one loop;
between the loops stand products with matrices and sums. What a later loop or a product reads is kept in memory.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch.fx import Node

from rnnstudy.engines.step_compiler.prelude import LANES
from rnnstudy.engines.step_compiler.rows import POINTWISE, Operand, Row, Value, contiguous
from rnnstudy.engines.step_compiler.trace import UntraceableError


def padded(size: int) -> int:
    """`size` rounded up to whole vectors."""
    return -(-size // LANES) * LANES


@dataclass(frozen=True)
class Place:
    """Where a row's numbers lie: an array, by the name of a pointer to the row, and an offset.

    `room` is how many numbers may be read or written from there, with the padding.
    """

    array: str
    offset: int
    room: int


@dataclass
class Constants:
    """What a step reads that is the same for all sequences, in the order in which the kernels take it.

    Attributes:
        items: node, and how it lies: "numbers", "matrix", or "transposed", the last two with padded columns.
    """

    items: list[tuple[Node, str]] = field(default_factory=list)

    def name(self, node: Node, how: str) -> str:
        if (node, how) not in self.items:
            self.items.append((node, how))
        return f"c{self.items.index((node, how))}"


Stores = Mapping[int, Sequence[tuple[Place, tuple[int, ...]]]]
"""Of values by `id`: the places that they are written to, with strides."""


class Program:
    """The loops and products that compute some values, given where others lie."""

    def __init__(self, known: Mapping[int, Place], constants: Constants, strides: Mapping[str, str]) -> None:
        """`known`: where values lie by `id`; `strides`: of each array, how far it is from one row to the next, in C."""
        self._known = dict(known)
        self._constants = constants
        self._strides = strides
        self._targets: list[tuple[Value, Place, tuple[int, ...]]] = []
        self._places: dict[int, Place] = {}
        self._order: list[Value] = []
        self._level: dict[int, int] = {}
        self.scratch = 0
        """Numbers of the array `w` in a row."""

    def compute(self, row: Row, place: Place) -> None:
        """Write a row to a place, number after number."""
        operand = row.operand()
        source = operand.source
        if isinstance(source, Value) and operand.whole(source.shape) and self._unplaced(source):
            if place.room >= padded(source.size) and (source.pointwise or source.operation == "products"):
                self._places[id(source)] = place
            else:
                self._targets.append((self._read_of(source), place, contiguous(source.shape)))
            self._visit(source)
            return
        copy = Value("copy", operand.shape, [operand])
        self._targets.append((copy, place, contiguous(operand.shape)))
        self._visit(copy)

    def _unplaced(self, value: Value) -> bool:
        return id(value) not in self._known and id(value) not in self._places

    def _read_of(self, value: Value) -> Value:
        """`value` itself where a loop computes it, else a copy of it."""
        if value.pointwise:
            return value
        copy = Value("copy", value.shape, [Operand(value, 0, contiguous(value.shape), value.shape)], value.truth)
        self._visit(copy)
        return copy

    def _visit(self, value: Value) -> None:
        if id(value) in self._known or value in self._order:
            return
        if value.operation == "input":
            raise UntraceableError(f"its step needs {value.name} where it is not at hand")
        for operand in value.operands:
            if isinstance(operand.source, Value):
                self._visit(operand.source)
        self._order.append(value)

    # Which loop computes what.

    def code(self) -> str:
        """The code; call it once, after all `compute`."""
        begins = self._beginnings()
        in_memory = self._levels()
        for value in self._order:
            if (id(value) in in_memory or not value.pointwise) and id(value) not in self._places:
                room = padded(value.size)
                self._places[id(value)] = Place("w", self.scratch, room)
                self.scratch += room
        stores: dict[int, list[tuple[Place, tuple[int, ...]]]] = {}
        for value, place, strides in self._targets:
            stores.setdefault(id(value), []).append((place, strides))
        for value in self._order:
            if value.pointwise and id(value) in self._places:
                stores.setdefault(id(value), []).append((self._places[id(value)], contiguous(value.shape)))
            if value.operation == "joined":
                whole = self._places[id(value)]
                for operand, offset, strides in zip(value.operands, value.offsets, value.places, strict=True):
                    part = Place(whole.array, whole.offset + offset, 0)
                    stores.setdefault(id(operand.source), []).append((part, strides))
        for value, copy in begins:
            stores.setdefault(id(copy), []).append((self._places[id(value)], contiguous(value.shape)))
        lines: list[str] = []
        for level in range(max(self._level.values(), default=0) + 1):
            own = [value for value in self._order if self._level[id(value)] == level]
            loops: dict[tuple[int, ...], list[Value]] = {}
            for value in own:
                if value.pointwise:
                    loops.setdefault(value.shape, []).append(value)
            for shape, values in loops.items():
                lines += self._loop(shape, values, stores)
            for value in own:
                if not value.pointwise and value.operation != "joined":
                    lines += {"products": self._products, "reduce": self._reduce, "pairs": self._pairs}[
                        value.operation
                    ](value)
        return "\n".join(lines)

    def _beginnings(self) -> list[tuple[Value, Value]]:
        """For each value made by products, the copy of what it begins with."""
        found = []
        for value in list(self._order):
            if value.operation == "products" and len(value.operands) > len(value.matrices):
                begin = Value("copy", value.shape, [value.operands[0]])
                self._order.insert(self._order.index(value), begin)
                value_begins = (value, begin)
                found.append(value_begins)
        self._begins = {id(value): begin for value, begin in found}
        return found

    def _levels(self) -> set[int]:
        """Give each value the number of its loop, and return the values that must lie in memory."""
        in_memory: set[int] = set()
        for value in self._order:
            level = 0
            for operand in self._read_operands(value):
                source = operand.source
                if not isinstance(source, Value) or id(source) in self._known:
                    continue
                below = self._level[id(source)]
                if not source.pointwise:
                    # A join is complete with the loops of its level, before the products; others are not.
                    early = source.operation == "joined" and not value.pointwise
                    level = max(level, below + (not early))
                elif value.pointwise and source.shape == value.shape and operand.whole(value.shape):
                    level = max(level, below)
                else:
                    in_memory.add(id(source))
                    level = max(level, below + value.pointwise)
            self._level[id(value)] = level
        # What another loop reads, though number by number.
        for value in self._order:
            for operand in self._read_operands(value):
                source = operand.source
                if not (isinstance(source, Value) and source.pointwise and value.pointwise):
                    continue
                if id(source) in self._level and self._level[id(source)] != self._level[id(value)]:
                    in_memory.add(id(source))
        return in_memory - {id(copy) for copy in self._begins.values()} - self._parts()

    def _parts(self) -> set[int]:
        """Copies that are written into a join and nowhere else."""
        return {id(one.source) for value in self._order if value.operation == "joined" for one in value.operands}

    def _read_operands(self, value: Value) -> list[Operand]:
        if id(value) in self._begins:
            begin = self._begins[id(value)]
            return [Operand(begin, 0, contiguous(begin.shape), begin.shape), *value.operands[1:]]
        return value.operands

    # The code of each kind.

    def _place_of(self, value: Value) -> Place:
        found = self._known.get(id(value)) or self._places.get(id(value))
        assert found is not None, value
        return found

    def _loop(self, shape: tuple[int, ...], values: Sequence[Value], stores: Stores) -> list[str]:
        """One loop over the numbers of a row, for all rows."""
        own = {id(value): f"v{index}" for index, value in enumerate(values)}
        loads: dict[str, str] = {}
        whole = len(shape) == 1
        arrays: set[str] = set()

        def read(operand: Operand, truth: bool) -> str:
            nonlocal whole
            source = operand.source
            if isinstance(source, float):
                return literal(source)
            if isinstance(source, Value) and id(source) in own and operand.whole(shape):
                return own[id(source)]
            if isinstance(source, Value):
                place = self._place_of(source)
                at, array, room = place.offset + operand.offset, place.array, place.room - operand.offset
                arrays.add(array)
            else:
                array, at = self._constants.name(source, "numbers"), operand.offset
                room = 0 if operand.offset else padded(shape[0] if shape else 1)
            moves = any(operand.strides)
            whole = whole and (not moves or (operand.strides == (1,) and room >= padded(shape[0])))
            text = f"{array}[{index_text(at, operand.strides)}]"
            if text not in loads:
                loads[text] = f"x{len(loads)}"
            return f"({loads[text]} != 0.0f)" if truth and isinstance(source, Value) and source.truth else loads[text]

        body = []
        for value in values:
            texts = [read(operand, True) for operand in value.operands]
            kind = "int" if value.truth else "float"
            body.append(f"const {kind} {own[id(value)]} = {POINTWISE[value.operation].format(*texts)};")
        for value in values:
            for place, strides in stores.get(id(value), ()):
                arrays.add(place.array)
                whole = whole and strides == (1,) and place.room >= padded(shape[0])
                body.append(f"{place.array}[{index_text(place.offset, strides)}] = {own[id(value)]};")
        fetched = [f"const float {name} = {text};" for text, name in loads.items()]
        return self._nest(arrays, shape, padded(shape[0]) if whole else None, [*fetched, *body])

    def _nest(self, arrays: set[str], shape: Sequence[int], end: int | None, body: Sequence[str]) -> list[str]:
        pointers = [f"float *{one} = {one}_rows + b * {self._strides[one]};" for one in sorted(arrays)]
        lines = ["for (long b = 0; b < rows; b++) {", *pointers]
        for axis, size in enumerate(shape):
            if axis == len(shape) - 1:
                lines.append("INDEPENDENT")
            lines.append(f"for (long i{axis} = 0; i{axis} < {end or size}; i{axis}++) {{")
        return [*lines, *(body if shape else ["{", *body, "}"]), "}" * (len(shape) + 1)]

    def _products(self, value: Value) -> list[str]:
        place = self._place_of(value)
        lines = []
        if id(value) not in self._begins:
            fill = [f"{place.array}[{index_text(place.offset, (1,))}] = 0.0f;"]
            lines += self._nest({place.array}, (padded(value.size),), None, fill)
        for operand, (constant, flipped) in zip(value.operands[-len(value.matrices) :], value.matrices, strict=True):
            assert isinstance(operand.source, Value)
            left = self._place_of(operand.source)
            matrix = self._constants.name(constant, "transposed" if flipped else "matrix")
            depth = operand.shape[0] if operand.shape else 1
            lines.append(
                f"add_product(rows, {depth}, {left.array}_rows + {left.offset + operand.offset}, "
                f"{self._strides[left.array]}, {matrix}, {padded(value.size)}, {place.array}_rows + {place.offset}, "
                f"{self._strides[place.array]});"
            )
        return lines

    def _sums(self, value: Value, begin: str, term: Callable[[list[str]], str], end: str) -> list[str]:
        """A loop over `shape`, inside of it one over `extents`."""
        place, [*operands] = self._place_of(value), value.operands
        arrays, texts = {place.array}, []
        for operand in operands:
            if isinstance(operand.source, float):
                texts.append(literal(operand.source))
                continue
            assert isinstance(operand.source, Value)
            source = self._place_of(operand.source)
            arrays.add(source.array)
            texts.append(f"{source.array}[{index_text(source.offset + operand.offset, operand.strides)}]")
        outer = len(value.shape)
        pointers = [f"float *{one} = {one}_rows + b * {self._strides[one]};" for one in sorted(arrays)]
        lines = ["for (long b = 0; b < rows; b++) {", *pointers]
        lines += [f"for (long i{axis} = 0; i{axis} < {size}; i{axis}++) {{" for axis, size in enumerate(value.shape)]
        lines.append(f"{{ float total = {begin};")
        lines += [f"for (long i{n} = 0; i{n} < {size}; i{n}++)" for n, size in enumerate(value.extents, start=outer)]
        lines.append(f"{{ {term(texts)} }}")
        lines.append(f"{place.array}[{index_text(place.offset, contiguous(value.shape))}] = {end}; }}")
        return [*lines, "}" * (outer + 1)]

    def _reduce(self, value: Value) -> list[str]:
        count = 1
        for extent in value.extents:
            count *= extent
        if value.name in ("sum", "mean"):
            return self._sums(
                value, "0.0f", lambda texts: f"total += {texts[0]};",
                f"total / {literal(float(count))}" if value.name == "mean" else "total",
            )  # fmt: skip
        sign, begin = (">", "-INFINITY") if value.name == "amax" else ("<", "INFINITY")
        term = f"total = one != one || one {sign} total ? one : total;"
        return self._sums(value, begin, lambda texts: f"float one = {texts[0]}; {term}", "total")

    def _pairs(self, value: Value) -> list[str]:
        return self._sums(value, "0.0f", lambda texts: f"total += {texts[0]} * {texts[1]};", "total")


def literal(number: float) -> str:
    """A number in C."""
    if number != number:
        return "NAN"
    if number in (float("inf"), float("-inf")):
        return "INFINITY" if number > 0 else "-INFINITY"
    return f"({number!r}f)"


def index_text(offset: int, strides: Sequence[int]) -> str:
    """offset + Σ stride · i_axis, in C."""
    terms = [str(offset)] if offset or not any(strides) else []
    terms += [f"i{axis}" if stride == 1 else f"{stride} * i{axis}" for axis, stride in enumerate(strides) if stride]
    return " + ".join(terms)
