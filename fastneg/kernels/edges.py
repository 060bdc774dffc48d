"""Near the k-th largest of a row of scores, by counting instead of selecting.

A cut needs no exact k-th largest, only a value that k scores reach and few others do. Counting how
many scores reach a value is a pass of vector compares with no branch and no table, so halving the
range until the count is close costs less than one pass of a radix selection; and since every edge
returned has been counted, rounding can never make one wrong.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import helper
from fastneg.kernels.panels import extremes

Floats = npt.NDArray[np.float32]

_HALVINGS = 24


@helper
def num_reaching(scores: Floats, count: int, edge: np.float32) -> int:
    """How many of ``scores[:count]`` are ``edge`` or more."""
    reaching = np.int32(0)
    for c in range(count):
        reaching += np.int32(scores[c] >= edge)
    return int(reaching)


@helper
def edges_around(
    scores: Floats, count: int, k: int, side: int, spare: int
) -> tuple[np.float32, np.float32]:
    """(low, high): at least ``k`` scores reach ``low``, at most ``k`` reach ``high``.

    They are halved towards each other until the one that is wanted is within ``spare`` scores of
    ``k``, or for good. Of scores that are all equal, ``low`` is the score and ``high`` is +inf.

    Args:
        scores: float32, finite.
        count: of ``scores``, 1 or more.
        k: 0 .. count.
        side: 1 where ``low`` is wanted, -1 where ``high`` is.
        spare: 0 or more.
    """
    low, top = extremes(scores, count)
    high = np.float32(np.inf)
    middle = low + (top - low) * np.float32(0.5)
    for _ in range(_HALVINGS):
        if not low < middle < top:
            break
        reaching = num_reaching(scores, count, middle)
        if reaching >= k:
            low = middle
        if reaching <= k:
            high = middle
            top = middle
        if 0 <= side * (reaching - k) <= spare:
            break
        middle = low + (top - low) * np.float32(0.5)
    return low, high
