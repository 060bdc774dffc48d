"""One look at an array before anything is done with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import kernel


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

    The smallest is infinity where none is positive.
    """
    smallest, largest = np.inf, 0.0
    valid = True
    for i in range(weights.shape[0]):
        w = weights[i]
        valid = valid & (w >= 0.0) & (w < np.inf)
        largest = max(largest, w)
        smallest = min(smallest, w if w > 0.0 else np.inf)
    return valid, smallest, largest
