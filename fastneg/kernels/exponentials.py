"""Exponentials of a matrix of scores and their weighted sums, in one pass over each row.

Relative error of an exponential: 8e-8, for exponents from -86 to 88; of lower ones 0 is left. The
sums are in float32 and in 64 lanes, of whatever number of columns; products and sums are fused
where the processor does that, so the last bit depends on it, but never on the number of threads.

The exponential is e^x = 2^n e^r, n the integer nearest to x / ln 2 and |r| <= ln 2 / 2 (Cody and
Waite 1980), and e^r = 1 + r + r^2 q(r) with q of degree 4, fitted at 400 Chebyshev points to the
smallest squares of relative errors; the largest is 4e-9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types

from fastneg.kernels.jit import helper, kernel, part
from fastneg.kernels.llvm import cgutils, operation, wide_vectors

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.uint16]
Ints = npt.NDArray[np.int64]

LOWEST = np.float32(-86.0)  # down to it exponentials are normal numbers; of lower ones 0 is left
_MASKED = np.float32(-np.inf)
_NOTHING = np.float32(-1e30)  # the largest of no scores
_LANES = 64

_LOG2_E = np.float32(1.4426950408889634)
_ROUNDER = np.float32(12582912.0)  # 1.5 x 2^23: added, it leaves no bits behind the point
# -ln 2 in two parts; the first has 9 bits: times any exponent it is exact
_LN2_HIGH, _LN2_LOW = np.float32(-0.693359375), np.float32(2.1219444005469057e-4)
_Q0, _Q1, _Q2, _Q3, _Q4 = (
    np.float32(c)
    for c in (
        0.49999988588395955, 0.16666518401084174, 0.041669534224940616, 0.008368923427203198,
        0.0013751382142482517,
    )
)  # fmt: skip
_ZERO, _ONE, _NAN = np.float32(0.0), np.float32(1.0), np.float32(np.nan)
_16, _23 = np.uint32(16), np.uint32(23)
_HALF, _LAST = np.uint32(0x7FFF), np.uint32(1)


def _bits_of_float(typing_context: Any, x: Any) -> Any:
    """The 32 bits of a float."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), generate


def _float_of_bits(typing_context: Any, x: Any) -> Any:
    """The float that 32 bits stand for."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), generate


def _multiplied(builder: Any, kind: Any, name: str, args: Any) -> Any:
    """A b + c, rounded once where the processor can."""
    name = f"llvm.fmuladd.{name}"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(function, args)


def _multiply_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """A b + c of three floats."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _multiplied(builder, ir.FloatType(), "f32", args)

    return types.float32(*[types.float32] * 3), generate


def _in_lanes(first: float, fold: Callable[..., Any], join: Callable[..., Any]) -> Any:
    """A float over the whole groups of lanes of float32 vectors of one length.

    Args:
        first: where each lane starts.
        fold: (builder, the lanes' values, a group of each vector) to the lanes' next values.
        join: (builder, left, right) of two lanes; they are joined in a tree.
    """
    floats = ir.VectorType(ir.FloatType(), _LANES)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [
            context.make_array(kind)(context, builder, value=value)
            for kind, value in zip(signature.args, args, strict=True)
        ]
        value = cgutils.alloca_once_value(builder, ir.Constant(floats, [first] * _LANES))
        length = cgutils.unpack_tuple(builder, arrays[0].shape)[0]
        lanes = ir.Constant(length.type, _LANES)
        with cgutils.for_range(builder, builder.udiv(length, lanes)) as loop:
            place = builder.mul(loop.index, lanes)
            pointers = [builder.gep(array.data, [place]) for array in arrays]
            groups = [
                builder.load(builder.bitcast(pointer, floats.as_pointer()), align=4)
                for pointer in pointers
            ]
            builder.store(fold(builder, builder.load(value), *groups), value)
        vector, width = builder.load(value), _LANES
        while width > 1:
            width //= 2
            nothing = ir.Constant(vector.type, ir.Undefined)
            numbers = ir.VectorType(ir.IntType(32), width)
            halves = [
                builder.shuffle_vector(
                    vector, nothing, ir.Constant(numbers, list(range(start, start + width)))
                )
                for start in (0, width)
            ]
            vector = join(builder, *halves)
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    return generate


def _sum_of_products(typing_context: Any, left: Any, right: Any) -> Any:
    """The sum of left[c] right[c] over whole groups of lanes."""

    def fold(builder: Any, total: Any, left: Any, right: Any) -> Any:
        return _multiplied(builder, total.type, f"v{_LANES}f32", [left, right, total])

    def join(builder: Any, left: Any, right: Any) -> Any:
        return builder.fadd(left, right)

    return types.float32(left, right), _in_lanes(0.0, fold, join)


def _largest(typing_context: Any, values: Any) -> Any:
    """The largest of whole groups of lanes, -1e30 at least; what is not a number is passed over."""

    def larger(builder: Any, left: Any, right: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", right, left), right, left)

    return types.float32(values), _in_lanes(float(_NOTHING), larger, larger)


def _view_float(x: Any) -> Any:
    return np.float32(x).view(np.uint32)


def _view_word(x: Any) -> Any:
    return np.uint32(x).view(np.float32)


def _multiply_then_add(a: Any, b: Any, c: Any) -> Any:
    return np.float32(a * b + c)


def _add_products(left: Any, right: Any) -> Any:
    sums = np.zeros(_LANES, np.float32)
    for c in range(left.size // _LANES * _LANES):
        sums[c % _LANES] += left[c] * right[c]
    half = _LANES // 2
    while half > 0:
        for i in range(half):
            sums[i] += sums[i + half]
        half //= 2
    return sums[0]


def _largest_so_far(values: Any) -> Any:
    largest = _NOTHING
    for c in range(values.size // _LANES * _LANES):
        if values[c] > largest:
            largest = values[c]
    return largest


_bits: Any = operation(_bits_of_float, _view_float)
_float: Any = operation(_float_of_bits, _view_word)
_fma: Any = operation(_multiply_add, _multiply_then_add)
_products: Any = operation(_sum_of_products, _add_products)
_top: Any = operation(_largest, _largest_so_far)


@helper
def exponential(x: np.float32) -> np.float32:
    """e^x of a float32; 0 below e^-86; not a number where x is none. x is at most 88."""
    shifted = _fma(x, _LOG2_E, _ROUNDER)
    n = shifted - _ROUNDER
    r = _fma(n, _LN2_LOW, _fma(n, _LN2_HIGH, x))
    q = _fma(_fma(_fma(_fma(_Q4, r, _Q3), r, _Q2), r, _Q1), r, _Q0)
    value = _fma(_fma(q, r, _ONE), r, _ONE)
    # n stands in the lowest bits of the sum that rounded it; it goes into the exponent
    result: np.float32 = _float(_bits(value) + (_bits(shifted) << _23))
    result = _ZERO if x < LOWEST else result
    return _NAN if x != x else result


@part
def _exponentiate(row: Floats, top: np.float32) -> None:
    wide_vectors()
    for c in range(row.size):
        row[c] = exponential(row[c] - top)


@part
def _widen(halves: Halves, row: Floats) -> None:
    wide_vectors()
    for c in range(row.size):
        row[c] = _float(np.uint32(halves[c]) << _16)


@part
def _narrow(row: Floats, halves: Halves) -> None:
    """To the nearest bfloat16, ties to the even one."""
    wide_vectors()
    for c in range(row.size):
        word = _bits(row[c])
        halves[c] = np.uint16((word + _HALF + ((word >> _16) & _LAST)) >> _16)


@part
def _row_top(row: Floats) -> np.float32:
    wide_vectors()
    top: np.float32 = _top(row)
    for c in range(row.size - row.size % _LANES, row.size):
        top = row[c] if row[c] > top else top
    return top


@part
def _row_sum(row: Floats, weights: Floats) -> np.float32:
    wide_vectors()
    total: np.float32 = _products(row, weights)
    for c in range(row.size - row.size % _LANES, row.size):
        total = _fma(row[c], weights[c], total)
    return total


@helper
def _one_row(
    row: Floats, b: int, cells: Ints, starts: Ints, own_column: bool, weights: Floats,
    tops: Floats, sums: Floats,
) -> None:  # fmt: skip
    before, top = b * row.size, _ZERO
    for p in range(starts[b], starts[b + 1]):
        row[cells[p] - before] = _MASKED
    if own_column:
        row[b] = _MASKED
    if tops.size > 0:
        top = tops[b] = _row_top(row)
    _exponentiate(row, top)
    sums[b] = _row_sum(row, weights)


@kernel
def exponentiate(
    scores: Floats, first: int, cells: Ints, starts: Ints, own_column: bool, weights: Floats,
    tops: Floats, sums: Floats, start: int, stop: int,
) -> None:  # fmt: skip
    """Rows ``start..stop - 1`` of a batch, whose rows from ``first`` on ``scores`` holds.

    Args:
        scores: float32 [R, C], overwritten by the exponentials, 0 where masked.
        cells: int64 [P], flat places in the whole matrix [B, C] that are masked, by row.
        starts: int64 [B + 1], row b has ``cells[starts[b]:starts[b + 1]]``.
        own_column: column b of row b is masked; then C >= B.
        weights: float32 [C].
        tops: float32 [B], written: each row's largest score, which is taken off its scores first,
            -1e30 if all are masked; or empty: no score is above 88, and nothing is taken off.
        sums: float32 [B], written: of a row's exponentials times the weights.
    """
    for b in range(start, stop):
        _one_row(scores[b - first], b, cells, starts, own_column, weights, tops, sums)


@kernel
def exponentiate_16(
    scores: Halves, first: int, cells: Ints, starts: Ints, own_column: bool, weights: Floats,
    tops: Floats, sums: Floats, start: int, stop: int,
) -> None:  # fmt: skip
    """``exponentiate`` for bfloat16 scores, uint16 [R, C]; what is summed is not rounded yet."""
    row = np.empty(scores.shape[1], np.float32)
    for b in range(start, stop):
        _widen(scores[b - first], row)
        _one_row(row, b, cells, starts, own_column, weights, tops, sums)
        _narrow(row, scores[b - first])
