"""Products of small matrices, in tiles whose sums stay in vector registers.

Libraries are optimised for large matrices: 20 x 50 times 50 x 50, the product of one time step, takes them about twice
as long. Here a tile of 4 rows by up to 4 vectors (3 on a processor with 16 vector registers), or 8 by 1, is accumulated
in registers over the whole depth. Plain loops would compile to a load and a store for each multiplication; therefore
the vector code is generated explicitly for LLVM.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import binding, ir
from numba import float32, int64, njit, types, void
from numba.core import cgutils
from numba.extending import intrinsic

from rnnstudy.engines.numba_kernels.compiling import kernel

LANES = 16 if binding.get_host_cpu_features().get("avx512f", False) else 8
"""Numbers in a vector register. The columns of a product are padded to whole vectors."""

MOST_VECTORS = 4 if LANES == 16 else 3
"""The most vectors in a row of a tile: its sums, a row of the weights and a factor fit into 32 or 16 registers."""

VIEW, ROW = float32[:, :], float32[::1]
"""One type for all strides, so that each function is compiled only once."""


def padded(width: int) -> int:
    """`width` rounded up to whole vectors."""
    return -(-width // LANES) * LANES


class Tile:
    """Generates the code for out[row : row + rows, column : column + vectors·LANES], with its sums in registers."""

    def __init__(self, builder: Any, out: Any, row: Any, column: Any, rows: int, vectors: int) -> None:
        self.builder, self.column = builder, column
        self.lines = [builder.add(row, row.type(r)) for r in range(rows)]
        self.vector = ir.VectorType(ir.FloatType(), LANES)
        self.vectors = range(vectors)
        self.targets = [self._vector_addresses(self._address(out, line, column)) for line in self.lines]
        self.sums = [[cgutils.alloca_once(builder, self.vector) for _ in self.vectors] for _ in self.lines]

    def _address(self, array: Any, index: Any, inner: Any) -> Any:
        """Address of array[index, inner]."""
        builder, strides = self.builder, cgutils.unpack_tuple(self.builder, array.strides, 2)
        offset = builder.add(builder.mul(index, strides[0]), builder.mul(inner, strides[1]))
        return self._at_offset(array.data, offset)

    def _at_offset(self, address: Any, offset: Any) -> Any:
        byte = ir.IntType(8)
        return self.builder.gep(self.builder.bitcast(address, byte.as_pointer()), [offset], source_etype=byte)

    def _vector_addresses(self, address: Any) -> list[Any]:
        """Addresses of the vectors of a row that begins there."""
        size = self.column.type(4 * LANES)
        addresses = [self._at_offset(address, self.builder.mul(size, size.type(v))) for v in self.vectors]
        return [self.builder.bitcast(item, self.vector.as_pointer()) for item in addresses]

    def load_sums(self, rows: Sequence[Sequence[Any]]) -> None:
        """Initialise the sums with the vectors at these addresses."""
        for sums, addresses in zip(self.sums, rows, strict=True):
            for total, address in zip(sums, addresses, strict=True):
                self.builder.store(self.builder.load(address, align=4), total)

    def load_row(self, array: Any) -> None:
        """Initialise the sums with array[column : …], the same for every row."""
        address = self._at_offset(array.data, self.builder.mul(self.column, self.column.type(4)))
        self.load_sums([self._vector_addresses(address)] * len(self.lines))

    def add(self, left: Any, right: Any) -> None:
        """sums += left[rows] right[:, columns], over the whole depth."""
        builder = self.builder
        zero, undefined = self.column.type(0), ir.Constant(self.vector, ir.Undefined)
        spread = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        depth = cgutils.unpack_tuple(builder, left.shape, 2)[1]
        step = cgutils.unpack_tuple(builder, left.strides, 2)[1]
        begins = [self._address(left, line, zero) for line in self.lines]
        with cgutils.for_range(builder, depth) as loop:
            addresses = self._vector_addresses(self._address(right, loop.index, self.column))
            weights = [builder.load(address, align=4) for address in addresses]
            for begin, sums in zip(begins, self.sums, strict=True):
                address = self._at_offset(begin, builder.mul(loop.index, step))
                number = builder.load(builder.bitcast(address, ir.FloatType().as_pointer()))
                factor = builder.insert_element(undefined, number, ir.IntType(32)(0))
                factor = builder.shuffle_vector(factor, undefined, spread)
                for weight, total in zip(weights, sums, strict=True):
                    product = builder.fmul(factor, weight, flags=["contract"])
                    builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)

    def store_sums(self) -> None:
        """Write the sums to `out`."""
        for sums, addresses in zip(self.sums, self.targets, strict=True):
            for total, address in zip(sums, addresses, strict=True):
                self.builder.store(self.builder.load(total), address, align=4)


def _sizes(*kinds: Any) -> list[int] | None:
    """The numbers of rows and vectors; None unless they are compile-time constants."""
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
        tile.load_sums(tile.targets)
        tile.add(left, right)
        tile.store_sums()
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
        tile.load_row(first)
        tile.add(a, w)
        tile.add(b, v)
        tile.store_sums()
        return context.get_dummy_value()

    return types.void(start, a, w, b, v, out, row, column, rows, vectors), generate


_add: Any = intrinsic(prefer_literal=True)(_add_tile)
_set: Any = intrinsic(prefer_literal=True)(_set_tile)


def _tile_rows(vectors: int) -> int:
    """Rows of a tile: with fewer than eight sums, the processor would wait for each addition to end."""
    return 8 if vectors == 1 else 4


def _adding_kernel(vectors: int) -> Any:
    """A kernel that adds the product to all rows, for tiles of so many vectors."""
    most = _tile_rows(vectors)

    @kernel(void(VIEW, VIEW, VIEW, int64))
    def down(a, w, out, column):
        rows = a.shape[0]
        row = 0
        while row + most <= rows:
            _add(a, w, out, row, column, most, vectors)
            row += most
        while row + 2 <= rows:
            _add(a, w, out, row, column, 2, vectors)
            row += 2
        if row < rows:
            _add(a, w, out, row, column, 1, vectors)

    return down


def _setting_kernel(vectors: int) -> Any:
    """A kernel as `set_products` for all rows, for tiles of so many vectors."""
    most = _tile_rows(vectors)

    @kernel(void(ROW, VIEW, VIEW, VIEW, VIEW, VIEW, int64))
    def down(start, a, w, b, v, out, column):
        rows = a.shape[0]
        row = 0
        while row + most <= rows:
            _set(start, a, w, b, v, out, row, column, most, vectors)
            row += most
        while row + 2 <= rows:
            _set(start, a, w, b, v, out, row, column, 2, vectors)
            row += 2
        if row < rows:
            _set(start, a, w, b, v, out, row, column, 1, vectors)

    return down


_add_most, _add_two, _add_one = _adding_kernel(MOST_VECTORS), _adding_kernel(2), _adding_kernel(1)
_set_most, _set_two, _set_one = _setting_kernel(MOST_VECTORS), _setting_kernel(2), _setting_kernel(1)


@njit(nogil=True)
def _vectors_in_tile(vectors):
    """How many of the remaining `vectors` the next tile covers."""
    # Of 4 vectors, a tile of three would leave a single one, which takes as long as two.
    if vectors >= MOST_VECTORS and vectors != MOST_VECTORS + 1:
        return MOST_VECTORS
    return 2 if vectors >= 2 else 1


@kernel(void(VIEW, VIEW, VIEW))
def add_product(a, w, out):
    """out += a w, for a (row, depth) with any strides; w (depth, column) and out (row, column) have whole vectors."""
    column = 0
    while column < w.shape[1]:
        vectors = _vectors_in_tile((w.shape[1] - column) // LANES)
        if vectors == MOST_VECTORS:
            _add_most(a, w, out, column)
        elif vectors == 2:
            _add_two(a, w, out, column)
        else:
            _add_one(a, w, out, column)
        column += vectors * LANES


@kernel(void(ROW, VIEW, VIEW, VIEW, VIEW, VIEW))
def set_products(start, a, w, b, v, out):
    """out = start + a w + b v, `start` (column) the same for every row; otherwise as `add_product`."""
    column = 0
    while column < w.shape[1]:
        vectors = _vectors_in_tile((w.shape[1] - column) // LANES)
        if vectors == MOST_VECTORS:
            _set_most(start, a, w, b, v, out, column)
        elif vectors == 2:
            _set_two(start, a, w, b, v, out, column)
        else:
            _set_one(start, a, w, b, v, out, column)
        column += vectors * LANES
