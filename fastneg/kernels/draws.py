"""Draws for a batch of rows, one kernel per kind of sampler.

Shared by all: ``rows`` int64 [B] and ``first_draw`` say which words are used; the row's excluded
ids are given as in ``exclusion.py``; ``items`` int64 [B, K] is written. ``source`` int8 [B, K]
restricts a kernel to the cells that hold ``base``; with shape (0, 0) every cell is drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.alias import pick
from fastneg.kernels.exclusion import contains, skip_excluded
from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.pow import log
from fastneg.kernels.rng import multiply_high, row_key, word

_ZERO = np.uint64(0)


@kernel
def draw_uniform(
    num_items: int,
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
    """Uniform over the allowed items, without rejection: a rank among them, shifted to an id."""
    everything = source.shape[0] == 0
    for b in range(rows.shape[0]):
        low = high = 0
        if owner[b] >= 0:
            low, high = indptr[owner[b]], indptr[owner[b] + 1]
        start = row_key(key, np.uint64(rows[b]))
        allowed = np.uint64(num_items - (high - low))
        for d in range(items.shape[1]):
            if everything or source[b, d] == base:
                w = word(start, np.uint64(first_draw + d), _ZERO)
                rank = np.int64(multiply_high(w, allowed))
                items[b, d] = skip_excluded(excluded, low, high, rank)


@kernel
def draw_table(
    cells: Any,
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
    """Draws from an alias table, rejected and repeated while they fall on an excluded id.

    Args:
        cells: uint64 [n], the packed table.
        attempts: int8 [B]: how often a row tries. A cell that is still unresolved then gets -1;
            ``draw_by_mass`` finishes it.

    Returns:
        The number of cells left at -1.
    """
    everything = source.shape[0] == 0
    num_cells = np.uint64(cells.shape[0])
    unresolved = 0
    for b in range(rows.shape[0]):
        low = high = 0
        if owner[b] >= 0:
            low, high = indptr[owner[b]], indptr[owner[b] + 1]
        start = row_key(key, np.uint64(rows[b]))
        if low == high and everything:
            for d in range(items.shape[1]):
                w = word(start, np.uint64(first_draw + d), _ZERO)
                items[b, d] = np.int64(pick(cells, num_cells, w))
            continue
        for d in range(items.shape[1]):
            if not everything and source[b, d] != base:
                continue
            found = np.int64(-1)
            for attempt in range(attempts[b]):
                w = word(start, np.uint64(first_draw + d), np.uint64(attempt))
                item = np.int64(pick(cells, num_cells, w))
                if not contains(excluded, low, high, item):
                    found = item
                    break
            items[b, d] = found
            if found < 0:
                unresolved += 1
    return unresolved


@helper
def _mass_before(masses: Any, starts: Any, stride: int, item: int) -> Any:
    block = item // stride
    total = starts[block]
    for i in range(block * stride, item):
        total += masses[i]
    return total


@kernel
def draw_by_mass(
    masses: Any,
    starts: Any,
    stride: int,
    total: np.uint64,
    indptr: Any,
    excluded: Any,
    excluded_mass: Any,
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

    A point of the allowed mass, shifted past the excluded ids that lie below it, is looked up in
    the running sums.

    Args:
        masses: uint64 [n].
        starts: uint64 [ceil(n / stride)], the mass before every stride-th item.
        stride: the spacing of ``starts``; it decides speed and memory, never an id.
        total: the sum of all masses.
        excluded_mass: uint64 [B], the mass of each row's excluded ids.
        attempts: int8 [B]; the word used is that of the attempt after the last.
    """
    everything = source.shape[0] == 0
    n = masses.shape[0]
    for b in range(rows.shape[0]):
        low = high = 0
        if owner[b] >= 0:
            low, high = indptr[owner[b]], indptr[owner[b] + 1]
        start = row_key(key, np.uint64(rows[b]))
        allowed = total - excluded_mass[b]
        for d in range(items.shape[1]):
            if items[b, d] >= 0 or not (everything or source[b, d] == base):
                continue
            w = word(start, np.uint64(first_draw + d), np.uint64(attempts[b]))
            point = multiply_high(w, allowed)
            for e in range(low, high):
                if _mass_before(masses, starts, stride, excluded[e]) > point:
                    break
                point += masses[excluded[e]]
            left, right = 0, starts.shape[0]  # the last block that starts at or before the point
            while right - left > 1:
                middle = (left + right) >> 1
                if starts[middle] <= point:
                    left = middle
                else:
                    right = middle
            i = left * stride
            before = starts[left]
            while i < n - 1 and before + masses[i] <= point:
                before += masses[i]
                i += 1
            items[b, d] = i


@kernel
def draw_lists(
    indptr: Any,
    entries: Any,
    cumulative: Any,
    owner: Any,
    key: np.uint64,
    rows: Any,
    first_draw: int,
    source: Any,
    base: int,
    items: Any,
) -> None:
    """Draws from a list per row in proportion to the entries' masses.

    Args:
        indptr: int64 [lists + 1]; entries: int64; cumulative: uint64, the running sum of the
            masses within each list, the entry's own included.
        owner: int64 [B], the row's list, which is not empty; -1 leaves the row alone.
    """
    everything = source.shape[0] == 0
    for b in range(rows.shape[0]):
        if owner[b] < 0:
            continue
        low, high = indptr[owner[b]], indptr[owner[b] + 1]
        start = row_key(key, np.uint64(rows[b]))
        total = cumulative[high - 1]
        for d in range(items.shape[1]):
            if everything or source[b, d] == base:
                point = multiply_high(word(start, np.uint64(first_draw + d), _ZERO), total)
                left, right = low, high - 1
                while left < right:
                    middle = (left + right) >> 1
                    if cumulative[middle] <= point:
                        left = middle + 1
                    else:
                        right = middle
                items[b, d] = entries[left]


@kernel
def list_log_q(
    indptr: Any, entries: Any, cumulative: Any, owner: Any, items: Any, out: Any
) -> None:
    """out[b, d] = ln(mass of items[b, d] in the row's list / mass of the list), -inf if not there.

    Entries are ascending and distinct within a list; out: float64 [B, K].
    """
    for b in range(owner.shape[0]):
        low = high = 0
        if owner[b] >= 0:
            low, high = indptr[owner[b]], indptr[owner[b] + 1]
        for d in range(items.shape[1]):
            out[b, d] = -np.inf
            left, right = low, high
            while left < right:
                middle = (left + right) >> 1
                if entries[middle] < items[b, d]:
                    left = middle + 1
                else:
                    right = middle
            if left < high and entries[left] == items[b, d]:
                mass = cumulative[left]
                if left > low:
                    mass -= cumulative[left - 1]
                out[b, d] = log(float(mass)) - log(float(cumulative[high - 1]))
