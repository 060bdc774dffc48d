"""Draws that rejection did not end, looked up in what their buckets hold beside excluded items.

A row that excludes nearly all of a large bucket ends many of its draws here. Walking through the
bucket for each, with a search of the row's list at every place, took a second where a user knew
most of a million items. So the places are marked once for the row, what is left of the buckets
concerned is summed up once, and each draw is a search in these sums. ``streaming.py`` names the
arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.complement import first_above
from fastneg.kernels.exclusion import allowed_ids, contains, mostly_excluded
from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.streaming import share_of

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_LOW = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)
_S6 = np.uint64(6)
_BITS = np.uint64(63)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_BYTE = np.uint64(0xFF)
_EIGHT = np.uint64(8)


@helper
def _walk(point: np.uint64, first: Any, end: Any, records: Any, order: Any, shares: Any, law: Any,
          excluded: Any, low: int, high: int) -> Any:  # fmt: skip
    """The item at a point of what a bucket, order[first:end], holds beside the excluded items."""
    found = np.int64(-1)
    for place in range(first, end):
        item = np.int64(order[place])
        if low == high or not contains(excluded, low, high, item):
            found = item
            share = share_of(records[item, 0], shares, law)
            if point < share:
                break
            point -= share
    return found


@helper
def _mark_places(records: Any, excluded: Any, low: int, high: int) -> Any:
    """uint64 [places / 64]: a bit for each place of an excluded item."""
    n = records.shape[0]
    marks = np.zeros((n + 63) >> 6, dtype=np.uint64)
    if mostly_excluded(low, high, n):
        marks[:] = _ALL
        for item in allowed_ids(excluded, low, high, n):
            place = np.uint64(records[item, 1])
            marks[place >> _S6] &= ~(_ONE << (place & _BITS))
        return marks
    for e in range(low, high):
        place = np.uint64(records[excluded[e], 1])
        marks[place >> _S6] |= _ONE << (place & _BITS)
    return marks


@helper
def _fill_rest(spans: Any, starts: Any, ends: Any, marks: Any, records: Any, order: Any,
               shares: Any, law: Any, items: Any, sums: Any) -> None:  # fmt: skip
    """What is left of the buckets whose start is not -1: items, and running sums of their shares.

    starts, ends: int64 [buckets], written: where each of them lies in ``items`` and ``sums``.
    """
    count = 0
    for bucket in range(spans.shape[0]):
        if starts[bucket] < 0:
            continue
        starts[bucket] = count
        total = _ZERO
        place = spans[bucket] >> _S32
        end = place + (spans[bucket] & _LOW)
        while place < end:
            bits = marks[place >> _S6] >> (place & _BITS)
            if bits & _BYTE == _BYTE:  # eight that are excluded
                place += _EIGHT
                continue
            if bits & _ONE == _ZERO:
                item = np.int64(order[place])
                total += share_of(records[item, 0], shares, law)
                items[count] = item
                sums[count] = total
                count += 1
            place += _ONE
        ends[bucket] = count


@kernel
def resolve(refused: int, draws: Any, kept: Any, points: Any, spans: Any, records: Any, order: Any,
            shares: Any, law: Any, excluded: Any, low: int, high: int,
            out: Any) -> Any:  # fmt: skip
    """The item at each draw's point of what its bucket holds beside the row's excluded items.

    Args:
        refused: how many draws; draws, kept, points: uint64, their numbers, buckets and points.
        spans: uint64 [buckets], where each bucket starts << 32 | its size.
        out: int64 [K], written at the draws.

    Returns:
        Whether what is left was summed up, which decides speed only.
    """
    n, steps, size = records.shape[0], _ZERO, _ZERO
    starts = np.full(spans.shape[0], -1, dtype=np.int64)
    for p in range(refused):
        steps += spans[kept[p]] & _LOW
        if starts[kept[p]] < 0:
            starts[kept[p]] = 0
            size += spans[kept[p]] & _LOW
    if low == high or np.int64(steps) <= (n >> 6) + min(high - low, n - (high - low)):
        for p in range(refused):
            first = spans[kept[p]] >> _S32
            end = first + (spans[kept[p]] & _LOW)
            out[draws[p]] = _walk(
                points[p], np.int64(first), np.int64(end), records, order, shares, law, excluded,
                low, high,
            )  # fmt: skip
        return False
    items = np.empty(min(np.int64(size), n - (high - low)), dtype=np.int64)
    sums, ends = np.empty(items.shape[0], dtype=np.uint64), np.zeros(spans.shape[0], np.int64)
    marks = _mark_places(records, excluded, low, high)
    _fill_rest(spans, starts, ends, marks, records, order, shares, law, items, sums)
    for p in range(refused):
        out[draws[p]] = items[first_above(sums, starts[kept[p]], ends[kept[p]] - 1, points[p])]
    return True
