"""Draws by inversion for rows where rejection is hopeless: a point of the allowed mass, looked up.

The allowed items of a row are laid side by side, in the order of their ids, each as long as its
mass; one word picks a point, and the item that it falls on is the draw. Three ways find it, and
they find the same one: the list's own table of allowed items, made once; such a table made for
the row now, where the row allows few items; or the running sums of all items, with the excluded
ones that lie before the point skipped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.rng import multiply_high, row_key, word

_ZERO = np.uint64(0)
_FEW = 4  # a row that allows less than one item in this many gets a table of them


@kernel
def running_sums(masses: Any, stride: int, starts: Any) -> None:
    """starts[s] = the mass before item s stride; starts: uint64 [ceil(n / stride)]."""
    total = _ZERO
    for s in range(starts.shape[0]):
        starts[s] = total
        for i in range(s * stride, min((s + 1) * stride, masses.shape[0])):
            total += masses[i]


@helper
def mass_before(masses: Any, starts: Any, stride: int, item: int) -> Any:
    """The mass of the items below ``item``."""
    block = item // stride
    total = starts[block]
    for i in range(block * stride, item):
        total += masses[i]
    return total


@helper
def first_above(sums: Any, low: int, high: int, point: np.uint64) -> int:
    """The first place in the ascending ``sums[low:high]`` that lies above the point."""
    while low < high:
        middle = (low + high) >> 1
        if sums[middle] <= point:
            low = middle + 1
        else:
            high = middle
    return low


@helper
def fill_allowed(
    masses: Any, excluded: Any, low: int, high: int, first: int, items: Any, sums: Any
) -> int:
    """Write the allowed items with mass, and the running sums of their masses, from ``first`` on.

    Returns the place after the last.
    """
    total = _ZERO
    place = first
    i = 0
    e = low
    while True:
        # a run of neighbours in the list allows nothing in between
        while e + 8 < high and excluded[e] == i and excluded[e + 8] == i + 8:
            e += 8
            i += 8
        stop = excluded[e] if e < high else masses.shape[0]
        while i < stop:
            if masses[i] > _ZERO:
                total += masses[i]
                items[place] = i
                sums[place] = total
                place += 1
            i += 1
        if e >= high:
            return place
        e += 1
        i += 1


@kernel
def fill_complements(
    masses: Any, indptr: Any, excluded: Any, chosen: Any, bounds: Any, items: Any, sums: Any
) -> None:
    """The tables of allowed items of some lists.

    Args:
        chosen: int64 [c], the lists.
        bounds: int64 [c + 1], where each table begins; its length is known beforehand.
        items: uint32; sums: uint64, running sums within a table.
    """
    for c in range(chosen.shape[0]):
        o = chosen[c]
        fill_allowed(masses, excluded, indptr[o], indptr[o + 1], bounds[c], items, sums)


@helper
def _fill_skips(
    masses: Any, starts: Any, stride: int, excluded: Any, low: int, high: int, before: Any
) -> None:
    """before[e] = the allowed mass before excluded[low + e]."""
    gone = _ZERO
    if (high - low) * stride <= 2 * masses.shape[0]:
        for e in range(high - low):
            item = excluded[low + e]
            before[e] = mass_before(masses, starts, stride, item) - gone
            gone += masses[item]
        return
    total = _ZERO  # one pass over all items costs less
    i = 0
    for e in range(high - low):
        item = excluded[low + e]
        while i < item:
            total += masses[i]
            i += 1
        before[e] = total
        i += 1


@helper
def _item_at(masses: Any, starts: Any, stride: int, point: np.uint64) -> int:
    """The item whose mass holds the point, among all items."""
    i = (first_above(starts, 0, starts.shape[0], point) - 1) * stride
    total = mass_before(masses, starts, stride, i) + masses[i]
    while total <= point:
        i += 1
        total += masses[i]
    return i


@kernel
def finish_by_mass(
    masses: Any,
    starts: Any,
    stride: int,
    total: np.uint64,
    indptr: Any,
    excluded: Any,
    excluded_mass: Any,
    attempts: Any,
    table_of: Any,
    bounds: Any,
    table_items: Any,
    table_sums: Any,
    owner: Any,
    key: np.uint64,
    rows: Any,
    first_draw: int,
    source: Any,
    base: int,
    items: Any,
) -> None:
    """Finish the cells at -1 without rejection.

    Args:
        masses: uint64 [n].
        starts, stride: as from ``running_sums``; the stride decides speed and memory, never an id.
        total: the sum of all masses.
        excluded_mass: uint64 [lists + 1].
        attempts: int8 [lists + 1]; the word used is that of the attempt after the last.
        table_of: int64 [lists + 1], the list's own table, or -1; bounds, table_items, table_sums:
            as from ``fill_complements``.
        items: int64 [B K]; the rest is as in ``draws.py``.
    """
    everything = source.shape[0] == 0
    num_rows = rows.shape[0]
    width = items.shape[0] // max(1, num_rows)
    n = masses.shape[0]
    for b in range(num_rows):
        waiting = 0
        for d in range(width):
            if items[b * width + d] < 0 and (everything or source[b, d] == base):
                waiting += 1
        if waiting == 0:
            continue
        o = owner[b]
        low, high = indptr[o], indptr[o + 1]
        start = row_key(key, np.uint64(rows[b]))
        allowed = total - excluded_mass[o]
        own = table_of[o]
        few = own < 0 and (n - (high - low)) * _FEW < n
        size = n - (high - low) if few else 0
        near, sums = np.empty(size, np.int64), np.empty(size, np.uint64)
        before = np.empty(0 if few or own >= 0 else high - low, np.uint64)
        if few:
            size = fill_allowed(masses, excluded, low, high, 0, near, sums)
        elif own < 0:
            _fill_skips(masses, starts, stride, excluded, low, high, before)
        for d in range(width):
            if items[b * width + d] >= 0 or not (everything or source[b, d] == base):
                continue
            w = word(start, np.uint64(first_draw + d), np.uint64(attempts[o]))
            point = multiply_high(w, allowed)
            if own >= 0:
                place = first_above(table_sums, bounds[own], bounds[own + 1], point)
                item: Any = np.int64(table_items[place])
            elif few:
                item = near[first_above(sums, 0, size, point)]
            else:
                skipped = first_above(before, 0, before.shape[0], point)
                if skipped > 0:
                    last = excluded[low + skipped - 1]
                    gone = mass_before(masses, starts, stride, last) + masses[last]
                    point += gone - before[skipped - 1]
                item = _item_at(masses, starts, stride, point)
            items[b * width + d] = item
