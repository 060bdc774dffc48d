"""Which items are there at a time, and draws from them: interval stabbing over ranks of times.

Times enter as ranks, so that kernels know integers only. The distinct first times are ticks
1..T; an item's interval is (tick of its first time, rank of its last time among the distinct last
times), and a time t is (``started``: ticks <= t, ``ended``: last times < t): an item is there when
its tick <= started and its last rank >= ended.

An interval tree (Edelsbrunner 1980) over the ticks: a perfect binary tree in which node c stands
for tick c, its level is the number of trailing zeros of c, and an item is kept at the highest node
whose tick lies in its interval. At a time with ``started`` = r only the ancestors of r (and r) hold
items that are there, and of each a prefix of one of its two lists: c <= r, the items by descending
last time; c > r, the items by ascending first time. So what is there at any time is one run of
entries per level, at most 32 in all, with no entry too many. Running sums of the masses, and a
guide into them (Chen and Asau 1974), turn a point of the mass into an item in constant expected
time. Memory is linear in the items.

The tables, for n items with mass; kernels take ``tree`` = (nodes, keys, entries, sums, guides,
shifts) and ``facts`` = (ranks, reaches, masses) as tuples:
    nodes: int64 [T + 2]; node c has the entries nodes[c]:nodes[c + 1] of both lists.
    keys: int32 [2, n], ascending within a node: the first tick; minus the last rank.
    entries: int32 [2, n], the items, ascending where keys are equal.
    sums: uint64 [2, n + 1], the mass before each entry.
    guides: int32 [2, n]; the mass of a node is cut into cells of 2^shift, n of them at most, and
        the node's c-th place has the last entry that starts at or before cell c.
    shifts: uint64 [2, T + 1], the shift of each node.
    ranks: int32 [N, 2], tick and last rank of every item; an item without mass has tick T + 1.
    reaches: int32 [last times], the number of ticks up to each distinct last time.
    masses: uint64 [N].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.exclusion import contains
from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.pow import log
from fastneg.kernels.rng import multiply_high, row_key, word

LEVELS = 32  # ticks are int32
_ZERO = np.uint64(0)


@helper
def _prefix(keys: Any, side: int, begin: int, end: int, bound: int) -> int:
    """The end of the entries in ``begin:end`` whose key is at most ``bound``."""
    if keys[side, begin] > bound:
        return begin
    if keys[side, end - 1] <= bound:
        return end
    while begin < end:
        middle = (begin + end) >> 1
        if keys[side, middle] <= bound:
            begin = middle + 1
        else:
            end = middle
    return begin


@helper
def _find_runs(tree: Any, started: int, ended: int, runs: Any, before: Any) -> int:
    """The runs of entries that are there, from the root down; returns their number.

    Args:
        runs: int64 [LEVELS, 4], written: side, begin, end, node.
        before: uint64 [LEVELS + 1], written: the mass before each run, and of all.
    """
    nodes, keys, _, sums, _, _ = tree
    count = 0
    before[0] = _ZERO
    if started == 0:
        return 0
    ticks = nodes.shape[0] - 2
    level = 0
    while (ticks >> (level + 1)) > 0:
        level += 1
    while level >= 0:
        node = ((started >> (level + 1)) << (level + 1)) | (1 << level)
        if node <= ticks:
            begin, end = nodes[node], nodes[node + 1]
            side = (started >> level) & 1
            if begin < end:
                end = _prefix(keys, side, begin, end, -ended if side else started)
            if begin < end:
                runs[count, 0], runs[count, 1], runs[count, 2] = side, begin, end
                runs[count, 3] = node
                before[count + 1] = before[count] + (sums[side, end] - sums[side, begin])
                count += 1
        if node == started:
            break
        level -= 1
    return count


@helper
def _item_at(tree: Any, runs: Any, before: Any, point: Any) -> Any:
    """The item at a point below the mass of all runs."""
    nodes, _, entries, sums, guides, shifts = tree
    run = 0
    while before[run + 1] <= point:
        run += 1
    side, begin, node = runs[run, 0], runs[run, 1], runs[run, 3]
    offset = point - before[run]
    cell = begin + np.int64(offset >> shifts[side, node])
    left, right = np.int64(guides[side, cell]), runs[run, 2] - 1
    if cell + 1 < nodes[node + 1]:
        right = min(right, np.int64(guides[side, cell + 1]))
    target = sums[side, begin] + offset
    while left < right:  # the last entry that starts at or before the target
        middle = (left + right + 1) >> 1
        if sums[side, middle] <= target:
            left = middle
        else:
            right = middle - 1
    return entries[side, left]


@helper
def highest_node(first: Any, last: Any) -> Any:
    """The node of ``first..last`` (1 or more) with the most trailing zeros."""
    differing = (first - 1) ^ last
    level = 0
    while (differing >> (level + 1)) > 0:
        level += 1
    return (last >> level) << level


@kernel
def fill_guides(nodes: Any, sums: Any, guides: Any, shifts: Any) -> None:
    """Fill ``guides`` and ``shifts`` from the other tables."""
    for side in range(2):
        for node in range(1, nodes.shape[0] - 1):
            begin, end = nodes[node], nodes[node + 1]
            if begin == end:
                continue
            last = sums[side, end] - sums[side, begin] - np.uint64(1)
            shift = _ZERO
            while np.int64(last >> shift) >= end - begin:
                shift += np.uint64(1)
            shifts[side, node] = shift
            entry = begin
            for cell in range(end - begin):
                start = sums[side, begin] + (np.uint64(cell) << shift)
                while entry + 1 < end and sums[side, entry + 1] <= start:
                    entry += 1
                guides[side, begin + cell] = entry


@kernel
def count_excluded(
    facts: Any,
    indptr: Any,
    excluded: Any,
    owner: Any,
    started: Any,
    ended: Any,
    mass: Any,
    count: Any,
) -> None:
    """Write the mass and the number of each row's excluded items that are there.

    Args:
        indptr, excluded, owner: the rows' lists, as in ``exclusion.py``.
        mass: uint64 [B]; count: int64 [B].
    """
    ranks, _, masses = facts
    for b in range(owner.shape[0]):
        o = owner[b]
        total = _ZERO
        number = 0
        if o >= 0:
            for e in range(indptr[o], indptr[o + 1]):
                item = excluded[e]
                if ranks[item, 0] <= started[b] and ranks[item, 1] >= ended[b]:
                    total += masses[item]
                    number += 1
        mass[b] = total
        count[b] = number


@kernel
def draw_present(
    tree: Any,
    started: Any,
    ended: Any,
    indptr: Any,
    excluded: Any,
    owner: Any,
    attempts: Any,
    key: np.uint64,
    rows: Any,
    first_draw: int,
    source: Any,
    base: int,
    items: Any,
) -> int:
    """Draws from what is there, repeated while they fall on an excluded id.

    Args:
        attempts: int8 [B]: how often a row tries. A cell that is still unresolved then gets -1;
            ``finish_present`` finishes it.
        rows, first_draw, source, base, items: as in ``draws.py``. A row at whose time nothing is
            there is left alone.

    Returns:
        The number of cells left at -1.
    """
    everything = source.shape[0] == 0
    runs = np.empty((LEVELS, 4), dtype=np.int64)
    before = np.empty(LEVELS + 1, dtype=np.uint64)
    unresolved = 0
    for b in range(rows.shape[0]):
        low = high = 0
        if owner[b] >= 0:
            low, high = indptr[owner[b]], indptr[owner[b] + 1]
        start = row_key(key, np.uint64(rows[b]))
        found = -1
        for d in range(items.shape[1]):
            if not everything and source[b, d] != base:
                continue
            if found < 0:  # not for rows of a mixture that draw nothing here
                found = _find_runs(tree, started[b], ended[b], runs, before)
            if found == 0:
                break
            taken = np.int64(-1)
            for attempt in range(attempts[b]):
                w = word(start, np.uint64(first_draw + d), np.uint64(attempt))
                point = multiply_high(w, before[found])
                item = np.int64(_item_at(tree, runs, before, point))
                if not contains(excluded, low, high, item):
                    taken = item
                    break
            items[b, d] = taken
            if taken < 0:
                unresolved += 1
    return unresolved


@helper
def _mass_before(tree: Any, run: int, runs: Any, before: Any, rank: Any, item: Any) -> Any:
    """Where an item that is there lies in the mass of the runs: it is an entry of run ``run``."""
    _, keys, entries, sums, _, _ = tree
    side, begin = runs[run, 0], runs[run, 1]
    left, right = begin, runs[run, 2]
    while left < right:
        middle = (left + right) >> 1
        other = keys[side, middle]
        if other < rank or (other == rank and entries[side, middle] < item):
            left = middle + 1
        else:
            right = middle
    return before[run] + (sums[side, left] - sums[side, begin])


@helper
def _place_excluded(
    tree: Any,
    facts: Any,
    started: int,
    ended: int,
    excluded: Any,
    low: int,
    high: int,
    runs: Any,
    before: Any,
    found: int,
    gaps: Any,
    skipped: Any,
) -> int:
    """The excluded items that are there, in the order of the runs; returns their number.

    Args:
        gaps: uint64 [high - low], written: the allowed mass before each.
        skipped: uint64 [high - low + 1], written: the excluded mass before each, and of all.
    """
    ranks, reaches, masses = facts
    places = np.empty(high - low, dtype=np.uint64)
    weights = np.empty(high - low, dtype=np.uint64)
    known = 0
    for e in range(low, high):
        item = excluded[e]
        tick, last = np.int64(ranks[item, 0]), np.int64(ranks[item, 1])
        if tick <= started and last >= ended:
            node = highest_node(tick, reaches[last])
            run = 0
            while run < found - 1 and runs[run, 3] != node:
                run += 1
            rank = -last if runs[run, 0] else tick
            places[known] = _mass_before(tree, run, runs, before, rank, item)
            weights[known] = masses[item]
            known += 1
    order = np.argsort(places[:known])
    skipped[0] = _ZERO
    for j in range(known):
        gaps[j] = places[order[j]] - skipped[j]
        skipped[j + 1] = skipped[j] + weights[order[j]]
    return known


@kernel
def finish_present(
    tree: Any,
    facts: Any,
    started: Any,
    ended: Any,
    indptr: Any,
    excluded: Any,
    owner: Any,
    attempts: Any,
    key: np.uint64,
    rows: Any,
    first_draw: int,
    source: Any,
    base: int,
    items: Any,
) -> None:
    """Finish the cells at -1 without rejection.

    The row's excluded items that are there are put in the order of the runs; a point of the
    allowed mass, shifted past those of them that lie below it, is an allowed item.

    Args:
        attempts: int8 [B]; the word used is that of the attempt after the last.
    """
    everything = source.shape[0] == 0
    runs = np.empty((LEVELS, 4), dtype=np.int64)
    before = np.empty(LEVELS + 1, dtype=np.uint64)
    longest = 0
    for b in range(rows.shape[0]):
        if owner[b] >= 0:
            longest = max(longest, indptr[owner[b] + 1] - indptr[owner[b]])
    gaps = np.empty(longest, dtype=np.uint64)
    skipped = np.empty(longest + 1, dtype=np.uint64)
    for b in range(rows.shape[0]):
        low = high = 0
        if owner[b] >= 0:
            low, high = indptr[owner[b]], indptr[owner[b] + 1]
        start = row_key(key, np.uint64(rows[b]))
        found = -1
        known = 0
        allowed = _ZERO
        for d in range(items.shape[1]):
            if not (everything or source[b, d] == base) or items[b, d] >= 0:
                continue
            if found < 0:
                found = _find_runs(tree, started[b], ended[b], runs, before)
                known = _place_excluded(
                    tree, facts, started[b], ended[b], excluded,
                    low, high, runs, before, found, gaps, skipped,
                )  # fmt: skip
                allowed = before[found] - skipped[known]
            if allowed == _ZERO:
                break
            w = word(start, np.uint64(first_draw + d), np.uint64(attempts[b]))
            point = multiply_high(w, allowed)
            left, right = 0, known  # excluded items with at most ``point`` of allowed mass before
            while left < right:
                middle = (left + right) >> 1
                if gaps[middle] <= point:
                    left = middle + 1
                else:
                    right = middle
            items[b, d] = _item_at(tree, runs, before, point + skipped[left])


@kernel
def present_log_q(
    facts: Any,
    started: Any,
    ended: Any,
    log_allowed: Any,
    items: Any,
    check: bool,
    out: Any,
) -> None:
    """out[b, d] = ln(mass of items[b, d]) - log_allowed[b], rounded once.

    Args:
        log_allowed: float64 [B], ln of the mass that each row may draw.
        check: whether an item that is not there gets -inf; else all are taken to be there.
        out: float32 or float64 [B, K].
    """
    ranks, _, masses = facts
    for b in range(items.shape[0]):
        for d in range(items.shape[1]):
            item = items[b, d]
            if check and not (ranks[item, 0] <= started[b] and ranks[item, 1] >= ended[b]):
                out[b, d] = -np.inf
                continue
            value = log(float(masses[item])) - log_allowed[b]
            if value > 0.0:  # the last item left: ln 1, but for the rounding of the two
                value = 0.0
            out[b, d] = value
