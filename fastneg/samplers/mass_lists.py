"""Lists of items with whole-number masses, one a user: built, summed, and without some items."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, IntArray, frozen
from fastneg.interactions import Interactions
from fastneg.kernels.exclusion import filter_lists, lists_lengths, mark_excluded

Lists: TypeAlias = tuple[IntArray, IntArray, npt.NDArray[np.uint64]]  # indptr, items, masses

_MASS_BITS = 40  # a list's largest weight becomes 2^40: a relative error of 2^-41
_SUM_BITS = 62  # a list's masses sum to less: longer lists have a smaller largest mass


def sorted_lists(owner: IntArray, items: IntArray, weights: FloatArray, num_users: int) -> Lists:
    """Lists in CSR form, ascending and distinct (weights of repeats add), with integer masses."""
    order = np.lexsort((items, owner))
    owner, items, weights = owner[order], items[order], weights[order]
    first = np.ones(len(items), dtype=bool)
    first[1:] = (owner[1:] != owner[:-1]) | (items[1:] != items[:-1])
    starts = np.flatnonzero(first)
    whole = bool((weights == np.rint(weights)).all())
    if len(items) and not (whole and weights.max() < 2.0**_MASS_BITS):
        # before repeats add up, so that no sum overflows
        weights, whole = weights / _largest(weights, owner, num_users), False
    if len(items):
        weights = np.add.reduceat(weights, starts)
    owner, items = owner[starts], items[starts]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=num_users))])
    if not whole:
        weights = weights / _largest(weights, owner, num_users) * 2.0**_MASS_BITS
    # long lists of large masses are scaled down by a power of two: sums beyond 2^64 would wrap
    excess = np.bincount(owner, weights, minlength=num_users) * 2.0**-_SUM_BITS
    shift = np.maximum(np.frexp(excess)[1], 0)
    masses = np.maximum(np.rint(np.ldexp(weights, -shift[owner])), 1.0).astype(np.uint64)
    return indptr.astype(np.int64), items, masses


def _largest(weights: FloatArray, owner: IntArray, num_users: int) -> FloatArray:
    """float64 [entries]: the largest weight of the entry's list."""
    largest = np.zeros(num_users)
    np.maximum.at(largest, owner, weights)
    return largest[owner]


def running(indptr: IntArray, masses: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The running sum of masses within each list; modulo 2^64 the differences are exact."""
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(masses, dtype=np.uint64)])
    running: npt.NDArray[np.uint64] = sums[1:] - np.repeat(sums[indptr[:-1]], np.diff(indptr))
    return running


def without_positives(lists: Lists, users: IntArray, known: Interactions) -> Lists:
    """The lists without what the user of each, users [lists], knows."""
    indptr, items, masses = lists
    gone = np.zeros((len(items), 1))
    owner = frozen(np.repeat(users, np.diff(indptr)))
    mark_excluded(known.positive_indptr, known.positive_items, owner, items[:, None], gone)
    kept = gone[:, 0] == 0.0
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(kept)])
    return before[indptr], items[kept], masses[kept]


def without(lists: Lists, owner: IntArray, row_indptr: IntArray, row_ids: IntArray) -> Lists:
    """A list per row: list owner[b] without the row's own ids (ascending in each row)."""
    indptr, items, masses = lists
    owner, row_indptr, row_ids = frozen(owner), frozen(row_indptr), frozen(row_ids)
    indptr, items, masses = frozen(indptr), frozen(items), frozen(masses)
    sizes = np.zeros(len(owner) + 1, dtype=np.int64)
    lists_lengths(indptr, items, owner, row_indptr, row_ids, sizes[1:])
    out_indptr = np.cumsum(sizes)
    out_items = np.empty(int(out_indptr[-1]), dtype=np.int64)
    out_masses = np.empty(int(out_indptr[-1]), dtype=np.uint64)
    filter_lists(
        indptr, items, masses, owner, row_indptr, row_ids, out_indptr, out_items, out_masses
    )
    return out_indptr, out_items, out_masses
