"""Draws for rows of many negatives each: 64 cells of one row at once (see ``draws.py``).

What a row needs lies far away: its filter, its list's borders, the list itself. The filter is asked
for some rows ahead; cells that it suspects wait, until there are enough of them to be looked up
side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.alias import choose, pick, scale_word
from fastneg.kernels.exclusion import contains, skip_excluded
from fastneg.kernels.filters import may_contain, prefetch_filter
from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import prefetch, prefetch_to_write, trailing_zeros, wide_vectors
from fastneg.kernels.rng import ATTEMPT, GOLDEN, mix64, multiply_high, row_key

_LANES, _HALF = 64, 32
_FAR, _NEAR = 24, 8  # rows ahead at which a filter's place, and then the filter, is asked for
_LINE = 8  # cells of a cache line
_SUSPECTS = 256  # cells that may wait
_S32 = np.uint64(32)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)


@helper
def _ask_ahead(
    b: int, num_rows: int, owner: Any, metas: Any, words: Any, items: Any, width: int
) -> None:
    """Ask for what the rows after ``b`` will need, and for where they will be written."""
    if b + _FAR < num_rows:
        prefetch(metas, owner[b + _FAR])
    if b + _NEAR < num_rows:
        prefetch_filter(words, metas[owner[b + _NEAR]])
        for place in range((b + _NEAR) * width, (b + _NEAR + 1) * width, _LINE):
            prefetch_to_write(items, place)


@helper
def uniform_again(
    num_items: np.uint64, excluded: Any, low: int, high: int, attempts: int, place: np.uint64
) -> Any:
    """The attempts after the first; then a rank among the allowed items, shifted to its id."""
    for attempt in range(1, attempts):
        w = mix64(place + np.uint64(attempt) * ATTEMPT)
        item = np.int64(multiply_high(w, num_items))
        if not contains(excluded, low, high, item):
            return item
    w = mix64(place + np.uint64(attempts) * ATTEMPT)
    rank = np.int64(multiply_high(w, num_items - np.uint64(high - low)))
    return skip_excluded(excluded, low, high, rank)


@helper
def table_again(
    table: Any, excluded: Any, low: int, high: int, attempts: int, place: np.uint64
) -> Any:
    """The attempts after the first; -1 where all of them fail."""
    num_cells = np.uint64(table.shape[0])
    for attempt in range(1, attempts):
        w = mix64(place + np.uint64(attempt) * ATTEMPT)
        item = np.int64(pick(table, num_cells, w))
        if not contains(excluded, low, high, item):
            return item
    return -1


@helper
def _word_before(key: np.uint64, row: int, draw: int) -> np.uint64:
    return row_key(key, np.uint64(row)) + np.uint64(draw) * GOLDEN


@helper
def _suspect(
    mask: np.uint64, b: int, first: int, indptr: Any, owner: int, rows: Any, cells: Any, count: int
) -> Any:
    """Let the cells of a mask wait, and ask for their list's borders; how many wait now."""
    if mask != _ZERO:
        prefetch(indptr, owner)
    while mask != _ZERO:
        rows[count] = b
        cells[count] = first + trailing_zeros(mask)
        mask &= mask - _ONE
        count += 1
    return count


@helper
def _look_up(
    indptr: Any, excluded: Any, attempts: Any, owner: Any, rows: Any, cells: Any, items: Any,
    count: int, places: Any, sizes: Any,
) -> None:  # fmt: skip
    """sizes[k] = 1 where the item of waiting cell k is in its row's list, else 0.

    1 too where a row has no attempts. All binary searches go one step at a time, side by side, so
    that their far reads overlap: ``places`` and ``sizes`` are what is left of each list.
    """
    longest = 0
    for k in range(count):
        of = owner[rows[k]]
        places[k] = indptr[of]
        sizes[k] = indptr[of + 1] - indptr[of] if attempts[of] > 0 else 0
        longest = max(longest, sizes[k])
        prefetch(excluded, places[k] + (sizes[k] >> 1))
    while longest > 0:  # then there is an id
        longest >>= 1
        for k in range(count):
            size, place = sizes[k], places[k]
            half = size >> 1
            below = excluded[min(place + half, excluded.shape[0] - 1)] < items[cells[k]]
            right = np.int64(below) & np.int64(size > 0)  # no branch: it would be a coin's throw
            places[k] = place = place + right * (half + 1)
            sizes[k] = size = half + right * (size - half - 1 - half)
            prefetch(excluded, place + (size >> 1))
    for k in range(count):
        of = owner[rows[k]]
        place = places[k]
        found = place < indptr[of + 1] and excluded[place] == items[cells[k]]
        sizes[k] = found or attempts[of] == 0


@helper
def _filter_lanes(words: Any, meta: np.uint64, drawn: Any, count: int) -> Any:
    """What the filter says of ``count`` ids, as bits."""
    mask = _ZERO
    for j in range(count):
        mask |= may_contain(words, meta, drawn[j]) << np.uint64(j)
    return mask


# Words are made in a loop without far reads: where a processor's gathers are slow, LLVM leaves a
# loop with one in it scalar, and the words of a scalar loop take as long again as all the rest.
@helper
def _uniform_lanes(
    n: np.uint64, words: Any, meta: np.uint64, place: np.uint64, items: Any, first: int,
    drawn: Any, count: int,
) -> Any:  # fmt: skip
    """Draw ``count`` cells from ``first`` on; what the filter says of them, as bits."""
    for j in range(count):
        item = scale_word(n, mix64(place + np.uint64(j + 1) * GOLDEN)) >> _S32
        drawn[j] = item
        items[first + j] = np.int64(item)
    return _filter_lanes(words, meta, drawn, count)


@helper
def _table_lanes(
    table: Any, words: Any, meta: np.uint64, place: np.uint64, items: Any, first: int,
    drawn: Any, count: int,
) -> Any:  # fmt: skip
    """Draw ``count`` cells from ``first`` on; what the filter says of them, as bits."""
    num_cells = np.uint64(table.shape[0])
    for j in range(count):
        drawn[j] = scale_word(num_cells, mix64(place + np.uint64(j + 1) * GOLDEN))
    for j in range(count):
        drawn[j] = choose(drawn[j], table[drawn[j] >> _S32])
        items[first + j] = np.int64(drawn[j])
    return _filter_lanes(words, meta, drawn, count)


@kernel
def draw_uniform_rows(
    num_items: int,
    indptr: Any,
    excluded: Any,
    metas: Any,
    words: Any,
    attempts: Any,
    owner: Any,
    key: np.uint64,
    rows: Any,
    first_draw: int,
    items: Any,
) -> None:
    """As ``draw_uniform`` over fewer than 2^32 items, every cell drawn."""
    wide_vectors()
    num_rows = rows.shape[0]
    width = items.shape[0] // max(1, num_rows)
    n = np.uint64(num_items)
    waiting_rows, waiting = np.empty(_SUSPECTS, np.int64), np.empty(_SUSPECTS, np.int64)
    places, found = np.empty(_SUSPECTS, np.int64), np.empty(_SUSPECTS, np.int64)
    drawn = np.empty(_LANES, np.uint64)
    count: Any = 0
    for b in range(num_rows):
        _ask_ahead(b, num_rows, owner, metas, words, items, width)
        o = owner[b]
        meta = metas[o]
        place = _word_before(key, rows[b], first_draw)
        s, end = b * width, (b + 1) * width
        while s < end:
            done = end - s
            if done >= _LANES:  # a loop of a length known beforehand is twice as fast
                done = _LANES
                mask = _uniform_lanes(n, words, meta, place, items, s, drawn, _LANES)
            elif done >= _HALF:
                done = _HALF
                mask = _uniform_lanes(n, words, meta, place, items, s, drawn, _HALF)
            else:
                mask = _uniform_lanes(n, words, meta, place, items, s, drawn, done)
            count = _suspect(mask, b, s, indptr, o, waiting_rows, waiting, count)
            s += done
            place += np.uint64(done) * GOLDEN
            if count > _SUSPECTS - _LANES or (count > 0 and s == num_rows * width):
                _look_up(
                    indptr, excluded, attempts, owner, waiting_rows, waiting, items, count, places,
                    found,
                )  # fmt: skip
                for k in range(count):
                    if found[k] > 0:
                        cell, row = waiting[k], waiting_rows[k]
                        of = owner[row]
                        low, high = indptr[of], indptr[of + 1]
                        draw = first_draw + cell - row * width + 1
                        turn = _word_before(key, rows[row], draw)
                        items[cell] = uniform_again(n, excluded, low, high, attempts[of], turn)
                count = 0


@kernel
def draw_table_rows(
    table: Any,
    indptr: Any,
    excluded: Any,
    metas: Any,
    words: Any,
    attempts: Any,
    owner: Any,
    key: np.uint64,
    rows: Any,
    first_draw: int,
    items: Any,
) -> int:
    """As ``draw_table``, every cell drawn."""
    wide_vectors()
    num_rows = rows.shape[0]
    width = items.shape[0] // max(1, num_rows)
    unresolved = 0
    waiting_rows, waiting = np.empty(_SUSPECTS, np.int64), np.empty(_SUSPECTS, np.int64)
    places, found = np.empty(_SUSPECTS, np.int64), np.empty(_SUSPECTS, np.int64)
    drawn = np.empty(_LANES, np.uint64)
    count: Any = 0
    for b in range(num_rows):
        _ask_ahead(b, num_rows, owner, metas, words, items, width)
        o = owner[b]
        meta = metas[o]
        place = _word_before(key, rows[b], first_draw)
        s, end = b * width, (b + 1) * width
        while s < end:
            done = end - s
            if done >= _LANES:
                done = _LANES
                mask = _table_lanes(table, words, meta, place, items, s, drawn, _LANES)
            elif done >= _HALF:
                done = _HALF
                mask = _table_lanes(table, words, meta, place, items, s, drawn, _HALF)
            else:
                mask = _table_lanes(table, words, meta, place, items, s, drawn, done)
            count = _suspect(mask, b, s, indptr, o, waiting_rows, waiting, count)
            s += done
            place += np.uint64(done) * GOLDEN
            if count > _SUSPECTS - _LANES or (count > 0 and s == num_rows * width):
                _look_up(
                    indptr, excluded, attempts, owner, waiting_rows, waiting, items, count, places,
                    found,
                )  # fmt: skip
                for k in range(count):
                    if found[k] > 0:
                        cell, row = waiting[k], waiting_rows[k]
                        of = owner[row]
                        low, high = indptr[of], indptr[of + 1]
                        draw = first_draw + cell - row * width + 1
                        turn = _word_before(key, rows[row], draw)
                        items[cell] = table_again(table, excluded, low, high, attempts[of], turn)
                        unresolved += items[cell] < 0
                count = 0
    return unresolved
