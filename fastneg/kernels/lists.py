"""Draws from a list per row, in proportion to the masses of its entries."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import kernel
from fastneg.kernels.pow import log
from fastneg.kernels.rng import multiply_high, row_key, word

_ZERO = np.uint64(0)


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
