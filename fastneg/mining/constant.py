"""Queries to which all items score the same: their windows are known without a search.

A query of length |q| has scores of |q||x| at most, and where that is 2^-150 or less for the longest
item, all of them round to 0: zero vectors first of all (users without a history, texts without a
known word), any query where all items are zero vectors, and vectors so short that nothing is left
of their products. Where all items are one vector (a model that collapsed), no query tells them
apart. Of equal scores the lower id comes first, so the window holds ids in ascending order without
the positives. An approximate search would find other items with the same score, and any search
would take long to part what cannot be parted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.checks import Float32Array, IntArray, frozen
from fastneg.kernels.true_ranks import score_lists
from fastneg.mining.search import PositiveLists, RankWindow, Search, empty_window

Marks = npt.NDArray[np.bool_]

_ALL_ZERO = 2.0**-151  # half of what rounds to 0: lengths are themselves rounded
_ROWS = 4_096


def constant_rows(
    query_norms: npt.NDArray[np.float64], items: Float32Array, longest_item: float
) -> Marks:
    """Bool [Q]: the queries to which all items score the same.

    Args:
        query_norms: float64 [Q], lengths.
        items: float32 [N, d], 1 or more.
        longest_item: the length of the longest.
    """
    if all((items[a : a + _ROWS] == items[0]).all() for a in range(0, len(items), _ROWS)):
        return np.ones(len(query_norms), np.bool_)
    marks: Marks = query_norms * longest_item <= _ALL_ZERO
    return marks


def ids_in_order(
    queries: Float32Array, items: Float32Array, positives: PositiveLists, window: tuple[int, int]
) -> RankWindow:
    """The windows of constant queries: ids in ascending order, positives left out.

    The item at rank r is r - 1 + the number of positives before it; a positive p_j (the j-th of the
    list, from 0) stands before it if p_j - j <= r - 1.
    """
    (first, last), rows = window, len(queries)
    out = empty_window(rows, window)
    scores, one = np.empty(rows, np.float32), np.arange(rows)
    score_lists(
        frozen(queries), frozen(items), one, one + 1, frozen(np.zeros(rows, np.int64)), scores
    )
    places = np.arange(first - 1, last)
    for row, (start, stop) in enumerate(zip(positives.starts, positives.stops, strict=True)):
        known = positives.items[start:stop]
        gaps = known - np.arange(known.size)
        ids = places + np.searchsorted(gaps, places, side="right") if known.size else places
        inside = ids < len(items)
        out.items[row] = np.where(inside, ids, -1)
        out.scores[row] = np.where(inside, scores[row], -np.inf)
    return out


def find_windows(
    search: Search,
    queries: Float32Array,
    items: Float32Array,
    positives: PositiveLists,
    window: tuple[int, int],
    constant: Marks,
) -> RankWindow:
    """``search.find`` of the rows that are not ``constant``; the windows of those are known."""
    if not constant.any():
        return search.find(queries, positives, window)
    out = empty_window(len(queries), window)
    known: IntArray = np.flatnonzero(constant)
    part = ids_in_order(np.ascontiguousarray(queries[known]), items, positives.take(known), window)
    out.items[known], out.scores[known] = part.items, part.scores
    rest = np.flatnonzero(~constant)
    if rest.size:
        found = search.find(np.ascontiguousarray(queries[rest]), positives.take(rest), window)
        out.items[rest], out.scores[rest] = found.items, found.scores
    return out
