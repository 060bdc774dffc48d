"""One look at an array before anything is done with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import kernel
from fastneg.kernels.pow import bits_of, double_of

_ONE = np.uint64(1)


@kernel
def codes_within(codes: Any, low: int, size: int) -> bool:
    """Whether low <= codes[i] < size for every i; int64 [n]."""
    good = True
    for i in range(codes.shape[0]):
        good = good & (codes[i] >= low) & (codes[i] < size)
    return good


@kernel
def scan_weights(weights: Any) -> Any:
    """(valid, smallest positive, largest) of float64 weights: finite and 0 or more, or not.

    The smallest is infinity where none is positive; both mean nothing where it is not valid.
    """
    # the bits of doubles of 0 and more are ordered as they are; those of others come after
    infinity = bits_of(np.inf)
    largest = np.uint64(0)
    smallest = infinity - _ONE  # what is positive, less one, so that 0 comes last
    for i in range(weights.shape[0]):
        bits = bits_of(weights[i] + 0.0)  # -0.0 is 0.0
        largest = max(largest, bits)
        smallest = min(smallest, bits - _ONE)
    return largest < infinity, double_of(smallest + _ONE), double_of(largest)
