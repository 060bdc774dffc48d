"""Ranking a block of score rows: best columns in order, and where the wanted ones stand.

Of two equal scores the lower column goes first. A score of -inf is no candidate: it is in no
list, and a wanted column that has it is not found.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import helper, kernel

_STEP = 64  # columns that one vectorised test skips at once


@helper
def _hide(row: Any, indptr: Any, columns: Any, owner: int) -> None:
    """Set one owner's columns to -inf."""
    for place in range(indptr[owner], indptr[owner + 1]):
        row[columns[place]] = -np.inf


@helper
def _count_before(row: Any, column: int) -> int:
    """How many scores stand before the one at ``column``: 32-bit counts fill whole vectors."""
    bound = row[column]
    lower, higher = row[:column], row[column + 1 :]
    before = np.uint32(0)
    for j in range(lower.shape[0]):
        before = np.uint32(before + np.uint32(lower[j] >= bound))
    for j in range(higher.shape[0]):
        before = np.uint32(before + np.uint32(higher[j] > bound))
    return int(before)


@helper
def _none_above(row: Any, start: int, bound: np.float32) -> bool:
    """Whether a whole step of scores stays at ``bound`` or below; a NaN does not."""
    part = row[start : start + _STEP]
    above = np.uint32(0)
    for j in range(_STEP):
        above = np.uint32(above + np.uint32(not part[j] <= bound))
    return bool(above == 0)


@helper
def _fill_top(row: Any, items: Any, values: Any) -> tuple[int, int]:
    """The best columns, best first, by insertion; how many there are, and a NaN's column or -1."""
    k = items.shape[0]
    size = 0
    bad = -1
    bound = np.float32(-np.inf)  # a score has to beat it to enter
    for start in range(0, row.shape[0], _STEP):
        stop = min(start + _STEP, row.shape[0])
        if stop - start == _STEP and _none_above(row, start, bound):
            continue
        for j in range(start, stop):
            value = row[j]
            if value <= bound:
                continue
            if value != value:
                bad = j
                continue
            place = size if size < k else k - 1
            while place > 0 and values[place - 1] < value:
                values[place] = values[place - 1]
                items[place] = items[place - 1]
                place -= 1
            values[place] = value
            items[place] = j
            if size < k:
                size += 1
            if size == k:
                bound = values[k - 1]
    return size, bad


@helper
def _lower_bound(columns: Any, start: int, stop: int, column: int) -> int:
    """The first place of a sorted stretch that holds ``column`` or more."""
    while start < stop:
        middle = (start + stop) >> 1
        if columns[middle] < column:
            start = middle + 1
        else:
            stop = middle
    return start


@kernel
def rank_rows(
    scores: Any,
    owners: Any,
    hidden_indptr: Any,
    hidden_columns: Any,
    hidden_too_indptr: Any,
    hidden_too_columns: Any,
    wanted_indptr: Any,
    wanted_columns: Any,
    group_of_column: Any,
    top_items: Any,
    top_hits: Any,
    ranks: Any,
    bad_columns: Any,
) -> None:
    """Rank each row's columns, two sets of hidden ones left out.

    Args:
        scores: float32 [B, N], overwritten at hidden columns.
        owners: int64 [B], the row of the two hidden CSRs that each score row uses.
        hidden_indptr, hidden_columns, hidden_too_indptr, hidden_too_columns: int64 CSRs.
        wanted_indptr, wanted_columns: int64 CSR, one row a score row, sorted, none hidden; its
            indptr may start above 0.
        group_of_column: int64 [N], 0..G-1.
        top_items: int64 [B, k], out: the best columns, best first, -1 behind the last.
        top_hits: bool [B, k], out: which of them are wanted.
        ranks: int64 [B, G], out: the rank, from 1, of the best wanted column of each group among
            all columns that are not hidden; 0 where there is none.
        bad_columns: int64 [B], out: a column whose score is NaN, or -1.
    """
    num_rows = scores.shape[0]
    num_groups = ranks.shape[1]
    values = np.empty(top_items.shape[1], dtype=np.float32)
    best = np.empty(num_groups, dtype=np.int64)
    for r in range(num_rows):
        row = scores[r]
        _hide(row, hidden_indptr, hidden_columns, owners[r])
        _hide(row, hidden_too_indptr, hidden_too_columns, owners[r])
        start, stop = wanted_indptr[r], wanted_indptr[r + 1]
        best[:] = -1
        for place in range(start, stop):
            column = wanted_columns[place]
            group = group_of_column[column]
            if row[column] > -np.inf and (best[group] < 0 or row[column] > row[best[group]]):
                best[group] = column
        for group in range(num_groups):
            ranks[r, group] = 0
            if best[group] >= 0:
                ranks[r, group] = 1 + _count_before(row, best[group])

        size, bad_columns[r] = _fill_top(row, top_items[r], values)
        for place in range(top_items.shape[1]):
            top_hits[r, place] = False
            if place >= size:
                top_items[r, place] = -1
                continue
            found = _lower_bound(wanted_columns, start, stop, top_items[r, place])
            top_hits[r, place] = found < stop and wanted_columns[found] == top_items[r, place]
