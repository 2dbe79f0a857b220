"""What numba has no words for: calling an address, half-precision numbers, the width of vectors."""

from __future__ import annotations

import platform
from contextlib import suppress
from typing import Any

import numba.extending
from llvmlite import ir
from numba import types

intrinsic: Any = numba.extending.intrinsic
_I = ir.IntType(64)


@intrinsic
def call(context: Any, address: Any, arguments: Any) -> Any:
    """Call a kernel with int64 arguments: addresses and 64-bit integers are handed over alike."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        function = ir.FunctionType(ir.VoidType(), [_I] * len(arguments))
        unpacked = [builder.extract_value(values[1], k) for k in range(len(arguments))]
        builder.call(builder.inttoptr(values[0], function.as_pointer()), unpacked)
        return context.get_dummy_value()

    return types.void(types.int64, arguments), generate


@intrinsic
def call_for(context: Any, address: Any, arguments: Any) -> Any:
    """Likewise, for an int64 answer."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        function = ir.FunctionType(_I, [_I] * len(arguments))
        unpacked = [builder.extract_value(values[1], k) for k in range(len(arguments))]
        return builder.call(builder.inttoptr(values[0], function.as_pointer()), unpacked)

    return types.int64(types.int64, arguments), generate


@intrinsic
def cblas_gemm(
    context: Any, address: Any, wide: Any, ta: Any, tb: Any, M: Any, N: Any, K: Any, one: Any, a: Any, lda: Any, b: Any,
    ldb: Any, beta: Any, c: Any, ldc: Any,
) -> Any:  # fmt: skip
    """C ← op(A)·op(B) + β·C by cblas_sgemm or cblas_dgemm, row-major; `wide`: its integers have 64 bits."""
    order, n, t, e = 101, 111, 112, ir.IntType(32)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        address, wide, ta, tb, M, N, K, one, a, lda, b, ldb, beta, c, ldc = values
        letters = [e(order), *(builder.select(builder.icmp_signed("!=", x, _I(0)), e(t), e(n)) for x in (ta, tb))]

        def emit(integer: ir.IntType) -> None:
            pointer, real = ir.IntType(8).as_pointer(), one.type
            function = ir.FunctionType(
                ir.VoidType(),
                [e] * 3 + [integer] * 3 + [real, pointer, integer, pointer, integer, real, pointer, integer],
            )
            given = [M, N, K, one, a, lda, b, ldb, beta, c, ldc]
            taken = [
                builder.inttoptr(x, pointer) if k in (4, 6, 9)
                else x if k in (3, 8) or integer == _I
                else builder.trunc(x, integer)
                for k, x in enumerate(given)
            ]  # fmt: skip
            builder.call(builder.inttoptr(address, function.as_pointer()), letters + taken)

        with builder.if_else(builder.icmp_signed("!=", wide, _I(0))) as (yes, no):
            with yes:
                emit(_I)
            with no:
                emit(e)
        return context.get_dummy_value()

    i = types.int64
    return types.void(i, i, i, i, i, i, i, one, i, i, i, i, one, i, i), generate


@intrinsic
def read(context: Any, address: Any, like: Any) -> Any:
    """The number of `like`'s type at an address."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(builder.inttoptr(values[0], values[1].type.as_pointer()))

    return like(types.int64, like), generate


@intrinsic
def half(context: Any, bits: Any) -> Any:
    """The float32 that a half-precision number with these 16 bits is."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fpext(builder.bitcast(values[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def wide_vectors(context: Any) -> Any:
    """Ask for vectors of 512 bits in this function, where the CPU has them.

    LLVM halves them on most such CPUs, because the first ones slowed down; the BLAS beside our loops uses them anyhow.
    Loops gain 10 to 25 %. llvmlite lets a function ask for few things by name, so this goes past its list; where a
    later llvmlite does not take it, loops are merely slower.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        with suppress(TypeError):
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def pointer(context: Any, address: Any, like: Any) -> Any:
    """A pointer to numbers of `like`'s type at an address, for `numba.carray`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], values[1].type.as_pointer())

    return types.CPointer(like)(types.int64, like), generate


# One int64 that several threads use: its address is that of an element of an array. All in one order for all threads.


def _at(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _I.as_pointer())


@intrinsic
def atomic_load(context: Any, address: Any) -> Any:
    """The number at an address."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load_atomic(_at(builder, values[0]), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def atomic_add(context: Any, address: Any, term: Any) -> Any:
    """Add to the number at an address; returns what it was."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.atomic_rmw("add", _at(builder, values[0]), values[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def compare_and_set(context: Any, address: Any, expected: Any, new: Any) -> Any:
    """Set the number at an address where it is as expected; returns what it was."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        done = builder.cmpxchg(_at(builder, values[0]), values[1], values[2], "seq_cst", "seq_cst")
        return builder.extract_value(done, 0)

    return types.int64(types.int64, types.int64, types.int64), generate


@intrinsic
def pause(context: Any) -> Any:
    """Tell the CPU that this thread waits in a loop."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        machine, number = platform.machine(), ir.IntType(32)
        if machine in ("x86_64", "AMD64"):
            function = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), function), [])
        elif machine in ("aarch64", "arm64"):
            function = ir.FunctionType(ir.VoidType(), [number])
            builder.call(builder.module.declare_intrinsic("llvm.aarch64.hint", (), function), [number(1)])  # yield
        return context.get_dummy_value()

    return types.void(), generate
