"""Powers and logarithms that come out the same, bit for bit, on every machine.

Library versions of ``pow`` differ in the last bit, and one bit moves a whole alias table. These
use +, -, *, / and moves of bits only, which IEEE 754 fixes; nothing is contracted or reordered.
Relative error of ``log`` and ``log2``: 2.3e-16 (absolute near 1); of a power x^b: below 1e-14 for
|b| <= 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import operation

_LN2 = 0.6931471805599453
# ln 2 in two parts (Cody and Waite 1980); the first has 32 bits: times any exponent it is exact
_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
_LOG2_E = 1.4426950408889634
_MANTISSA = np.uint64(0x000FFFFFFFFFFFFF)
_ONE = np.uint64(0x3FF0000000000000)
_SQRT2 = 1.4142135623730951
_SMALLEST_NORMAL = 2.2250738585072014e-308


def _bits_of_double(typing_context: Any, x: Any) -> Any:
    """The 64 bits of a double."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.uint64(types.float64), generate


def _double_of_bits(typing_context: Any, x: Any) -> Any:
    """The double that 64 bits stand for."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), generate


def _view_double(x: Any) -> Any:
    return np.float64(x).view(np.uint64)


def _view_word(x: Any) -> Any:
    return np.uint64(x).view(np.float64)


_to_bits: Any = operation(_bits_of_double, _view_double)
_from_bits: Any = operation(_double_of_bits, _view_word)


@helper
def _log_parts(x: float) -> tuple[float, float]:
    """Write x as 2^e m with m in [sqrt(1/2), sqrt(2)): (e, ln m). x is positive."""
    shift = 0.0
    if x < _SMALLEST_NORMAL:
        x *= 18014398509481984.0  # 2^54
        shift = -54.0
    bits = _to_bits(x)
    exponent = shift + float(np.int64(bits >> np.uint64(52)) - 1023)
    mantissa = _from_bits((bits & _MANTISSA) | _ONE)
    if mantissa > _SQRT2:
        mantissa *= 0.5
        exponent += 1.0
    # ln m = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.1716
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    tail = 1.0 / 23.0
    tail = tail * z + 1.0 / 21.0
    tail = tail * z + 1.0 / 19.0
    tail = tail * z + 1.0 / 17.0
    tail = tail * z + 1.0 / 15.0
    tail = tail * z + 1.0 / 13.0
    tail = tail * z + 1.0 / 11.0
    tail = tail * z + 1.0 / 9.0
    tail = tail * z + 1.0 / 7.0
    tail = tail * z + 1.0 / 5.0
    tail = tail * z + 1.0 / 3.0
    return exponent, 2.0 * (s + s * (z * tail))


@helper
def log2(x: float) -> float:
    """Base-2 logarithm of a positive double; exact at powers of two."""
    exponent, rest = _log_parts(x)
    return exponent + rest * _LOG2_E


@helper
def log(x: float) -> float:
    """Natural logarithm of a positive double."""
    exponent, rest = _log_parts(x)
    return exponent * _LN2_HIGH + (exponent * _LN2_LOW + rest)


@helper
def exp2(y: float) -> Any:
    """2^y, with y clamped to the exponents of normal doubles."""
    y = min(max(y, -1022.0), 1023.0)
    whole = np.floor(y + 0.5)
    t = (y - whole) * _LN2
    series = 1.0 / 87178291200.0
    series = series * t + 1.0 / 6227020800.0
    series = series * t + 1.0 / 479001600.0
    series = series * t + 1.0 / 39916800.0
    series = series * t + 1.0 / 3628800.0
    series = series * t + 1.0 / 362880.0
    series = series * t + 1.0 / 40320.0
    series = series * t + 1.0 / 5040.0
    series = series * t + 1.0 / 720.0
    series = series * t + 1.0 / 120.0
    series = series * t + 1.0 / 24.0
    series = series * t + 1.0 / 6.0
    series = series * t + 0.5
    series = series * t + 1.0
    series = series * t + 1.0
    return series * _from_bits(np.uint64(np.int64(whole) + 1023) << np.uint64(52))


@helper
def bits_of(x: float) -> np.uint64:
    """The 64 bits of a double."""
    return _to_bits(x)  # type: ignore[no-any-return]


@helper
def double_of(bits: np.uint64) -> float:
    """The double that 64 bits stand for."""
    return _from_bits(bits)  # type: ignore[no-any-return]


@kernel
def relative_powers(values: Any, exponent: float, largest: float, out: Any) -> None:
    """out[i] = (values[i] / largest)^exponent, 0 where values[i] is 0.

    Args:
        values: float64 [n], 0 or more.
        exponent: the b of popularity^b, any finite number.
        largest: what the values are divided by first, so that no power overflows.
        out: float64 [n].
    """
    reference = log2(largest)
    for i in range(values.shape[0]):
        if values[i] > 0.0:
            out[i] = exp2(exponent * (log2(values[i]) - reference))
        else:
            out[i] = 0.0


@kernel
def log_masses(masses: Any, total: float, out: Any) -> None:
    """out[i] = ln(masses[i] / total) in double precision, -inf where the mass is 0.

    Args:
        masses: uint64 [n].
        total: what the masses sum to.
        out: float64 [n].
    """
    reference = log(total)
    for i in range(masses.shape[0]):
        if masses[i] > np.uint64(0):
            out[i] = log(float(masses[i])) - reference
        else:
            out[i] = -np.inf


@helper
def conditional(log_q: float, rest: float) -> float:
    """The log-probability among the items allowed, whose mass is e^rest, in double precision."""
    # at most ln 1: the last item left is off by the rounding of the two
    return min(log_q - rest, 0.0)


@helper
def class_at(class_of: Any, starts: Any, item: int) -> int:
    """The class of an item; arguments as for ``class_log_q``."""
    if class_of.shape[0] > 0:
        return np.int64(class_of[item])  # type: ignore[return-value]
    left, right = 0, starts.shape[0]
    while right - left > 1:
        middle = (left + right) >> 1
        if starts[middle] <= item:
            left = middle
        else:
            right = middle
    return left


@kernel
def table_log_q(log_q: Any, items: Any, owner: Any, log_allowed: Any, out: Any) -> None:
    """out[b, d] = log_q[items[b, d]] - log_allowed[owner[b]], in double precision, rounded once.

    Args:
        log_q: float64 [n]; items: int64 [B, K]; owner: int64 [B], -1 for the last entry of
            log_allowed: float64 [lists + 1].
        out: float32 or float64 [B, K].
    """
    for b in range(items.shape[0]):
        rest = log_allowed[owner[b]]
        for d in range(items.shape[1]):
            out[b, d] = conditional(log_q[items[b, d]], rest)


@kernel
def class_log_q(
    log_q: Any, class_of: Any, starts: Any, items: Any, owner: Any, log_allowed: Any, out: Any
) -> None:
    """As ``table_log_q``, with log_q per class.

    Args:
        log_q: float64 [classes].
        class_of: uint16 [n], the class of each item; empty where items are ordered by class.
        starts: int64 [classes], the first item of each class; read where class_of is empty.
    """
    for b in range(items.shape[0]):
        rest = log_allowed[owner[b]]
        for d in range(items.shape[1]):
            out[b, d] = conditional(log_q[class_at(class_of, starts, items[b, d])], rest)
