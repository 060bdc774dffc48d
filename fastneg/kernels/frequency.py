"""Frequencies of ids in a stream from the gaps between their occurrences (Yi et al. 2019).

An id has one slot in each of m hashed arrays. A slot keeps when it was last seen and a moving
average of its gaps; ids that share a slot shorten its gaps, so the largest gap of the m is taken.

    keys: uint64 [m], one hash function each.
    last: int64 [m, slots], the step at which the slot was last seen (0: never).
    gaps: float64 [m, slots], the moving average (0: unknown).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.rng import mix64, multiply_high


@helper
def _slot(item: Any, key: np.uint64, slots: int) -> Any:
    return np.int64(multiply_high(mix64(np.uint64(item) ^ key), np.uint64(slots)))


@kernel
def see_items(
    items: Any, clock: Any, per_batch: bool, alpha: float, keys: Any, last: Any, gaps: Any
) -> None:
    """B = (1 - alpha) B + alpha (t - A), A = t for every item, one after the other.

    A slot without an average takes its first gap whole.

    Args:
        items: int64 [n].
        clock: int64 [1], t of the event before; each event is a step, or, ``per_batch``, all are
            the same one and a slot counts once. It moves on with the slots: Ctrl-C, which comes
            between two instructions of Python, finds all of an update or none.
    """
    step = clock[0] + 1
    for e in range(items.shape[0]):
        now = step if per_batch else step + e
        for h in range(keys.shape[0]):
            s = _slot(items[e], keys[h], gaps.shape[1])
            gap = float(now - last[h, s])
            if per_batch and gap == 0.0:
                continue
            if gaps[h, s] == 0.0:
                gaps[h, s] = gap
            else:
                gaps[h, s] = (1.0 - alpha) * gaps[h, s] + alpha * gap
            last[h, s] = now
    clock[0] += 1 if per_batch else items.shape[0]


@kernel
def largest_gaps(items: Any, unknown: float, keys: Any, gaps: Any, out: Any) -> None:
    """out[e] = the largest gap of the item's slots; ``unknown`` where one of them has none."""
    for e in range(items.shape[0]):
        largest = 1.0
        for h in range(keys.shape[0]):
            gap = gaps[h, _slot(items[e], keys[h], gaps.shape[1])]
            largest = max(largest, gap if gap > 0.0 else unknown)
        out[e] = largest


@kernel
def add_rates(rates: Any, independent: bool, keys: Any, out: Any) -> None:
    """out[h, slot of i] gathers rates[i] over all i: their sum, or 1 - prod(1 - rate)."""
    for i in range(rates.shape[0]):
        for h in range(keys.shape[0]):
            s = _slot(i, keys[h], out.shape[1])
            out[h, s] += rates[i] * (1.0 - out[h, s]) if independent else rates[i]
