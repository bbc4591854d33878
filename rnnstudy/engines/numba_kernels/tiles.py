"""Matrix products of small matrices, in tiles that stay in vector registers.

The libraries' products are made for large matrices: 20 x 50 times 50 x 50, the product of one time step, takes them
about twice as long. Here a tile of 4 rows by up to 4 vectors (3 on a processor with 16 vector registers, or 8 by 1) is
accumulated in registers over the whole depth. Plain loops compile to a load and a store for each multiplication;
hence the vector code, written out for LLVM.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import binding, ir
from numba import float32, int64, njit, types, void
from numba.core import cgutils
from numba.extending import intrinsic

from rnnstudy.engines.numba_kernels.compiling import kernel

LANES = 16 if binding.get_host_cpu_features().get("avx512f", False) else 8
"""Numbers in a vector register. Matrices that a product runs along are padded to whole vectors."""

MOST_ACROSS = 4 if LANES == 16 else 3
"""Vectors across a tile: its sums, a row of the weights and a factor stay in the 32 or 16 vector registers."""

VIEW, ROW = float32[:, :], float32[::1]
"""One type for all strides, so that each function is compiled once."""


def padded(width: int) -> int:
    """`width` rounded up to whole vectors."""
    return -(-width // LANES) * LANES


class Tile:
    """Writes the code for out[row : row + rows, column : column + vectors·LANES], whose sums stay in registers."""

    def __init__(self, builder: Any, out: Any, row: Any, column: Any, rows: int, vectors: int) -> None:
        self.builder, self.column = builder, column
        self.lines = [builder.add(row, row.type(r)) for r in range(rows)]
        self.vector = ir.VectorType(ir.FloatType(), LANES)
        self.across = range(vectors)
        self.targets = [self._vectors_from(self._place(out, line, column)) for line in self.lines]
        self.sums = [[cgutils.alloca_once(builder, self.vector) for _ in self.across] for _ in self.lines]

    def _place(self, array: Any, index: Any, inner: Any) -> Any:
        """Address of array[index, inner]."""
        builder, strides = self.builder, cgutils.unpack_tuple(self.builder, array.strides, 2)
        offset = builder.add(builder.mul(index, strides[0]), builder.mul(inner, strides[1]))
        return self._further(array.data, offset)

    def _further(self, address: Any, offset: Any) -> Any:
        byte = ir.IntType(8)
        return self.builder.gep(self.builder.bitcast(address, byte.as_pointer()), [offset], source_etype=byte)

    def _vectors_from(self, address: Any) -> list[Any]:
        """Addresses of the vectors across that begin there."""
        size = self.column.type(4 * LANES)
        places = [self._further(address, self.builder.mul(size, size.type(v))) for v in self.across]
        return [self.builder.bitcast(one, self.vector.as_pointer()) for one in places]

    def begin_with(self, rows: Sequence[Sequence[Any]]) -> None:
        """The sums begin as the vectors at these addresses."""
        for sums, addresses in zip(self.sums, rows, strict=True):
            for total, address in zip(sums, addresses, strict=True):
                self.builder.store(self.builder.load(address, align=4), total)

    def begin_with_row(self, array: Any) -> None:
        """The sums begin as array[column : …], the same for every row."""
        address = self._further(array.data, self.builder.mul(self.column, self.column.type(4)))
        self.begin_with([self._vectors_from(address)] * len(self.lines))

    def add(self, left: Any, right: Any) -> None:
        """sums += left[rows] right[:, columns], over the whole depth."""
        builder = self.builder
        zero, undefined = self.column.type(0), ir.Constant(self.vector, ir.Undefined)
        spread = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        depth = cgutils.unpack_tuple(builder, left.shape, 2)[1]
        step = cgutils.unpack_tuple(builder, left.strides, 2)[1]
        begins = [self._place(left, line, zero) for line in self.lines]
        with cgutils.for_range(builder, depth) as loop:
            places = self._vectors_from(self._place(right, loop.index, self.column))
            weights = [builder.load(one, align=4) for one in places]
            for begin, sums in zip(begins, self.sums, strict=True):
                address = self._further(begin, builder.mul(loop.index, step))
                number = builder.load(builder.bitcast(address, ir.FloatType().as_pointer()))
                factor = builder.insert_element(undefined, number, ir.IntType(32)(0))
                factor = builder.shuffle_vector(factor, undefined, spread)
                for weight, total in zip(weights, sums, strict=True):
                    product = builder.fmul(factor, weight, flags=["contract"])
                    builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)

    def finish(self) -> None:
        """The sums go to `out`."""
        for sums, addresses in zip(self.sums, self.targets, strict=True):
            for total, address in zip(sums, addresses, strict=True):
                self.builder.store(self.builder.load(total), address, align=4)


def _sizes(*kinds: Any) -> list[int] | None:
    """The numbers of rows and vectors, where they are known while compiling."""
    if not all(isinstance(kind, types.IntegerLiteral) for kind in kinds):
        return None
    return [kind.literal_value for kind in kinds]


def _arrays(context: Any, builder: Any, kinds: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    return [context.make_array(kind)(context, builder, value) for kind, value in zip(kinds, values, strict=True)]


def _add_tile(typing_context: Any, a: Any, w: Any, out: Any, row: Any, column: Any, rows: Any, vectors: Any) -> Any:
    """out[row : row + rows, column : column + vectors·LANES] += a[row : row + rows] w[:, same columns]."""
    sizes = _sizes(rows, vectors)
    if sizes is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right, result = _arrays(context, builder, signature.args[:3], arguments[:3])
        tile = Tile(builder, result, *arguments[3:5], *sizes)
        tile.begin_with(tile.targets)
        tile.add(left, right)
        tile.finish()
        return context.get_dummy_value()

    return types.void(a, w, out, row, column, rows, vectors), generate


def _set_tile(
    typing_context: Any, start: Any, a: Any, w: Any, b: Any, v: Any, out: Any, row: Any, column: Any, rows: Any,
    vectors: Any,
) -> Any:  # fmt: skip
    """out[row : row + rows, columns] = start[columns] + a[row : row + rows] w[:, columns] + b[…] v[…]."""
    sizes = _sizes(rows, vectors)
    if sizes is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, a, w, b, v, result = _arrays(context, builder, signature.args[:6], arguments[:6])
        tile = Tile(builder, result, *arguments[6:8], *sizes)
        tile.begin_with_row(first)
        tile.add(a, w)
        tile.add(b, v)
        tile.finish()
        return context.get_dummy_value()

    return types.void(start, a, w, b, v, out, row, column, rows, vectors), generate


_add: Any = intrinsic(prefer_literal=True)(_add_tile)
_set: Any = intrinsic(prefer_literal=True)(_set_tile)


def _many(vectors: int) -> int:
    """Rows of a tile: fewer sums than eight wait for each other."""
    return 8 if vectors == 1 else 4


def _adding(vectors: int) -> Any:
    """`add_product` down all rows, for so many vectors across."""
    many = _many(vectors)

    @kernel(void(VIEW, VIEW, VIEW, int64))
    def down(a, w, out, column):
        rows = a.shape[0]
        row = 0
        while row + many <= rows:
            _add(a, w, out, row, column, many, vectors)
            row += many
        while row + 2 <= rows:
            _add(a, w, out, row, column, 2, vectors)
            row += 2
        if row < rows:
            _add(a, w, out, row, column, 1, vectors)

    return down


def _setting(vectors: int) -> Any:
    """`set_products` down all rows, for so many vectors across."""
    many = _many(vectors)

    @kernel(void(ROW, VIEW, VIEW, VIEW, VIEW, VIEW, int64))
    def down(start, a, w, b, v, out, column):
        rows = a.shape[0]
        row = 0
        while row + many <= rows:
            _set(start, a, w, b, v, out, row, column, many, vectors)
            row += many
        while row + 2 <= rows:
            _set(start, a, w, b, v, out, row, column, 2, vectors)
            row += 2
        if row < rows:
            _set(start, a, w, b, v, out, row, column, 1, vectors)

    return down


_add_most, _add_two, _add_one = _adding(MOST_ACROSS), _adding(2), _adding(1)
_set_most, _set_two, _set_one = _setting(MOST_ACROSS), _setting(2), _setting(1)


@njit(nogil=True)
def _across(vectors):
    """How many of the `vectors` left the next tile spans."""
    # 4 vectors by threes would leave a single one, which takes as long as two.
    if vectors >= MOST_ACROSS and vectors != MOST_ACROSS + 1:
        return MOST_ACROSS
    return 2 if vectors >= 2 else 1


@kernel(void(VIEW, VIEW, VIEW))
def add_product(a, w, out):
    """out += a w, for a (row, depth) with any strides, and w (depth, column) and out (row, column) in whole vectors."""
    column = 0
    while column < w.shape[1]:
        across = _across((w.shape[1] - column) // LANES)
        if across == MOST_ACROSS:
            _add_most(a, w, out, column)
        elif across == 2:
            _add_two(a, w, out, column)
        else:
            _add_one(a, w, out, column)
        column += across * LANES


@kernel(void(ROW, VIEW, VIEW, VIEW, VIEW, VIEW))
def set_products(start, a, w, b, v, out):
    """out = start + a w + b v, `start` (column) the same for every row; otherwise as `add_product`."""
    column = 0
    while column < w.shape[1]:
        across = _across((w.shape[1] - column) // LANES)
        if across == MOST_ACROSS:
            _set_most(start, a, w, b, v, out, column)
        elif across == 2:
            _set_two(start, a, w, b, v, out, column)
        else:
            _set_one(start, a, w, b, v, out, column)
        column += across * LANES
