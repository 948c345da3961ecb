"""Sums of products of integers, in the instructions that processors have for them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from shared.engines.kernels.compiling import intrinsic

INT32, INT64 = ir.IntType(32), ir.IntType(64)
LANE_VECTOR, PAIR_VECTOR = ir.VectorType(INT32, 16), ir.VectorType(ir.IntType(16), 32)


def dots_of(rows: int) -> Any:
    """Sums of products of int16 and int8 over `pairs` of inputs, for some rows and 64 lanes, as int32 (rows, 64).

    Written for the compiler in vectors of 16 lanes, two inputs each, which it recognises as VNNI's `vpdpwssd`, AVX2's
    `vpmaddwd`, or whatever the processor has for it. `inputs`: from one row of x to the next.
    """

    @intrinsic
    def dots(_: Any, x: Any, inputs: Any, weights: Any, pairs: Any, out: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, __: Any, arguments: Any) -> Any:
            x, inputs, weights, pairs, out = arguments
            b = builder
            rows_of_x = [b.gep(x, [b.mul(inputs, ir.Constant(INT64, row))]) for row in range(rows)]
            bytes_of = b.bitcast(weights, ir.VectorType(ir.IntType(8), 32).as_pointer())
            before = b.block
            loop, end = b.append_basic_block("pairs"), b.append_basic_block("end")
            b.branch(loop)
            b.position_at_end(loop)
            pair = b.phi(INT64)
            pair.add_incoming(ir.Constant(INT64, 0), before)
            sums = [[b.phi(LANE_VECTOR) for _ in range(4)] for _ in range(rows)]
            taken = []
            for vector in range(4):
                at = b.add(b.mul(pair, ir.Constant(INT64, 4)), ir.Constant(INT64, vector))
                taken.append(b.sext(b.load(b.gep(bytes_of, [at]), align=1), PAIR_VECTOR))
            found = []
            for row in range(rows):
                both = b.load(b.gep(b.bitcast(rows_of_x[row], INT32.as_pointer()), [pair]), align=2)
                inputs_of_row = b.bitcast(_everywhere(b, both), PAIR_VECTOR)
                found.append([b.add(sums[row][v], _pair_sums(b, inputs_of_row, taken[v])) for v in range(4)])
            following = b.add(pair, ir.Constant(INT64, 1))
            pair.add_incoming(following, loop)
            for old, new in zip(sums, found, strict=True):
                for vector in range(4):
                    old[vector].add_incoming(ir.Constant(LANE_VECTOR, None), before)
                    old[vector].add_incoming(new[vector], loop)
            b.cbranch(b.icmp_signed("<", following, pairs), loop, end)
            b.position_at_end(end)
            vectors = b.bitcast(out, LANE_VECTOR.as_pointer())
            for row in range(rows):
                for vector in range(4):
                    b.store(found[row][vector], b.gep(vectors, [ir.Constant(INT64, 4 * row + vector)]), align=4)
            return context.get_dummy_value()

        arguments = (
            types.CPointer(types.int16), types.int64, types.CPointer(types.int8), types.int64,
            types.CPointer(types.int32),
        )  # fmt: skip
        return types.void(*arguments), generate

    # Or numba gives it a name by the time of day, and what was compiled with it is not found again.
    dots._set_uuid(f"{__name__}.dots of {rows}")
    return dots


def _everywhere(builder: ir.IRBuilder, value: Any) -> Any:
    nothing = ir.Constant(LANE_VECTOR, ir.Undefined)
    one = builder.insert_element(nothing, value, ir.Constant(INT32, 0))
    return builder.shuffle_vector(one, nothing, ir.Constant(LANE_VECTOR, [0] * 16))


def _pair_sums(builder: ir.IRBuilder, x: Any, weights: Any) -> Any:
    wide = ir.VectorType(INT32, 32)
    products, nothing = builder.mul(builder.sext(x, wide), builder.sext(weights, wide)), ir.Constant(wide, ir.Undefined)
    first, second = (
        builder.shuffle_vector(products, nothing, ir.Constant(LANE_VECTOR, list(range(start, 32, 2))))
        for start in (0, 1)
    )
    return builder.add(first, second)
