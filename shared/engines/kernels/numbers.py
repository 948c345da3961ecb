"""Single numbers and addresses, as LLVM has them."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.np.arrayobj import make_array

from shared.engines.kernels.compiling import fused, intrinsic

f32: Any = np.float32
INT32 = ir.IntType(32)


@intrinsic
def number(_: Any, stored: Any) -> Any:
    """float32 of int8, of float32, or of bfloat16's bits in a uint16."""

    def generate(__: Any, builder: ir.IRBuilder, ___: Any, arguments: Any) -> Any:
        (value,) = arguments
        if stored == types.int8:
            return builder.sitofp(value, ir.FloatType())
        if stored == types.uint16:
            bits = builder.zext(value, INT32)
            return builder.bitcast(builder.shl(bits, ir.Constant(INT32, 16)), ir.FloatType())
        return value

    return types.float32(stored), generate


@intrinsic
def in_order(_: Any, value: Any) -> Any:
    """An int32 that is the greater the greater a float32 is; `of_order` turns it back.

    Where floats are compared, the compiler does without vectors, since one of them might not be a number.
    """

    def generate(__: Any, builder: ir.IRBuilder, ___: Any, arguments: Any) -> Any:
        return _turned(builder, builder.bitcast(arguments[0], INT32))

    return types.int32(types.float32), generate


@intrinsic
def of_order(_: Any, value: Any) -> Any:
    def generate(__: Any, builder: ir.IRBuilder, ___: Any, arguments: Any) -> Any:
        return builder.bitcast(_turned(builder, arguments[0]), ir.FloatType())

    return types.float32(types.int32), generate


def _turned(b: ir.IRBuilder, bits: Any) -> Any:
    """All bits but the sign turned over where the sign is set."""
    sign = b.ashr(bits, ir.Constant(INT32, 31))
    return b.xor(bits, b.and_(sign, ir.Constant(INT32, 0x7FFFFFFF)))


@intrinsic
def power_of_two(_: Any, exponent: Any) -> Any:
    """2 ** exponent, int32 from -126 to 127."""

    def generate(__: Any, builder: ir.IRBuilder, ___: Any, arguments: Any) -> Any:
        (value,) = arguments
        biased = builder.add(value, ir.Constant(INT32, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(INT32, 23)), ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def element(_: Any, array: Any, number: Any) -> Any:
    """Address of an element of an array, counted through all of it."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.gep(data, [arguments[1]])

    return types.CPointer(array.dtype)(array, types.int64), generate


@intrinsic
def address(_: Any, number: Any) -> Any:
    def generate(__: Any, builder: ir.IRBuilder, ___: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@fused
def exponential(x: float) -> float:
    """e ** x in float32, to 2e-7 of itself; 0 below -87 (Cephes' `expf`, written so that it runs on vectors)."""
    bounded = min(max(x, f32(-87)), f32(88))
    whole = np.int32(bounded * f32(1.44269504) + f32(1024.5)) - np.int32(1024)
    rest = bounded - f32(whole) * f32(0.693359375) + f32(whole) * f32(2.12194440e-4)
    p = f32(1.9875691500e-4)
    p = p * rest + f32(1.3981999507e-3)
    p = p * rest + f32(8.3334519073e-3)
    p = p * rest + f32(4.1665795894e-2)
    p = p * rest + f32(1.6666665459e-1)
    p = p * rest + f32(5.0000001201e-1)
    p = p * rest * rest + rest + f32(1)
    return p * power_of_two(whole) if x >= f32(-87) else f32(0)
