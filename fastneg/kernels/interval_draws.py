"""Draws from what is there at a time, over the interval tree of ``intervals.py``.

A draw is one point of the mass of the runs and four look-ups that miss the cache; a row's draws
are taken through these steps side by side, so that their misses overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.exclusion import contains
from fastneg.kernels.intervals import (
    LEVELS,
    cell_at,
    find_runs,
    guided,
    item_at,
    place_excluded,
    search,
)
from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.pow import log
from fastneg.kernels.rng import multiply_high, row_key, word

BLOCK = 64  # draws side by side
_ZERO = np.uint64(0)


@helper
def _draw_block(
    tree: Any,
    runs: Any,
    before: Any,
    found: int,
    start: np.uint64,
    first_draw: int,
    chosen: Any,
    of_run: Any,
    lefts: Any,
    rights: Any,
    targets: Any,
    items: Any,
) -> None:
    """The first try of some cells of a row, step by step for all of them."""
    for j in range(chosen.shape[0]):
        w = word(start, np.uint64(first_draw + chosen[j]), _ZERO)
        point = multiply_high(w, before[found])
        of_run[j], lefts[j], targets[j] = cell_at(tree, runs, before, point)
    for j in range(chosen.shape[0]):
        lefts[j], rights[j] = guided(tree, runs, of_run[j], lefts[j])
    for j in range(chosen.shape[0]):
        lefts[j] = search(tree, runs[of_run[j], 0], lefts[j], rights[j], targets[j])
    for j in range(chosen.shape[0]):
        items[chosen[j]] = tree[2][runs[of_run[j], 0], lefts[j]]


@helper
def _redraw(
    tree: Any,
    runs: Any,
    before: Any,
    found: int,
    start: np.uint64,
    first_draw: int,
    chosen: Any,
    excluded: Any,
    low: int,
    high: int,
    attempts: int,
    items: Any,
) -> int:
    """The further tries of cells that fell on an excluded id; returns how many end at -1."""
    unresolved = 0
    for d in chosen:
        attempt = 0
        while contains(excluded, low, high, items[d]):
            attempt += 1
            if attempt == attempts:
                items[d] = -1
                unresolved += 1
                break
            w = word(start, np.uint64(first_draw + d), np.uint64(attempt))
            items[d] = item_at(tree, runs, before, multiply_high(w, before[found]))
    return unresolved


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
    cells, of_run, lefts, rights = np.empty((4, BLOCK), dtype=np.int64)
    targets = np.empty(BLOCK, dtype=np.uint64)
    unresolved = 0
    for b in range(rows.shape[0]):
        low = high = 0
        if owner[b] >= 0:
            low, high = indptr[owner[b]], indptr[owner[b] + 1]
        start = row_key(key, np.uint64(rows[b]))
        found = -1
        d = 0
        while d < items.shape[1]:
            count = 0
            while d < items.shape[1] and count < BLOCK:
                if everything or source[b, d] == base:
                    cells[count] = d
                    count += 1
                d += 1
            if count == 0:
                break
            if found < 0:  # not for rows of a mixture that draw nothing here
                found = find_runs(tree, started[b], ended[b], runs, before)
            if found == 0:
                break
            if attempts[b] == 0:
                for j in range(count):
                    items[b, cells[j]] = -1
                unresolved += count
                continue
            chosen = cells[:count]
            _draw_block(
                tree, runs, before, found, start, first_draw, chosen, of_run, lefts, rights,
                targets, items[b],
            )  # fmt: skip
            if low < high:
                unresolved += _redraw(
                    tree, runs, before, found, start, first_draw, chosen, excluded, low, high,
                    attempts[b], items[b],
                )  # fmt: skip
    return unresolved


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
                found = find_runs(tree, started[b], ended[b], runs, before)
                known = place_excluded(
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
            items[b, d] = item_at(tree, runs, before, point + skipped[left])


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
