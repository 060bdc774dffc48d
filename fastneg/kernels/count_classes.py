"""Items that share a weight are one class: an alias table over classes, a uniform choice inside.

Popularity counts are whole numbers with few distinct values (some thousands for a catalog of a
million), so the table over them stays in cache whatever the catalog's size; only the id itself
costs a far line, and not even that where ids are ordered by popularity.

An item of class c has the integer mass m_c, the class size_c m_c; these sum to exactly C 2^40 over
the table's C cells. A cell is one 64-bit word: a threshold of 40 bits above, an alias of 24 below.
``spans[c]`` is first << 32 | size: the positions first..first+size-1 hold the items of class c.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.llvm import prefetch, wide_vectors
from fastneg.kernels.pow import bits_of
from fastneg.kernels.rng import GOLDEN, mix64, row_key

ALIAS_BITS = 24
CELL = 1 << (64 - ALIAS_BITS)
_BLOCK = 64
_ALIAS = np.uint64((1 << ALIAS_BITS) - 1)
_THRESHOLD = np.uint64(((1 << 64) - 1) ^ ((1 << ALIAS_BITS) - 1))
_LOW = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)
_S40 = np.uint64(40)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
SALT = np.uint64(0x6A09E667F3BCC909)  # a key and this make the salt of its second words


@helper
def _slot_of(keys: Any, used: Any, bits: np.uint64) -> Any:
    """Where a value stands in an open-addressed table, or the empty slot where it would."""
    mask = keys.shape[0] - 1
    place = np.int64((bits * _SPREAD) >> _S40) & mask
    while used[place] > 0 and keys[place] != bits:
        place = (place + 1) & mask
    return place


@kernel
def count_values(values: Any, limit: int, keys: Any, used: Any) -> Any:
    """The distinct values and how often each occurs.

    Args:
        values: float64 [n], 0 or more.
        limit: stop when there are more distinct values than this.
        keys: uint64 [2^s], 2^s at least 2 limit, below 2^24: the bits of a value.
        used: int64 [2^s], zeros: how often it occurs.

    Returns:
        The number of distinct values (limit + 1 where there are more), and whether the values
        never rise.
    """
    distinct = 0
    falling = True
    last = np.inf
    for i in range(values.shape[0]):
        value = values[i] + 0.0  # -0.0 is 0.0
        falling = falling and value <= last
        place = _slot_of(keys, used, bits_of(value))
        if used[place] == 0:
            distinct += 1
            if distinct > limit:
                return distinct, False
            keys[place] = bits_of(value)
        used[place] += 1
        last = value
    return distinct, falling


@kernel
def order_by_class(
    values: Any, keys: Any, used: Any, class_of_slot: Any, next_place: Any, order: Any
) -> None:
    """order[...] = the items by class, ascending inside a class; next_place [C] is used up."""
    for i in range(values.shape[0]):
        c = class_of_slot[_slot_of(keys, used, bits_of(values[i] + 0.0))]
        order[next_place[c]] = i
        next_place[c] += 1


@kernel
def settle_masses(by_size: Any, sizes: Any, target: int, masses: Any) -> int:
    """Change masses by a few units, so that masses times sizes sum to the target.

    Args:
        by_size: int64 [C], classes from the largest to the smallest; among those with a mass there
            is one of a single item.
        sizes: int64 [C].
        target: far above the number of items, so that the heaviest class has units to give.
        masses: uint64 [C], the mass of one item, changed in place; 0 stays 0.

    Returns:
        The units that found no place: 0 where a single item has a mass.
    """
    total = 0
    heaviest = 0
    for c in range(masses.shape[0]):
        total += np.int64(masses[c]) * sizes[c]
        if np.int64(masses[c]) * sizes[c] > np.int64(masses[heaviest]) * sizes[heaviest]:
            heaviest = c
    rest = target - total
    if rest < 0:
        units = -(rest // sizes[heaviest])  # rounded up
        masses[heaviest] -= np.uint64(units)
        rest += units * sizes[heaviest]
    for k in range(by_size.shape[0]):
        c = by_size[k]
        if rest >= sizes[c] and masses[c] > np.uint64(0):
            units = rest // sizes[c]
            masses[c] += np.uint64(units)
            rest -= units * sizes[c]
    return rest


@kernel
def spread_over_items(spans: Any, order: Any, values: Any, out: Any) -> None:
    """out[item] = values[class of the item]; order: uint32 [n], or empty."""
    for c in range(spans.shape[0]):
        first, size = np.int64(spans[c] >> _S32), np.int64(spans[c] & _LOW)
        for p in range(first, first + size):
            if order.shape[0] > 0:
                out[np.int64(order[p])] = values[c]
            else:
                out[p] = values[c]


@helper
def pick_class(table: Any, w: np.uint64) -> Any:
    """A class from a 64-bit word: its high part chooses a cell, the rest is the coin."""
    n = np.uint64(table.shape[0]) & _LOW
    low = (w & _LOW) * n
    t = (w >> _S32) * n + (low >> _S32)
    coin = (t << _S32) | (low & _LOW)
    cell = table[np.int64(t >> _S32)]
    return np.int64(t >> _S32 if coin < (cell & _THRESHOLD) else cell & _ALIAS)


@helper
def position_in(spans: Any, c: int, w: np.uint64) -> Any:
    """A uniform position of class c from a 64-bit word."""
    span = spans[c]
    size = span & _LOW
    rank = ((w >> _S32) * size + (((w & _LOW) * size) >> _S32)) >> _S32
    return np.int64((span >> _S32) + rank)


@helper
def pick_position(table: Any, spans: Any, w: np.uint64, second: np.uint64) -> Any:
    """A draw from two words: the position of an item in the order of the classes."""
    return position_in(spans, pick_class(table, w), second)


@kernel
def draw_class_items(
    table: Any,
    spans: Any,
    order: Any,
    key: np.uint64,
    salt: np.uint64,
    row: int,
    first_draw: int,
    out: Any,
) -> None:
    """out[d] = the draw of (row, first_draw + d); out: int64 [k]; order: uint32 [n] or empty."""
    wide_vectors()
    place = row_key(key, np.uint64(row)) + np.uint64(first_draw) * GOLDEN
    count = out.shape[0]
    if order.shape[0] == 0:
        for d in range(count):
            place += GOLDEN
            out[d] = pick_position(table, spans, mix64(place), mix64(place ^ salt))
        return
    # two blocks in turn: the lines of one are on their way while the other is read
    positions = np.empty(2 * _BLOCK, np.int64)
    for s in range(0, count + _BLOCK, _BLOCK):
        half = ((s // _BLOCK) & 1) * _BLOCK
        for j in range(min(_BLOCK, count - s)):
            place += GOLDEN
            positions[half + j] = pick_position(table, spans, mix64(place), mix64(place ^ salt))
        for j in range(min(_BLOCK, count - s)):
            prefetch(order, positions[half + j])
        if s > 0:
            before = s - _BLOCK
            for j in range(min(_BLOCK, count - before)):
                out[before + j] = np.int64(order[positions[_BLOCK - half + j]])


@kernel
def draw_class_entries(
    table: Any,
    spans: Any,
    order: Any,
    class_log_q: Any,
    key: np.uint64,
    salt: np.uint64,
    row: int,
    first_draw: int,
    out: Any,
    log_q: Any,
) -> None:
    """As ``draw_class_items``, with log_q[d] = class_log_q of the class drawn (uint32 bits)."""
    wide_vectors()
    place = row_key(key, np.uint64(row)) + np.uint64(first_draw) * GOLDEN
    count = out.shape[0]
    if order.shape[0] == 0:
        for d in range(count):
            place += GOLDEN
            c = pick_class(table, mix64(place))
            out[d] = position_in(spans, c, mix64(place ^ salt))
            log_q[d] = class_log_q[c]
        return
    positions = np.empty(2 * _BLOCK, np.int64)
    for s in range(0, count + _BLOCK, _BLOCK):
        half = ((s // _BLOCK) & 1) * _BLOCK
        for j in range(min(_BLOCK, count - s)):
            place += GOLDEN
            c = pick_class(table, mix64(place))
            positions[half + j] = position_in(spans, c, mix64(place ^ salt))
            log_q[s + j] = class_log_q[c]
        for j in range(min(_BLOCK, count - s)):
            prefetch(order, positions[half + j])
        if s > 0:
            before = s - _BLOCK
            for j in range(min(_BLOCK, count - before)):
                out[before + j] = np.int64(order[positions[_BLOCK - half + j]])
