"""Draws for a batch of rows, never an excluded id: one kernel per kind of distribution.

All work alike: items are picked for 64 cells of [B, K] at once, the lists' filters say which of
them might be excluded, and only those are looked up and drawn again. The 64 cells lie in one column
of 64 rows, so that the far reads of many rows are under way together; wide rows are drawn by
``wide_draws.py``. Filters decide speed and never an id.

Shared arguments:
    indptr, excluded: int64, the lists of excluded ids (``exclusion.py``).
    metas, words: the lists' filters (``filters.py``).
    attempts: int8 [lists + 1]: how often a row of the list tries; 0 where rejection is hopeless.
    owner: int64 [B], the list of each row; -1 (the last entry of metas and attempts) for none.
    key, rows, first_draw: which words are used.
    source: int8 [B, K]; only cells that hold ``base`` are drawn. With shape (0, 0) all are.
    items: int64 [B K], written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.alias import choose, scale_word
from fastneg.kernels.count_classes import pick_position
from fastneg.kernels.exclusion import contains
from fastneg.kernels.filters import may_contain
from fastneg.kernels.jit import helper, kernel, part
from fastneg.kernels.llvm import prefetch, trailing_zeros, wide_vectors
from fastneg.kernels.rng import ATTEMPT, GOLDEN, mix64, multiply_high, row_key
from fastneg.kernels.wide_draws import table_again, uniform_again

_LANES = 64
_S32 = np.uint64(32)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_ALL = np.uint64((1 << 64) - 1)
_TWO_32 = np.uint64(1 << 32)


@helper
def _begin_rows(
    first: int, count: int, key: np.uint64, rows: Any, owner: Any, metas: Any,
    first_draw: int, places: Any, filters: Any,
) -> None:  # fmt: skip
    """Where the words of 64 rows start, and their metas; those of the next 64 are asked for."""
    following = first + _LANES
    for j in range(min(_LANES, rows.shape[0] - following)):
        prefetch(metas, owner[following + j])
    for j in range(count):
        places[j] = row_key(key, np.uint64(rows[first + j])) + np.uint64(first_draw) * GOLDEN
        filters[j] = metas[owner[first + j]]


@helper
def _suspects(words: Any, filters: Any, found: Any, count: int) -> Any:
    """What the filters say of 64 rows, as the bits of a word."""
    mask = _ZERO
    for j in range(count):
        mask |= may_contain(words, filters[j], found[j]) << np.uint64(j)
    return mask


@helper
def _tagged(source: Any, base: int, first: int, count: int, d: int) -> Any:
    """Which of 64 rows draw in column d, as the bits of a word."""
    if source.shape[0] == 0:
        return _ALL
    mask = _ZERO
    for j in range(count):
        mask |= np.uint64(source[first + j, d] == base) << np.uint64(j)
    return mask


@helper
def _write(
    first: int, count: int, width: int, d: int, found: Any, tagged: np.uint64, items: Any
) -> None:
    """Column d of 64 rows, where they are tagged."""
    if tagged == _ALL:
        for j in range(count):
            items[(first + j) * width + d] = found[j]
    else:
        for j in range(count):
            if (tagged >> np.uint64(j)) & _ONE:
                items[(first + j) * width + d] = found[j]


@helper
def _uniform_column(n: np.uint64, small: Any, places: Any, count: int, found: Any) -> None:
    """The next word of 64 rows, scaled to 0..n-1."""
    if small:
        for j in range(count):
            places[j] += GOLDEN
            found[j] = np.int64(scale_word(n, mix64(places[j])) >> _S32)
    else:
        for j in range(count):
            places[j] += GOLDEN
            found[j] = np.int64(multiply_high(mix64(places[j]), n))


@part
def uniform_rows(
    num_items: int, indptr: Any, excluded: Any, metas: Any, words: Any, attempts: Any, owner: Any,
    key: np.uint64, rows: Any, first_draw: int, source: Any, base: int, items: Any,
) -> None:  # fmt: skip
    """``draw_uniform``, 64 rows at a time."""
    wide_vectors()
    num_rows = rows.shape[0]
    width = items.shape[0] // max(1, num_rows)
    n = np.uint64(num_items)
    small = n < _TWO_32
    places, filters = np.empty(_LANES, np.uint64), np.empty(_LANES, np.uint64)
    found = np.empty(_LANES, np.int64)
    for first in range(0, num_rows, _LANES):
        count = min(_LANES, num_rows - first)
        _begin_rows(first, count, key, rows, owner, metas, first_draw, places, filters)
        for d in range(width):
            tagged = _tagged(source, base, first, count, d)
            _uniform_column(n, small, places, count, found)
            mask = _suspects(words, filters, found, count) & tagged
            while mask != _ZERO:
                j = trailing_zeros(mask)
                mask &= mask - _ONE
                o = owner[first + j]
                low, high = indptr[o], indptr[o + 1]
                if attempts[o] == 0 or contains(excluded, low, high, found[j]):
                    found[j] = uniform_again(n, excluded, low, high, attempts[o], places[j])

            _write(first, count, width, d, found, tagged, items)


@kernel
def draw_uniform(
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
    source: Any,
    base: int,
    items: Any,
) -> None:
    """Uniform over the allowed items: rejection, and a shifted rank where it is hopeless."""
    uniform_rows(
        num_items, indptr, excluded, metas, words, attempts, owner, key, rows, first_draw, source,
        base, items,
    )  # fmt: skip


@part
def table_rows(
    table: Any, indptr: Any, excluded: Any, metas: Any, words: Any, attempts: Any, owner: Any,
    key: np.uint64, rows: Any, first_draw: int, source: Any, base: int, items: Any,
) -> int:  # fmt: skip
    """``draw_table``, 64 rows at a time."""
    wide_vectors()
    num_rows = rows.shape[0]
    width = items.shape[0] // max(1, num_rows)
    num_cells = np.uint64(table.shape[0])
    unresolved = 0
    places, filters = np.empty(_LANES, np.uint64), np.empty(_LANES, np.uint64)
    found = np.empty(_LANES, np.int64)
    for first in range(0, num_rows, _LANES):
        count = min(_LANES, num_rows - first)
        _begin_rows(first, count, key, rows, owner, metas, first_draw, places, filters)
        for d in range(width):
            tagged = _tagged(source, base, first, count, d)
            for j in range(count):
                places[j] += GOLDEN
                t = scale_word(num_cells, mix64(places[j]))
                found[j] = np.int64(choose(t, table[np.int64(t >> _S32)]))
            mask = _suspects(words, filters, found, count) & tagged
            while mask != _ZERO:
                j = trailing_zeros(mask)
                mask &= mask - _ONE
                o = owner[first + j]
                low, high = indptr[o], indptr[o + 1]
                if attempts[o] == 0 or contains(excluded, low, high, found[j]):
                    found[j] = table_again(table, excluded, low, high, attempts[o], places[j])
                    unresolved += found[j] < 0
            _write(first, count, width, d, found, tagged, items)
    return unresolved


@kernel
def draw_table(
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
    source: Any,
    base: int,
    items: Any,
) -> int:
    """Draws from a packed alias table (uint64 [n]), repeated while they fall on an excluded id.

    Returns:
        The number of cells left at -1, to be finished by ``finish_by_mass``.
    """
    return table_rows(
        table, indptr, excluded, metas, words, attempts, owner, key, rows, first_draw, source, base,
        items,
    )  # fmt: skip


@helper
def _classes_again(
    table: Any,
    spans: Any,
    order: Any,
    excluded: Any,
    low: int,
    high: int,
    attempts: int,
    place: np.uint64,
    salt: np.uint64,
) -> Any:
    """The attempts after the first; -1 where all of them fail."""
    for attempt in range(1, attempts):
        turn = place + np.uint64(attempt) * ATTEMPT
        item = pick_position(table, spans, mix64(turn), mix64(turn ^ salt))
        if order.shape[0] > 0:
            item = np.int64(order[item])
        if not contains(excluded, low, high, item):
            return item
    return -1


@part
def classes_rows(
    table: Any, spans: Any, order: Any, indptr: Any, excluded: Any, metas: Any, words: Any,
    attempts: Any, owner: Any, key: np.uint64, salt: np.uint64, rows: Any, first_draw: int,
    source: Any, base: int, items: Any,
) -> int:  # fmt: skip
    """``draw_classes``, 64 rows at a time."""
    wide_vectors()
    num_rows = rows.shape[0]
    width = items.shape[0] // max(1, num_rows)
    unresolved = 0
    places, filters = np.empty(_LANES, np.uint64), np.empty(_LANES, np.uint64)
    found = np.empty(_LANES, np.int64)
    for first in range(0, num_rows, _LANES):
        count = min(_LANES, num_rows - first)
        _begin_rows(first, count, key, rows, owner, metas, first_draw, places, filters)
        for d in range(width):
            tagged = _tagged(source, base, first, count, d)
            for j in range(count):
                places[j] += GOLDEN
                place = places[j]
                found[j] = pick_position(table, spans, mix64(place), mix64(place ^ salt))
            if order.shape[0] > 0:
                for j in range(count):  # all lines are asked for before the first is read
                    prefetch(order, found[j])
                for j in range(count):
                    found[j] = np.int64(order[found[j]])
            mask = _suspects(words, filters, found, count) & tagged
            while mask != _ZERO:
                j = trailing_zeros(mask)
                mask &= mask - _ONE
                o = owner[first + j]
                low, high = indptr[o], indptr[o + 1]
                if attempts[o] == 0 or contains(excluded, low, high, found[j]):
                    found[j] = _classes_again(
                        table, spans, order, excluded, low, high, attempts[o], places[j], salt
                    )
                    unresolved += found[j] < 0
            _write(first, count, width, d, found, tagged, items)
    return unresolved


@kernel
def draw_classes(
    table: Any,
    spans: Any,
    order: Any,
    indptr: Any,
    excluded: Any,
    metas: Any,
    words: Any,
    attempts: Any,
    owner: Any,
    key: np.uint64,
    salt: np.uint64,
    rows: Any,
    first_draw: int,
    source: Any,
    base: int,
    items: Any,
) -> int:
    """As ``draw_table``, from a count-class table (``count_classes.py``).

    Args:
        table, spans: the classes.
        order: uint32 [n], the items by class; empty where they are their own order.
        salt: tells the second word of a draw from the first.
    """
    return classes_rows(
        table, spans, order, indptr, excluded, metas, words, attempts, owner, key, salt, rows,
        first_draw, source, base, items,
    )  # fmt: skip
