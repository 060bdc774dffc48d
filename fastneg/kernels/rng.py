"""Random words as a pure function of (key, row, draw, attempt).

SplitMix64 (Steele, Lea and Flood 2014) with Stafford's thirteenth finaliser, run as a counter: the
row's key starts a sequence at a pseudo-random place, ``draw`` and ``attempt`` step through it by
two odd constants. Any word can be had without the ones before it, so rows, draws and attempts can
be spread over threads, processes and machines without changing one of them.
"""

from __future__ import annotations

import numpy as np

from fastneg.kernels.jit import helper

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
ATTEMPT = np.uint64(0xD1342543DE82EF95)
ROW = np.uint64(0xA0761D6478BD642F)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S30 = np.uint64(30)
_S27 = np.uint64(27)
_S31 = np.uint64(31)
_S32 = np.uint64(32)
_S11 = np.uint64(11)
_LOW = np.uint64(0xFFFFFFFF)


@helper
def mix64(x: np.uint64) -> np.uint64:
    """A bijection of 64-bit words that leaves no visible structure of a counter."""
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


@helper
def row_key(key: np.uint64, row: np.uint64) -> np.uint64:
    """Where a row's sequence of words starts."""
    return mix64(key + row * ROW)


@helper
def word(start: np.uint64, draw: np.uint64, attempt: np.uint64) -> np.uint64:
    """The 64-bit word of a row's (draw, attempt); ``start`` is ``row_key(key, row)``."""
    return mix64(start + (draw + np.uint64(1)) * GOLDEN + attempt * ATTEMPT)


@helper
def multiply_high(a: np.uint64, b: np.uint64) -> np.uint64:
    """The upper half of the 128-bit product: ``a`` scaled to 0..b-1, its bias below b / 2^64."""
    a_low, a_high = a & _LOW, a >> _S32
    b_low, b_high = b & _LOW, b >> _S32
    middle = a_high * b_low + ((a_low * b_low) >> _S32)
    low_middle = (middle & _LOW) + a_low * b_high
    return a_high * b_high + (middle >> _S32) + (low_middle >> _S32)


@helper
def unit_interval(w: np.uint64) -> float:
    """A double in (0, 1), never 0 and never 1: the upper 53 bits, centred."""
    # the last of them would round to 1
    return min((float(w >> _S11) + 0.5) * 1.1102230246251565e-16, 0.9999999999999999)
