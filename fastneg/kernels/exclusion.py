"""Sets of excluded ids per row: sorted lists, one search structure for all kernels.

A row's list is ``excluded[indptr[owner]:indptr[owner + 1]]``, ascending and without repeats;
``owner`` is -1 where nothing is excluded. Lists are shared by rows of one user.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import helper, kernel


@helper
def lower_bound(values: Any, low: int, high: int, wanted: Any) -> int:
    """The first place in the ascending ``values[low:high]`` that is not below ``wanted``."""
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@helper
def contains(values: Any, low: int, high: int, wanted: Any) -> bool:
    """Whether ``wanted`` stands in the ascending ``values[low:high]``."""
    place = lower_bound(values, low, high, wanted)
    return place < high and values[place] == wanted


@helper
def skip_excluded(values: Any, low: int, high: int, rank: Any) -> Any:
    """The id of the allowed item of this rank: each excluded id at or below shifts it by one."""
    left, right = low, high
    while left < right:
        middle = (left + right) >> 1
        if values[middle] - (middle - low) <= rank:
            left = middle + 1
        else:
            right = middle
    return rank + (left - low)


@kernel
def all_contained(indptr: Any, excluded: Any, owner: Any, codes: Any) -> bool:
    """Whether codes[b] is in the list of row b, for every b."""
    for b in range(owner.shape[0]):
        o = owner[b]
        if o < 0 or not contains(excluded, indptr[o], indptr[o + 1], codes[b]):
            return False
    return True


@kernel
def merged_sizes(
    indptr: Any, excluded: Any, owner: Any, extra_indptr: Any, extra: Any, sizes: Any
) -> None:
    """sizes[b] = how many distinct ids the row's list and its extra list hold together."""
    for b in range(owner.shape[0]):
        o = owner[b]
        low = high = 0
        if o >= 0:
            low, high = indptr[o], indptr[o + 1]
        size = high - low
        for e in range(extra_indptr[b], extra_indptr[b + 1]):
            if not contains(excluded, low, high, extra[e]):
                size += 1
        sizes[b] = size


@kernel
def merge_lists(
    indptr: Any, excluded: Any, owner: Any, extra_indptr: Any, extra: Any, out_indptr: Any, out: Any
) -> None:
    """Write each row's list and its (ascending, distinct) extra list as one ascending list."""
    for b in range(owner.shape[0]):
        o = owner[b]
        i = high = 0
        if o >= 0:
            i, high = indptr[o], indptr[o + 1]
        e, end = extra_indptr[b], extra_indptr[b + 1]
        place = out_indptr[b]
        while i < high or e < end:
            if e == end or (i < high and excluded[i] <= extra[e]):
                if e < end and excluded[i] == extra[e]:
                    e += 1
                out[place] = excluded[i]
                i += 1
            else:
                out[place] = extra[e]
                e += 1
            place += 1


@kernel
def excluded_masses(indptr: Any, excluded: Any, masses: Any, total: Any, support: Any) -> None:
    """Per list: the mass of its ids, and how many of them have any.

    Args:
        indptr: int64 [lists + 1].
        excluded: int64 ids.
        masses: uint64 [num_items].
        total: uint64 [lists], written.
        support: int64 [lists], written.
    """
    for o in range(total.shape[0]):
        mass = np.uint64(0)
        count = 0
        for i in range(indptr[o], indptr[o + 1]):
            m = masses[excluded[i]]
            mass += m
            if m > np.uint64(0):
                count += 1
        total[o] = mass
        support[o] = count


@helper
def mostly_excluded(low: int, high: int, num_items: int) -> bool:
    """Whether a list of ids leaves so few that these are the shorter list."""
    return 2 * (high - low) > num_items


@helper
def allowed_ids(excluded: Any, low: int, high: int, num_items: int) -> Any:
    """int64 [num_items - (high - low)]: the ids below ``num_items`` that a list does not hold."""
    allowed = np.empty(num_items - (high - low), dtype=np.int64)
    place, i, e = 0, np.int64(0), low
    while True:
        # a run of neighbours in the list allows nothing in between
        while e + 8 < high and excluded[e] == i and excluded[e + 8] == i + 8:
            e += 8
            i += 8
        stop = excluded[e] if e < high else np.int64(num_items)
        while i < stop:
            allowed[place] = i
            place += 1
            i += 1
        if e >= high:
            return allowed
        e += 1
        i += 1


@kernel
def mark_excluded(indptr: Any, excluded: Any, owner: Any, items: Any, log_q: Any) -> None:
    """log_q[b, d] = -inf where items[b, d] is in the list of row b; log_q: float64 [B, K]."""
    for b in range(owner.shape[0]):
        o = owner[b]
        if o < 0:
            continue
        low, high = indptr[o], indptr[o + 1]
        for d in range(items.shape[1]):
            if contains(excluded, low, high, items[b, d]):
                log_q[b, d] = -np.inf


@kernel
def lists_lengths(
    indptr: Any, items: Any, owner: Any, out_indptr: Any, out_excluded: Any, sizes: Any
) -> None:
    """sizes[b] = how many ids of list owner[b] are not among row b's own excluded ids."""
    for b in range(owner.shape[0]):
        size = 0
        if owner[b] >= 0:
            low, high = out_indptr[b], out_indptr[b + 1]
            for i in range(indptr[owner[b]], indptr[owner[b] + 1]):
                if not contains(out_excluded, low, high, items[i]):
                    size += 1
        sizes[b] = size


@kernel
def filter_lists(
    indptr: Any,
    items: Any,
    masses: Any,
    owner: Any,
    row_indptr: Any,
    row_excluded: Any,
    out_indptr: Any,
    out_items: Any,
    out_masses: Any,
) -> None:
    """Copy list owner[b] to row b, leaving out the row's excluded ids; sizes as in out_indptr."""
    for b in range(owner.shape[0]):
        if owner[b] < 0:
            continue
        place = out_indptr[b]
        low, high = row_indptr[b], row_indptr[b + 1]
        for i in range(indptr[owner[b]], indptr[owner[b] + 1]):
            if not contains(row_excluded, low, high, items[i]):
                out_items[place] = items[i]
                out_masses[place] = masses[i]
                place += 1
