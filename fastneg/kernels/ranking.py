"""Ranking a block of score rows: best columns in order, and where the wanted ones stand.

Columns of equal scores ("tied") stand in no order of their own: where one of them is wanted, it is
told where they start and how many they are. In a list the lower column goes first. A score of -inf
is no candidate: it is in no list, and a wanted column that has it is not found.
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
def _count_from(row: Any, bound: np.float32) -> tuple[int, int]:
    """How many scores are above ``bound``, and how many equal: 32-bit counts fill whole vectors."""
    above = np.uint32(0)
    equal = np.uint32(0)
    for j in range(row.shape[0]):
        above = np.uint32(above + np.uint32(row[j] > bound))
        equal = np.uint32(equal + np.uint32(row[j] == bound))
    return int(above), int(equal)


@helper
def _first_at(values: Any, size: int, bound: np.float32) -> int:
    """The first place of a descending stretch whose value is ``bound`` or less."""
    start, stop = 0, size
    while start < stop:
        middle = (start + stop) >> 1
        if values[middle] > bound:
            start = middle + 1
        else:
            stop = middle
    return start


@helper
def _equal_from(values: Any, first: int, size: int) -> int:
    """How many values from ``first`` on are the same as the one there."""
    last = first
    while last < size and values[last] == values[first]:
        last += 1
    return last - first


@helper
def _stretch(row: Any, values: Any, size: int, tied: Any, bound: np.float32) -> tuple[int, int]:
    """Where the columns of one score start, and how many they are."""
    if size == 0 or bound < values[size - 1]:
        return _count_from(row, bound)
    if bound == values[size - 1]:
        return tied[0], tied[1]
    first = _first_at(values, size, bound)
    return first, _equal_from(values, first, size)


@helper
def _expected_reciprocal(above: int, equal: int, wanted: int) -> float:
    """E[1 / rank] of the first of ``wanted`` among ``equal`` columns in a random order.

    Its place x among them has probability C(equal - x, wanted - 1) / C(equal, wanted).
    """
    total = 0.0
    share = wanted / equal
    for x in range(1, equal - wanted + 2):
        total += share / (above + x)
        share *= (equal - x - wanted + 1) / max(1, equal - x)
    return total


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
def _note(best: Any, number: Any, group: int, score: np.float32) -> None:
    """One more wanted score of a group: its best so far, and how many have that."""
    if number[group] == 0 or score > best[group]:
        best[group] = score
        number[group] = 1
    elif score == best[group]:
        number[group] += 1


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
    top_scores: Any,
    tied: Any,
    starts: Any,
    sizes: Any,
    reciprocals: Any,
    bad_columns: Any,
) -> None:
    """Rank each row's columns, two sets of hidden ones left out.

    Args:
        scores: float32 [B, N], overwritten at hidden columns.
        owners: int64 [B], the row of the two hidden CSRs that each score row uses.
        hidden_indptr, hidden_columns, hidden_too_indptr, hidden_too_columns: int64 CSRs.
        wanted_indptr, wanted_columns: int64 CSR, one row a score row, none hidden; its indptr may
            start above 0.
        group_of_column: int64 [N], 0..G-1.
        top_items: int64 [B, k], out: the best columns, best first, -1 behind the last.
        top_scores: float32 [B, k], out: their scores.
        tied: int64 [B, 2], out: how many columns are above the last listed score, and how many
            have it, listed or not; zeros where nothing is listed.
        starts, sizes: int64, as long as ``wanted_columns``, out: how many columns are above a
            wanted one, and how many have its score, itself among them; -1 and 0 where its score
            is below the list's last.
        reciprocals: float64 [B, 1 + G], out: the expected 1 / rank of the first wanted column
            among all that are not hidden, over all orders of tied columns; then of the first
            wanted column of each group; 0 where there is none.
        bad_columns: int64 [B], out: a column whose score is NaN, or -1.
    """
    num_groups = reciprocals.shape[1] - 1
    best = np.empty(num_groups + 1, dtype=np.float32)
    number = np.empty(num_groups + 1, dtype=np.int64)
    for r in range(scores.shape[0]):
        row, values = scores[r], top_scores[r]
        _hide(row, hidden_indptr, hidden_columns, owners[r])
        _hide(row, hidden_too_indptr, hidden_too_columns, owners[r])
        size, bad_columns[r] = _fill_top(row, top_items[r], values)
        top_items[r, size:] = -1
        tied[r] = 0
        if size > 0:
            tied[r, 0], tied[r, 1] = _count_from(row, values[size - 1])

        best[:] = -np.inf
        number[:] = 0
        for place in range(wanted_indptr[r], wanted_indptr[r + 1]):
            column = wanted_columns[place]
            score = row[column]
            starts[place], sizes[place] = -1, 0
            if score == -np.inf:
                continue
            if size > 0 and score >= values[size - 1]:
                starts[place], sizes[place] = _stretch(row, values, size, tied[r], score)
            _note(best, number, 0, score)
            if num_groups > 0:
                _note(best, number, 1 + group_of_column[column], score)
        above, equal = 0, 0
        found = np.float32(np.nan)  # the score whose places are above and equal
        for group in range(num_groups + 1):
            reciprocals[r, group] = 0.0
            if number[group] > 0:
                if best[group] != found:  # that of all groups is one of theirs
                    found = best[group]
                    above, equal = _stretch(row, values, size, tied[r], found)
                reciprocals[r, group] = _expected_reciprocal(above, equal, number[group])


@kernel
def show_lists(
    scores: Any,
    top_items: Any,
    top_scores: Any,
    tied: Any,
    lengths: Any,
    first: int,
    last: int,
    hidden: Any,
) -> None:
    """Multiply up the probability that an item is in none of the lists of columns in any order.

    Args:
        scores: float32 [B, N], as ``rank_rows`` left them.
        top_items, top_scores, tied: what it gave.
        lengths: int64 [L], of the lists, at most k.
        first, last: the columns first..last-1 are looked at, so that threads share the others.
        hidden: float64 [L, N], multiplied: the probability that an item is in no list so far.
    """
    k = top_items.shape[1]
    for r in range(scores.shape[0]):
        row, values = scores[r], top_scores[r]
        size = 0
        while size < k and top_items[r, size] >= 0:
            size += 1
        for at in range(lengths.shape[0]):
            length = min(lengths[at], size)
            if length == 0:
                continue
            bound = values[length - 1]
            above, equal = _stretch(row, values, size, tied[r], bound)
            certain = length if above + equal == length else above
            for place in range(certain):
                item = top_items[r, place]
                if first <= item < last:
                    hidden[at, item] = 0.0
            if certain == length:
                continue
            left_out = 1.0 - (length - above) / equal
            if above + equal <= size:
                for place in range(above, above + equal):
                    item = top_items[r, place]
                    if first <= item < last:
                        hidden[at, item] *= left_out
            else:
                for column in range(first, last):
                    if row[column] == bound:
                        hidden[at, column] *= left_out
