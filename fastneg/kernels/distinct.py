"""Distinct draws: arrivals of a Poisson process with repeats dropped.

Items arrive at unit rate with marks from q; a row keeps the first K distinct ones, and T is the
time of the next distinct one. This is PPSWOR with rank conditioning (Cohen and Kaplan 2007).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.pow import log
from fastneg.kernels.rng import row_key, unit_interval, word

_ZERO = np.uint64(0)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@helper
def _insert(slots: Any, stamps: Any, stamp: int, item: int) -> bool:
    """Put an item into an open-addressed set; False if it was there. The size is a power of 2."""
    mask = np.uint64(slots.shape[0] - 1)
    place = (np.uint64(item) * _SPREAD >> np.uint64(20)) & mask
    while stamps[np.int64(place)] == stamp:
        if slots[np.int64(place)] == item:
            return False
        place = (place + np.uint64(1)) & mask
    stamps[np.int64(place)] = stamp
    slots[np.int64(place)] = item
    return True


@kernel
def keep_distinct(
    drawn: Any,
    drawn_source: Any,
    key: np.uint64,
    rows: Any,
    first_draw: int,
    wanted: Any,
    slots: Any,
    stamps: Any,
    found: Any,
    clock: Any,
    items: Any,
    source: Any,
) -> int:
    """Feed a block of arrivals to every row that still lacks some.

    Args:
        drawn: int64 [B, M], the marks of the arrivals; drawn_source: int8 [B, M], their tags.
        key: of the clock's own stream; arrival d of a row waits an exponential time.
        wanted: int64 [B], K + 1, or K where a row has no more than K items.
        slots: int64 [2^s]; stamps: int64 [2^s], all below 0 on entry, at least 2 (K + 1) wide.
        found: int64 [B], distinct items so far, updated.
        clock: float64 [B], time so far, updated; ends as T in rows that got all they wanted.
        items, source: [B, K], filled up to found[b].

    Returns:
        The number of rows that still lack some.
    """
    width = items.shape[1]
    open_rows = 0
    for b in range(rows.shape[0]):
        if found[b] >= wanted[b]:
            continue
        start = row_key(key, np.uint64(rows[b]))
        for i in range(min(found[b], width)):
            _insert(slots, stamps, b, items[b, i])
        for d in range(drawn.shape[1]):
            u = unit_interval(word(start, np.uint64(first_draw + d), _ZERO))
            clock[b] -= log(u)
            if _insert(slots, stamps, b, drawn[b, d]):
                if found[b] < width:
                    items[b, found[b]] = drawn[b, d]
                    source[b, found[b]] = drawn_source[b, d]
                found[b] += 1
                if found[b] == wanted[b]:
                    break
        if found[b] < wanted[b]:
            open_rows += 1
    return open_rows
