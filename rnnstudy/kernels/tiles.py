"""Matrix products of small matrices, in tiles that stay in vector registers.

The libraries' products are made for large matrices: 20 x 50 times 50 x 50, the product of one time step, takes them
about twice as long. Here a tile of 4 rows by up to 4 vectors (3 on a processor with 16 vector registers, or 8 by 1) is
accumulated in registers over the whole depth. Plain loops compile to a load and a store for each multiplication;
hence the vector code, written out for LLVM.
"""

from typing import Any

from llvmlite import binding, ir
from numba import float32, int64, types, void
from numba.core import cgutils
from numba.extending import intrinsic

from rnnstudy.kernels.compiling import kernel

LANES = 16 if binding.get_host_cpu_features().get("avx512f", False) else 8
"""Numbers in a vector register. Matrices that a product runs along are padded to whole vectors."""

MOST_ACROSS = 4 if LANES == 16 else 3
"""Vectors across a tile: its sums, a row of the weights and a factor stay in the 32 or 16 vector registers."""

VIEW = float32[:, :]
"""One type for all strides, so that each function is compiled once."""


def padded(width: int) -> int:
    """`width` rounded up to whole vectors."""
    return -(-width // LANES) * LANES


def _add_tile(typing_context: Any, a: Any, w: Any, out: Any, row: Any, column: Any, rows: Any, vectors: Any) -> Any:
    """out[row : row + rows, column : column + vectors·LANES] += a[row : row + rows] w[:, same columns]."""
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(vectors, types.IntegerLiteral)):
        return None
    count, across = rows.literal_value, vectors.literal_value
    signature = types.void(a, w, out, row, column, rows, vectors)
    single, byte = ir.FloatType(), ir.IntType(8)
    vector = ir.VectorType(single, LANES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right, result = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:3], arguments[:3], strict=True)
        )
        first_row, first_column = arguments[3:5]
        size = first_row.type(4)

        def place(array: Any, index: Any, inner: Any) -> Any:
            """Address of array[index, inner]."""
            strides = cgutils.unpack_tuple(builder, array.strides, 2)
            offset = builder.add(builder.mul(index, strides[0]), builder.mul(inner, strides[1]))
            return builder.gep(builder.bitcast(array.data, byte.as_pointer()), [offset], source_etype=byte)

        def vectors_from(address: Any) -> list[Any]:
            """Addresses of the `across` vectors that begin there."""
            addresses = [
                builder.gep(address, [builder.mul(size, size.type(LANES * v))], source_etype=byte)
                for v in range(across)
            ]
            return [builder.bitcast(one, vector.as_pointer()) for one in addresses]

        lines = [builder.add(first_row, size.type(r)) for r in range(count)]
        targets = [vectors_from(place(result, line, first_column)) for line in lines]
        sums = [[cgutils.alloca_once(builder, vector) for _ in range(across)] for _ in range(count)]
        for r in range(count):
            for v in range(across):
                builder.store(builder.load(targets[r][v], align=4), sums[r][v])
        zero, undefined = size.type(0), ir.Constant(vector, ir.Undefined)
        spread = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        depth = cgutils.unpack_tuple(builder, left.shape, 2)[1]
        begins = [place(left, line, zero) for line in lines]
        step = cgutils.unpack_tuple(builder, left.strides, 2)[1]
        with cgutils.for_range(builder, depth) as loop:
            weights = [builder.load(one, align=4) for one in vectors_from(place(right, loop.index, first_column))]
            for r in range(count):
                address = builder.gep(begins[r], [builder.mul(loop.index, step)], source_etype=byte)
                number = builder.load(builder.bitcast(address, single.as_pointer()))
                factor = builder.insert_element(undefined, number, ir.IntType(32)(0))
                factor = builder.shuffle_vector(factor, undefined, spread)
                for v in range(across):
                    product = builder.fmul(factor, weights[v], flags=["contract"])
                    total = builder.fadd(builder.load(sums[r][v]), product, flags=["contract"])
                    builder.store(total, sums[r][v])
        for r in range(count):
            for v in range(across):
                builder.store(builder.load(sums[r][v]), targets[r][v], align=4)
        return context.get_dummy_value()

    return signature, generate


_tile: Any = intrinsic(prefer_literal=True)(_add_tile)


def _columns(vectors: int) -> Any:
    """Down all rows, for so many vectors across."""
    # Fewer sums than that wait for each other.
    many = 8 if vectors == 1 else 4

    @kernel(void(VIEW, VIEW, VIEW, int64))
    def down(a, w, out, column):
        rows = a.shape[0]
        row = 0
        while row + many <= rows:
            _tile(a, w, out, row, column, many, vectors)
            row += many
        while row + 2 <= rows:
            _tile(a, w, out, row, column, 2, vectors)
            row += 2
        if row < rows:
            _tile(a, w, out, row, column, 1, vectors)

    return down


_most_across, _two_across, _one_across = _columns(MOST_ACROSS), _columns(2), _columns(1)


@kernel(void(VIEW, VIEW, VIEW))
def add_product(a, w, out):
    """out += a w, for a (row, depth) with any strides, and w (depth, column) and out (row, column) in whole vectors."""
    column, vectors = 0, w.shape[1] // LANES
    while vectors > 0:
        # 4 vectors by threes would leave a single one, which takes as long as two.
        if vectors >= MOST_ACROSS and vectors != MOST_ACROSS + 1:
            _most_across(a, w, out, column)
            across = MOST_ACROSS
        elif vectors >= 2:
            _two_across(a, w, out, column)
            across = 2
        else:
            _one_across(a, w, out, column)
            across = 1
        column += across * LANES
        vectors -= across
