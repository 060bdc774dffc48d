"""Alias tables and draws over segments: many small distributions laid end to end.

A segment is a run of places; ``order`` says which item stands at a place, items ascending inside
a segment. All tables share one array of packed cells (see ``alias.py``), aliases being counted from
the segment's first place, and the masses of a segment of s places sum to exactly s 2^32. Every
item in a segment has a mass of 1 or more.

What a row excludes is given as the ascending places of its own segment that are excluded:
``places[starts[b]:starts[b] + counts[b]]``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.exclusion import contains
from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.rng import multiply_high, row_key, word

_BLOCK = 4096  # weights are summed in blocks of this many: small errors, the same everywhere
_CELL = np.uint64(1 << 32)
_LOW = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)
_ZERO = np.uint64(0)


@kernel
def place_items(group: Any, weights: Any, following: Any, order: Any, places: Any) -> None:
    """Sort the items of one level into their segments.

    Args:
        group: int32 [N], the segment of each item, -1 for none.
        weights: float64 [N]; items of weight 0 are left out.
        following: int64 [segments], the first place of each segment; left as its end.
        order: int32 [places]; places: int32 [N], the item's place, -1 for none; both written.
    """
    for i in range(group.shape[0]):
        places[i] = -1
        if group[i] >= 0 and weights[i] > 0.0:
            place = following[group[i]]
            following[group[i]] = place + 1
            order[place] = i
            places[i] = place


@helper
def _sum_of(weights: Any, low: int, high: int, largest: float, limit: float) -> Any:
    """The sum of weights / largest of ``limit`` or more, and how many are lower."""
    total = 0.0
    small = 0
    for first in range(low, high, _BLOCK):
        block = 0.0
        for p in range(first, min(first + _BLOCK, high)):
            w = weights[p] / largest
            if w >= limit:
                block += w
            else:
                small += 1
        total += block
    return total, small


@helper
def _apportion(weights: Any, low: int, high: int, masses: Any) -> None:
    """Whole masses of 1 or more, in proportion to the weights, that sum to (high - low) 2^32.

    As ``alias.py`` does: what would fall below 1 gets 1, the others share the rest.
    """
    size = high - low
    largest = 0.0
    for p in range(low, high):
        largest = max(largest, weights[p])
    target = float(size) * 4294967296.0
    everything, _ = _sum_of(weights, low, high, largest, 0.0)
    large, small = _sum_of(weights, low, high, largest, everything / target)
    scale = (target - float(small)) / large
    rest = np.int64(size) << np.int64(32)
    for p in range(low, high):
        mass = max(np.int64(weights[p] / largest * scale), np.int64(1))
        masses[p] = np.uint64(mass)
        rest -= mass
    if rest < 0:  # rounding of the scale, or weights just above the limit
        masses[low + np.argmax(masses[low:high])] -= np.uint64(-rest)
        return
    each, left, error = rest // size, rest % size, np.int64(0)
    for p in range(low, high):
        error += left
        over = np.int64(error >= size)
        error -= over * size
        masses[p] += np.uint64(each + over)


@helper
def _next(masses: Any, p: int, high: int, heavy: bool) -> int:
    while p < high and (masses[p] >= _CELL) != heavy:
        p += 1
    return p


@helper
def _fill(masses: Any, low: int, high: int, cells: Any) -> None:
    """The sweep with two fingers of Huebschle-Schneider and Sanders 2022 (see ``alias.py``)."""
    light, heavy = _next(masses, low, high, False), _next(masses, low, high, True)
    held = masses[heavy]
    while heavy < high:
        if held > _CELL:
            cells[light] = (masses[light] << _S32) | np.uint64(heavy - low)
            held -= _CELL - masses[light]
            light = _next(masses, light + 1, high, False)
            continue
        following = _next(masses, heavy + 1, high, True)
        if held == _CELL or following == high:
            cells[heavy] = (_LOW << _S32) | np.uint64(heavy - low)
            if following < high:
                held = masses[following]
        else:
            cells[heavy] = (held << _S32) | np.uint64(following - low)
            held = masses[following] - (_CELL - held)
        heavy = following


@kernel
def build_segments(
    indptr: Any, first: int, last: int, weights: Any, masses: Any, cells: Any
) -> None:
    """Masses and table of the segments ``first..last-1``.

    Args:
        indptr: int64 [segments + 1], the first place of each.
        weights: float64 [places], all above 0.
        masses, cells: uint64 [places], written.
    """
    for s in range(first, last):
        low, high = indptr[s], indptr[s + 1]
        if low < high:
            _apportion(weights, low, high, masses)
            _fill(masses, low, high, cells)


@kernel
def choose_segments(
    groups: Any,
    positives: Any,
    needed: int,
    segments: Any,
    places_of: Any,
    masses: Any,
    indptr: Any,
    excluded: Any,
    owner: Any,
    starts: Any,
    places: Any,
    counts: Any,
    levels: Any,
    chosen: Any,
    gone: Any,
) -> None:
    """The first level with enough allowed items for each row, and what is excluded there.

    Args:
        groups: int32 [levels, N], the segment of each item at each level but the last, which has
            one segment for all; -1 for none.
        positives: int64 [B], the items whose groups count; not read where there is one level.
        needed: how many allowed items a level must have; the last need not.
        segments: int64 [segments + 1], the first place of each.
        places_of: int32 [levels + 1, N], the place of each item at each level, -1 for none.
        masses: uint64 [places].
        indptr, excluded, owner: the rows' excluded ids, as in ``exclusion.py``.
        starts: int64 [B], where each row's part of ``places`` begins: room for its whole list.
        places: int32, written: the excluded places of the row's segment, ascending.
        counts: int64 [B], how many these are; gone: uint64 [B], their mass; written.
        levels: int8 [B]; chosen: int64 [B], the segment; written.
    """
    last = groups.shape[0]
    for b in range(owner.shape[0]):
        i = end = 0
        if owner[b] >= 0:
            i, end = indptr[owner[b]], indptr[owner[b] + 1]
        for level in range(last + 1):
            segment = segments.shape[0] - 2
            if level < last:
                segment = np.int64(groups[level, positives[b]])
                if segment < 0 or segments[segment + 1] - segments[segment] < needed:
                    continue
            low, high = segments[segment], segments[segment + 1]
            count = 0
            for e in range(i, end):  # few are inside: written anyway, counted if so
                place = np.int64(places_of[level, excluded[e]])
                places[starts[b] + count] = place
                count += (place >= low) & (place < high)
            mass = _ZERO
            for e in range(starts[b], starts[b] + count):
                mass += masses[places[e]]
            if level == last or high - low - count >= needed:
                counts[b], levels[b], chosen[b], gone[b] = count, level, segment, mass
                break


@helper
def _pick(cells: Any, low: Any, size: np.uint64, w: np.uint64) -> Any:
    """A place of the segment that begins at ``low``, from a 64-bit word; see ``alias.pick``."""
    t = (w >> _S32) * size + (((w & _LOW) * size) >> _S32)
    own = t >> _S32
    cell = cells[np.uint64(low) + own]
    alias = cell & _LOW
    # a mask instead of a branch, which would be mispredicted half of the time
    mask = _ZERO - np.uint64((t & _LOW) < (cell >> _S32))
    return np.int64(np.uint64(low) + (alias ^ ((alias ^ own) & mask)))


@kernel
def draw_segments(
    cells: Any,
    order: Any,
    segments: Any,
    chosen: Any,
    levels: Any,
    starts: Any,
    counts: Any,
    places: Any,
    attempts: Any,
    key: np.uint64,
    rows: Any,
    first_draw: int,
    source: Any,
    base: int,
    items: Any,
) -> int:
    """Draws from each row's segment, repeated while they fall on an excluded place.

    Args:
        segments, chosen, levels, starts, counts, places: see ``choose_segments``.
        attempts: int8 [B]: how often a row tries. An unresolved cell gets -1.
        key, rows, first_draw, source, base, items: as in ``draws.py``; cells drawn are tagged
            with ``base`` + level.

    Returns:
        The number of cells left at -1.
    """
    everything = source.shape[0] == 0
    unresolved = 0
    for b in range(rows.shape[0]):
        low = segments[chosen[b]]
        size = np.uint64(segments[chosen[b] + 1] - low)
        first, end = starts[b], starts[b] + counts[b]
        start = row_key(key, np.uint64(rows[b]))
        for d in range(items.shape[1]):
            if not everything:
                if source[b, d] != base:
                    continue
                source[b, d] = base + levels[b]
            found = np.int64(-1)
            for attempt in range(attempts[b]):
                place = _pick(
                    cells, low, size, word(start, np.uint64(first_draw + d), np.uint64(attempt))
                )
                if not contains(places, first, end, place):
                    found = np.int64(order[place])
                    break
            items[b, d] = found
            if found < 0:
                unresolved += 1
    return unresolved


@helper
def _mass_before(masses: Any, sums: Any, stride: int, place: Any) -> Any:
    """The mass of all places before this one, modulo 2^64: differences are exact."""
    block = place // stride
    total = sums[block]
    for p in range(block * stride, place):
        total += masses[p]
    return total


@helper
def _place_at(masses: Any, sums: Any, stride: int, low: int, high: int, point: np.uint64) -> int:
    """The place of ``low..high-1`` that holds this point of the segment's mass."""
    before = _mass_before(masses, sums, stride, low)
    left, right = low // stride, (high - 1) // stride  # the last block that begins by the point
    while left < right:
        middle = (left + right + 1) >> 1
        if sums[middle] - before <= point:
            left = middle
        else:
            right = middle - 1
    place = max(low, left * stride)
    reached = _mass_before(masses, sums, stride, place) - before
    while place < high - 1 and reached + masses[place] <= point:
        reached += masses[place]
        place += 1
    return place


@kernel
def finish_segments(
    masses: Any,
    sums: Any,
    stride: int,
    order: Any,
    segments: Any,
    chosen: Any,
    levels: Any,
    starts: Any,
    counts: Any,
    places: Any,
    gone: Any,
    attempts: Any,
    key: np.uint64,
    rows: Any,
    first_draw: int,
    source: Any,
    base: int,
    items: Any,
) -> None:
    """Finish the cells at -1: a point of the allowed mass, shifted past what is excluded.

    Args:
        sums: uint64 [ceil(places / stride)], the mass before every stride-th place, modulo 2^64.
        stride: the spacing of ``sums``; it decides speed and memory, never an id.
        attempts: int8 [B]; the word used is that of the attempt after the last.
        others: as in ``choose_segments`` and ``draw_segments``.
    """
    everything = source.shape[0] == 0
    for b in range(rows.shape[0]):
        low, high = segments[chosen[b]], segments[chosen[b] + 1]
        count = counts[b]
        start = row_key(key, np.uint64(rows[b]))
        allowed = (np.uint64(high - low) << _S32) - gone[b]
        ready = False
        shifts, until = np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint64)
        for d in range(items.shape[1]):
            if items[b, d] >= 0 or not (everything or source[b, d] == base + levels[b]):
                continue
            if not ready:  # per excluded place: the allowed mass before it, the excluded up to it
                ready = True
                shifts, until = np.empty(count, np.uint64), np.empty(count, np.uint64)
                before = _mass_before(masses, sums, stride, low)
                shift = _ZERO
                for e in range(count):
                    place = np.int64(places[starts[b] + e])
                    until[e] = _mass_before(masses, sums, stride, place) - before - shift
                    shift += masses[place]
                    shifts[e] = shift
            w = word(start, np.uint64(first_draw + d), np.uint64(attempts[b]))
            point = multiply_high(w, allowed)
            left, right = 0, count  # how many excluded places lie before the point
            while left < right:
                middle = (left + right) >> 1
                if until[middle] <= point:
                    left = middle + 1
                else:
                    right = middle
            if left > 0:
                point += shifts[left - 1]
            items[b, d] = np.int64(order[_place_at(masses, sums, stride, low, high, point)])


@kernel
def segments_log_q(
    log_q: Any,
    places_of: Any,
    segments: Any,
    chosen: Any,
    levels: Any,
    starts: Any,
    counts: Any,
    places: Any,
    log_allowed: Any,
    check: bool,
    items: Any,
    out: Any,
) -> None:
    """out[b, d] = log_q[level of b, items[b, d]] - log_allowed[b], rounded once.

    Args:
        log_q: float64 [levels + 1, N], inside the item's own segment.
        log_allowed: float64 [B], ln of the share of the segment that is allowed.
        check: whether to write -inf for items that are excluded or outside the row's segment.
        items: int64 [B, K]; out: float32 or float64 [B, K]; others: as in ``draw_segments``.
    """
    for b in range(items.shape[0]):
        level = levels[b]
        low, high = segments[chosen[b]], segments[chosen[b] + 1]
        first, end = starts[b], starts[b] + counts[b]
        for d in range(items.shape[1]):
            if check:
                place = np.int64(places_of[level, items[b, d]])
                if not low <= place < high or contains(places, first, end, place):
                    out[b, d] = -np.inf
                    continue
            value = log_q[level, items[b, d]] - log_allowed[b]
            if value > 0.0:  # the last item left: ln 1, but for the rounding of the two
                value = 0.0
            out[b, d] = value
