"""Draws from the buckets of ``streaming.py``, which names the arrays.

A draw picks a bucket (an alias table over the few that hold anything) and a place in it, accepts
with the item's share, and after 16 rejections is looked up in the bucket: exact, and bounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.exclusion import allowed_ids, contains, mostly_excluded
from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import borrowed, wide_vectors
from fastneg.kernels.pow import log
from fastneg.kernels.rng import row_key
from fastneg.kernels.streaming import bucket_of, share_of
from fastneg.kernels.streaming_passes import (
    ATTEMPTS,
    finish,
    hand_out,
    judge,
    look_up,
    pick_buckets,
    pick_places,
    refuse_excluded,
)
from fastneg.kernels.streaming_rest import resolve

TOTAL_BITS = 62  # the masses of the buckets that a draw chooses among sum to 2^62
_BLOCK = 1024
_FEW = 128  # draws that are finished one by one
_ZERO = np.uint64(0)
_LOW = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)
_HALVES = 0.5 ** np.arange(1101, dtype=np.float64)  # 0 from 2^-1075 on
_LOG_TOTAL = 42.975125194716609184  # 62 ln 2


@helper
def _choice(mass: Any, upper: Any, buckets: int, chosen: Any) -> None:
    """chosen[b] = the bucket's share of 2^62 (int64): 1 at least where it can be drawn at all."""
    top = -np.inf
    for b in range(buckets):
        if mass[b] > _ZERO and upper[b, 0] > 0.0:
            top = max(top, upper[b, 1])
    total = 0.0
    for b in range(buckets):
        if mass[b] > _ZERO and upper[b, 0] > 0.0:
            total += (
                float(mass[b]) * upper[b, 0] * _HALVES[np.int64(min(top - upper[b, 1], 1100.0))]
            )
    left = np.int64(1) << TOTAL_BITS
    scale = float(left) / total
    largest = 0
    for b in range(buckets):
        chosen[b] = 0
        if mass[b] > _ZERO and upper[b, 0] > 0.0:
            weight = (
                float(mass[b]) * upper[b, 0] * _HALVES[np.int64(min(top - upper[b, 1], 1100.0))]
            )
            chosen[b] = max(np.int64(weight * scale), np.int64(1))
            left -= chosen[b]
        if chosen[b] > chosen[largest]:
            largest = b
    chosen[largest] += left  # what rounding left over, or took too much


@helper
def _fill_cells(chosen: Any, buckets: int, cells: Any, masses: Any) -> int:
    """An alias table over the buckets: ``cells`` [2^g, 3] of (threshold, bucket, other bucket).

    The 2^g cells hold 2^(62 - g) each; ``masses`` is scratch of their number. One sweep with two
    fingers, on light and on heavy entries, as in ``alias.fill_table``.

    Returns:
        g, 1 or more.
    """
    n = 0
    for b in range(buckets):
        if chosen[b] > 0:
            masses[n] = chosen[b]
            cells[n, 1] = b
            n += 1
    g = 1
    while (1 << g) < n:
        g += 1
    size = 1 << g
    for j in range(n, size):
        masses[j] = 0
        cells[j, 1] = 0
    cell = np.int64(1) << (TOTAL_BITS - g)
    light = heavy = 0
    while light < size and masses[light] >= cell:
        light += 1
    while heavy < size and masses[heavy] < cell:
        heavy += 1
    held = masses[heavy]
    while heavy < size:
        if held > cell:
            cells[light, 0] = masses[light]
            cells[light, 2] = cells[heavy, 1]
            held -= cell - masses[light]
            light += 1
            while light < size and masses[light] >= cell:
                light += 1
            continue
        following = heavy + 1
        while following < size and masses[following] < cell:
            following += 1
        cells[heavy, 0] = held
        cells[heavy, 2] = cells[heavy, 1]
        if following < size:
            cells[heavy, 2] = cells[following, 1]
            held = masses[following] - (cell - held)
        heavy = following
    return g


@helper
def _take_out(low: int, high: int, excluded: Any, records: Any, mass: Any, shares: Any, law: Any,
              buckets: int, left: Any) -> None:  # fmt: skip
    """left[b] = the mass of the bucket without the excluded items."""
    bits = np.int64(law[2])
    if mostly_excluded(low, high, records.shape[0]):
        for b in range(buckets):
            left[b] = _ZERO
        for item in allowed_ids(excluded, low, high, records.shape[0]):
            count = records[item, 0]
            left[bucket_of(count, bits)] += share_of(count, shares, law)
        return
    for b in range(buckets):
        left[b] = mass[b]
    for e in range(low, high):
        count = records[excluded[e], 0]
        left[bucket_of(count, bits)] -= share_of(count, shares, law)


def scratch_size(buckets: int) -> int:
    """How many words of scratch a call needs for so many buckets."""
    return 7 * max(2, 1 << (buckets - 1).bit_length()) + 5 * _BLOCK


@helper
def _power_of_two(buckets: int) -> int:
    most = 2
    while most < buckets:
        most *= 2
    return most


@helper
def _parts(scratch: Any, most: int) -> Any:
    """Scratch (uint64 [``scratch_size``]) cut up: cells, masses, chosen, left, spans, lists."""
    signed = scratch[: 5 * most].view(np.int64)
    cells, masses = signed[: 3 * most].reshape(most, 3), signed[3 * most : 4 * most]
    chosen, left = signed[4 * most :], scratch[5 * most : 6 * most]
    spans = scratch[6 * most : 7 * most]
    lists = scratch[7 * most : 7 * most + 5 * _BLOCK].reshape(5, _BLOCK)
    return cells, masses, chosen, left, spans, lists


@helper
def _fill_spans(borders: Any, buckets: int, spans: Any) -> None:
    """Where each bucket starts, and its size."""
    for bucket in range(buckets):
        spans[bucket] = (np.uint64(borders[bucket, 0]) << _S32) | np.uint64(borders[bucket, 1])


@helper
def _draw_block(tries: int, lists: Any, cells: Any, g: int, spans: Any, left: Any, records: Any,
                order: Any, shares: Any, law: Any, largest: int, excluded: Any, low: int,
                high: int, start: np.uint64, first: np.uint64, out: Any) -> None:  # fmt: skip
    """The draws named in ``lists[0]`` (``tries`` of them), into ``out``: bounded by what a row has.

    Places that are refused again and again are the end of few draws, unless the row excludes nearly
    all of a bucket.
    """
    bits, drop = np.int64(law[2]), np.uint64(64 - np.int64(law[3]))
    many = np.uint64(bucket_of(np.int64(2) << bits, bits))  # the first bucket of several counts
    draws, kept, found, coins, limits = lists[0], lists[1], lists[2], lists[3], lists[4]
    pick_buckets(tries, cells, g, start, first, draws, kept)
    attempt = 1
    while tries > _FEW and attempt <= ATTEMPTS:
        pick_places(tries, attempt, start, first, draws, kept, spans, drop, found, coins)
        look_up(tries, found, order)
        judge(tries, found, kept, coins, records, shares, law, largest, many, limits)
        if low < high:
            refuse_excluded(tries, found, excluded, low, high, coins)
        tries = hand_out(tries, found, draws, kept, coins, out, limits)
        attempt += 1
    refused = finish(
        tries, attempt, draws, kept, found, spans, left, records, order, shares, law, excluded,
        low, high, start, first, out,
    )  # fmt: skip
    if refused > 0:
        resolve(
            refused, draws, kept, found, spans, records, order, shares, law, excluded, low, high,
            out,
        )  # fmt: skip


@kernel
def draw_popular(
    records: Any,
    order: Any,
    borders: Any,
    mass: Any,
    upper: Any,
    shares: Any,
    law: Any,
    largest: int,
    indptr: Any,
    excluded: Any,
    owner: Any,
    key: np.uint64,
    rows: Any,
    first_draw: int,
    source: Any,
    base: int,
    items: Any,
) -> None:
    """Draws from the current counts; rows, exclusion, source and items as in ``draws.py``.

    Attempt 0 of a draw picks the bucket, attempts 1 to 16 a place in it, attempt 17 a point of
    what the bucket holds. ``largest``: the largest count.
    """
    wide_vectors()
    buckets = bucket_of(np.int64(largest), np.int64(law[2])) + 1
    everything, first = source.shape[0] == 0, np.uint64(first_draw)
    most = _power_of_two(buckets)
    scratch = np.empty(7 * most + 5 * _BLOCK, dtype=np.uint64)
    cells, masses, chosen, left, spans, lists = _parts(scratch, most)
    _fill_spans(borders, buckets, spans)
    g, plain = 0, False  # whether the table in ``cells`` is that of rows that exclude nothing
    for b in range(rows.shape[0]):
        low = high = 0
        if owner[b] >= 0:
            low, high = indptr[owner[b]], indptr[owner[b] + 1]
        if low < high or not plain:
            plain = low == high
            _take_out(low, high, excluded, records, mass, shares, law, buckets, left)
            _choice(left, upper, buckets, chosen)
            g = _fill_cells(chosen, buckets, cells, masses)
        start = row_key(key, np.uint64(rows[b]))
        for block in range(0, items.shape[1], _BLOCK):
            tries = 0
            for d in range(block, min(block + _BLOCK, items.shape[1])):
                lists[0, tries] = np.uint64(d)
                tries += everything or source[b, d] == base
            _draw_block(
                tries, lists, cells, g, spans, left, records, order, shares, law, largest,
                excluded, low, high, start, first, items[b],
            )  # fmt: skip


@kernel
def draw_shared(records: Any, order: Any, borders: Any, mass: Any, upper: Any, shares: Any,
                law: Any, largest: int, key: np.uint64, row: int, scratch: Any,
                items: Any) -> None:  # fmt: skip
    """One row of ``draw_popular`` that excludes nothing, into items [K], with little set-up.

    scratch: uint64 [``scratch_size`` of all buckets, or more].
    """
    wide_vectors()
    records, order, borders, mass = (
        borrowed(records), borrowed(order), borrowed(borders), borrowed(mass),
    )  # fmt: skip
    upper, shares, law, items = borrowed(upper), borrowed(shares), borrowed(law), borrowed(items)
    buckets = bucket_of(np.int64(largest), np.int64(law[2])) + 1
    cells, masses, chosen, _, spans, lists = _parts(borrowed(scratch), _power_of_two(buckets))
    _fill_spans(borders, buckets, spans)
    _choice(mass, upper, buckets, chosen)
    g = _fill_cells(chosen, buckets, cells, masses)
    start = row_key(key, np.uint64(row))
    for block in range(0, items.shape[0], _BLOCK):
        tries = min(_BLOCK, items.shape[0] - block)
        for p in range(tries):
            lists[0, p] = np.uint64(block + p)
        _draw_block(
            tries, lists, cells, g, spans, mass, records, order, shares, law, largest, order, 0, 0,
            start, _ZERO, items,
        )  # fmt: skip


@kernel
def popular_log_q(
    records: Any,
    mass: Any,
    upper: Any,
    shares: Any,
    law: Any,
    largest: int,
    indptr: Any,
    excluded: Any,
    owner: Any,
    check: bool,
    items: Any,
    out: Any,
) -> None:
    """out[b, d] = ln of the probability with which ``draw_popular`` draws items[b, d].

    ``check`` looks for excluded items (-inf). out: float32 or float64 [B, K].
    """
    bits = np.int64(law[2])
    buckets = bucket_of(np.int64(largest), bits) + 1
    chosen, left = np.empty(buckets, dtype=np.int64), np.empty(buckets, dtype=np.uint64)
    offset, values = np.empty(buckets, dtype=np.float64), np.empty(_BLOCK, dtype=np.float64)
    known = False  # whether ``offset`` is that of rows that exclude nothing
    for b in range(owner.shape[0]):
        low = high = 0
        if owner[b] >= 0:
            low, high = indptr[owner[b]], indptr[owner[b] + 1]
        if low < high or not known:
            known = low == high
            _take_out(low, high, excluded, records, mass, shares, law, buckets, left)
            _choice(left, upper, buckets, chosen)
            for bucket in range(buckets):
                offset[bucket] = -np.inf
                if chosen[bucket] > 0:
                    offset[bucket] = log(float(chosen[bucket]) / float(left[bucket])) - _LOG_TOTAL
        for block in range(0, items.shape[1], _BLOCK):
            n = min(_BLOCK, items.shape[1] - block)
            for k in range(n):
                values[k] = float(share_of(records[items[b, block + k], 0], shares, law))
            for k in range(n):
                values[k] = log(values[k])
            for k in range(n):
                value = values[k] + offset[bucket_of(records[items[b, block + k], 0], bits)]
                out[b, block + k] = min(value, 0.0)
            if check and low < high:
                for k in range(n):
                    if contains(excluded, low, high, items[b, block + k]):
                        out[b, block + k] = -np.inf
