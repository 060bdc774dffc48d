"""Rows of (user, item) into compressed sparse rows, by two stable counting sorts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import kernel
from fastneg.kernels.llvm import prefetch

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

_AHEAD = 32  # rows whose pairs are asked for so early


@kernel
def is_sorted_distinct(majors: Int64, minors: Int64) -> bool:
    """True when the pairs (major, minor) ascend strictly: nothing to sort, nothing to merge."""
    for i in range(1, majors.size):
        if majors[i] < majors[i - 1] or (majors[i] == majors[i - 1] and minors[i] <= minors[i - 1]):
            return False
    return True


@kernel
def count_starts(codes: Int64, starts: Int64) -> None:
    """``starts`` [n + 1]: where each code's rows begin once the rows are sorted by code."""
    starts[:] = 0
    for code in codes:
        starts[code + 1] += 1
    for i in range(1, starts.size):
        starts[i] += starts[i - 1]


@kernel
def scatter_rows(
    keys: Int64, values: Int64, rows: Int64, heads: Int64, out_values: Int64, out_rows: Int64
) -> None:
    """A stable counting sort by ``keys``; ``heads`` holds each key's next free place (consumed)."""
    for i in range(keys.size):
        place = heads[keys[i]]
        heads[keys[i]] = place + 1
        out_values[place] = values[i]
        out_rows[place] = rows[i]


@kernel
def scatter_values(keys: Int64, values: Int64, heads: Int64, out_values: Int64) -> None:
    """``scatter_rows`` without the row numbers."""
    for i in range(keys.size):
        place = heads[keys[i]]
        heads[keys[i]] = place + 1
        out_values[place] = values[i]


@kernel
def merge_equal(
    indptr: Int64,
    minors: Int64,
    distinct: Int64,
    counts: Float32,
    distinct_indptr: Int64,
    group: Int64,
) -> int:
    """Merge equal neighbours of sorted rows into distinct pairs; returns their number.

    ``distinct`` [R]: the minor code of each pair; ``counts`` [R]: its number of rows;
    ``distinct_indptr`` [n + 1]; ``group`` [R]: the pair of every sorted row, or empty.
    """
    count = first = 0
    distinct_indptr[0] = 0
    for major in range(indptr.size - 1):
        for i in range(indptr[major], indptr[major + 1]):
            if i == indptr[major] or minors[i] != minors[i - 1]:
                distinct[count] = minors[i]
                first = i
                count += 1
            counts[count - 1] = np.float32(i + 1 - first)
            if group.size:
                group[i] = count - 1
        distinct_indptr[major + 1] = count
    return count


@kernel
def sum_groups(group: Int64, rows: Int64, weights: Float32, out: npt.NDArray[np.float64]) -> None:
    """``out[g]``: the weights of a pair's rows, added in float64 in the order of the rows."""
    out[:] = 0.0
    for i in range(group.size):
        out[group[i]] += np.float64(weights[rows[i]])


@kernel
def latest_of_groups(
    group: Int64, rows: Int64, times: npt.NDArray[np.int64], out: npt.NDArray[np.int64]
) -> None:
    """``out[g]``: the latest time of a pair's rows (any one numeric dtype for both arrays)."""
    for i in range(group.size):
        time = times[rows[i]]
        if i == 0 or group[i] != group[i - 1] or time > out[group[i]]:
            out[group[i]] = time


@kernel
def lists_are_ascending(indptr: Int64, members: Int64, low: int, high: int) -> bool:
    """Do all lists ascend strictly with members in ``low..high - 1``? (indptr checked before)."""
    for i in range(indptr.size - 1):
        previous = low - 1
        for j in range(indptr[i], indptr[i + 1]):
            if members[j] <= previous or members[j] >= high:
                return False
            previous = members[j]
    return True


@kernel
def gather_pairs(pairs: Int64, rows: Int64, firsts: Int64, seconds: Int64) -> None:
    """``firsts[b], seconds[b] = pairs[2 rows[b]], pairs[2 rows[b] + 1]``, asked for early."""
    for b in range(rows.size):
        prefetch(pairs, 2 * rows[min(b + _AHEAD, rows.size - 1)])
        firsts[b] = pairs[2 * rows[b]]
        seconds[b] = pairs[2 * rows[b] + 1]


@kernel
def find_pairs(
    indptr: Int64, members: Int64, majors: Int64, minors: Int64, start: int, stop: int, out: Int64
) -> None:
    """``out[r]``: the place of (majors[r], minors[r]) among ascending lists, -1 where it is not."""
    for r in range(start, stop):
        low, high = indptr[majors[r]], indptr[majors[r] + 1]
        end = high
        while low < high:
            middle = (low + high) // 2
            if members[middle] < minors[r]:
                low = middle + 1
            else:
                high = middle
        out[r] = low if low < end and members[low] == minors[r] else -1


@kernel
def first_times(places: Int64, times: Int64, seen: npt.NDArray[np.bool_], out: Int64) -> None:
    """``out[p]``: the earliest time of the rows at place p (``times`` and ``out`` of one dtype)."""
    for r in range(places.size):
        place = places[r]
        if place >= 0 and (not seen[place] or times[r] < out[place]):
            seen[place] = True
            out[place] = times[r]


@kernel
def last_rows(places: Int64, times: Int64, out: Int64) -> None:
    """``out[p]``: the last of the rows at place p with its latest time; ``out`` is -1 on entry."""
    for r in range(places.size):
        place = places[r]
        if place >= 0 and (out[place] < 0 or times[r] >= times[out[place]]):
            out[place] = r
