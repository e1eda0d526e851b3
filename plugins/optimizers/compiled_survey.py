"""A look at all weights of a tensor before its update: the sum of the squares of S, and the largest weight.

The sum is taken as ``torch.linalg.vector_norm`` takes it, so that it is the same to the last bit: one running sum for
each lane of a vector register, over the whole tensor. LLVM does not find that by itself in a loop, so it is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_SIZE, _EXPONENT = 0x7FFFFFFF, 0x7F800000
_WORD, _BYTES = ir.IntType(32), ir.IntType(8).as_pointer()
_AHEAD = 512
"""Weights that are asked for before they are needed: one stream alone does not get the memory's whole speed."""


def survey(lanes: int) -> Callable[..., None]:
    """For vectors of that many elements: ``(weights, count, low, high, unit, sums, tops)``, all in kernels.

    For each lane, ``sums`` gets the sum of ``(unit · 2^e)²`` over the ``count`` weights, a multiple of ``lanes``, with
    the bits of ``2^e`` those of the weight's exponent between ``low`` and ``high``, and ``tops`` the bits of the
    largest magnitude.
    """
    floats, words = ir.VectorType(ir.FloatType(), lanes), ir.VectorType(_WORD, lanes)

    @intrinsic  # type: ignore[untyped-decorator]
    def surveyed(
        context: Any, weights: Any, count: Any, low: Any, high: Any, unit: Any, sums: Any, tops: Any
    ) -> Any:
        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            weights, count, low, high, unit, sums, tops = arguments
            low, high = (_splat(builder, one, words) for one in (low, high))
            unit = _splat(builder, unit, floats)
            total = cgutils.alloca_once_value(builder, ir.Constant(floats, [0.0] * lanes))
            top = cgutils.alloca_once_value(builder, ir.Constant(words, [0] * lanes))
            zero, width, ahead = (ir.Constant(count.type, n) for n in (0, lanes, _AHEAD))
            with cgutils.for_range_slice(builder, zero, count, width) as (index, _):
                _ask_for(builder, builder.gep(weights, [builder.add(index, ahead)]))
                place = builder.bitcast(builder.gep(weights, [index]), words.as_pointer())
                size = builder.and_(builder.load(place, align=4), _same(_SIZE, words))
                builder.store(_picked(builder, ">", size, builder.load(top)), top)
                exponent = builder.and_(size, _same(_EXPONENT, words))
                inside = _picked(builder, "<", _picked(builder, ">", exponent, low), high)
                relative = builder.fmul(builder.bitcast(inside, floats), unit)
                square = builder.fmul(relative, relative)
                builder.store(builder.fadd(builder.load(total), square), total)
            for found, out in ((total, sums), (top, tops)):
                value = builder.load(found)
                builder.store(value, builder.bitcast(out, value.type.as_pointer()), align=4)
            return target.get_dummy_value()

        pointers = types.CPointer(types.float32), types.CPointer(types.int32)
        numbers = types.int64, types.int32, types.int32, types.float32
        return types.void(pointers[0], *numbers, *pointers), generate

    found: Callable[..., None] = surveyed
    return found


def _ask_for(builder: Any, place: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [_BYTES, _WORD, _WORD, _WORD])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    to_read, into_all, data = (ir.Constant(_WORD, n) for n in (0, 3, 1))
    builder.call(prefetch, [builder.bitcast(place, _BYTES), to_read, into_all, data])


def _splat(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    empty, first = ir.Constant(vector, ir.Undefined), ir.Constant(_WORD, 0)
    single = builder.insert_element(empty, value, first)
    return builder.shuffle_vector(single, empty, _same(0, ir.VectorType(_WORD, vector.count)))


def _same(value: int, vector: ir.VectorType) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


def _picked(builder: Any, order: str, a: Any, b: Any) -> Any:
    """The larger (``>``) or smaller (``<``) of each two."""
    return builder.select(builder.icmp_signed(order, a, b), a, b)
