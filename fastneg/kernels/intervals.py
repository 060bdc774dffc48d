"""Which items are there at a time: interval stabbing over ranks of times.

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

from fastneg.kernels.jit import helper, kernel

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
def find_runs(tree: Any, started: int, ended: int, runs: Any, before: Any) -> int:
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
def cell_at(tree: Any, runs: Any, before: Any, point: Any) -> tuple[Any, Any, Any]:
    """Of a point below the mass of all runs: its run, the place of its cell, its running sum."""
    run = 0
    while before[run + 1] <= point:
        run += 1
    side, begin = runs[run, 0], runs[run, 1]
    offset = point - before[run]
    place = begin + np.int64(offset >> tree[5][side, runs[run, 3]])
    return run, place, tree[3][side, begin] + offset


@helper
def guided(tree: Any, runs: Any, run: int, place: int) -> tuple[Any, Any]:
    """The first and the last entry that a cell of a run leaves possible."""
    nodes, guides = tree[0], tree[4]
    left, right = np.int64(guides[runs[run, 0], place]), runs[run, 2] - 1
    if place + 1 < nodes[runs[run, 3] + 1]:
        right = min(right, np.int64(guides[runs[run, 0], place + 1]))
    return left, right


@helper
def search(tree: Any, side: int, left: int, right: int, target: Any) -> Any:
    """The last entry in ``left..right`` that starts at or before the target."""
    sums = tree[3]
    while left < right:
        middle = (left + right + 1) >> 1
        if sums[side, middle] <= target:
            left = middle
        else:
            right = middle - 1
    return left


@helper
def item_at(tree: Any, runs: Any, before: Any, point: Any) -> Any:
    """The item at a point below the mass of all runs."""
    run, place, target = cell_at(tree, runs, before, point)
    left, right = guided(tree, runs, run, place)
    return tree[2][runs[run, 0], search(tree, runs[run, 0], left, right, target)]


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


@helper
def mass_before(tree: Any, run: int, runs: Any, before: Any, rank: Any, item: Any) -> Any:
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
def place_excluded(
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
            places[known] = mass_before(tree, run, runs, before, rank, item)
            weights[known] = masses[item]
            known += 1
    order = np.argsort(places[:known])
    skipped[0] = _ZERO
    for j in range(known):
        gaps[j] = places[order[j]] - skipped[j]
        skipped[j + 1] = skipped[j] + weights[order[j]]
    return known
