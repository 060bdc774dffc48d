"""Items that equal one of a query's positives: by their vectors, or by their scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.rescore import exact_scores
from fastneg.kernels.selection import key_item, sort_key

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.uint8]

NO_TWIN, SAME_SCORE, SAME_VECTOR = 0, 1, 2
SHARE = 2.0**-22  # of |q||p|: how far apart two scores that are equal may lie


@helper
def _length(vectors: Floats, first: int, width: int) -> float:
    total = 0.0
    for k in range(first, first + width):
        total += np.float64(vectors[k]) * np.float64(vectors[k])
    length: float = np.sqrt(total)
    return length


@helper
def _same(vectors: Floats, one: int, other: int, width: int) -> bool:
    k = 0
    while k < width and vectors[one + k] == vectors[other + k]:
        k += 1
    return k == width


@helper
def _first_at(keys: Words, scores: Floats, count: int, low: float) -> int:
    """The first place in ascending ``keys`` whose score is ``low`` or more."""
    start, stop = 0, count
    while start < stop:
        middle = (start + stop) // 2
        if np.float64(scores[key_item(keys[middle])]) < low:
            start = middle + 1
        else:
            stop = middle
    return start


@kernel
def mark_twins(
    queries: Floats,
    vectors: Floats,
    longest: float,
    starts: Ints,
    stops: Ints,
    positives: Ints,
    constant: npt.NDArray[np.bool_],
    items: Codes,
    scores: Floats,
    flags: Flags,
) -> None:
    """Say of each item whether it is a twin of one of its row's positives.

    Args:
        queries: float32 [B, d].
        vectors: float32 [N, d], all items.
        longest: no positive is longer.
        starts: int64 [B], where the row's positives start in ``positives``.
        stops: int64 [B], where they end.
        positives: int64.
        constant: bool [B], rows whose items all score the same: there only vectors count.
        items: int32 [B, W], -1 for none.
        scores: float32 [B, W], exact.
        flags: uint8 [B, W], written: SAME_VECTOR where the vector equals a positive's, coordinate
            by coordinate; else SAME_SCORE where |s - s_p| <= SHARE |q||p| for a positive p; else
            NO_TWIN.
    """
    width = queries.shape[1]
    flat = vectors.reshape(vectors.size)
    most = 1
    for row in range(starts.size):
        most = max(most, stops[row] - starts[row])
    own, wide, lengths = np.empty(most, np.float32), np.empty(width), np.empty(most)
    keys = np.empty(most, np.uint64)
    for row in range(items.shape[0]):
        flags[row, :] = NO_TWIN
        count = stops[row] - starts[row]
        if count == 0:
            continue
        mine = positives[starts[row] : stops[row]]
        exact_scores(queries[row], flat, mine, count, wide, own)
        bits = own.view(np.uint32)
        for p in range(count):
            keys[p] = sort_key(bits[p], p)
            lengths[p] = -1.0
        keys[:count].sort()
        long = 0.0
        for k in range(width):
            long += np.float64(queries[row, k]) * np.float64(queries[row, k])
        share = SHARE * np.sqrt(long)
        reach = share * longest
        for c in range(items.shape[1]):
            item, score = np.int64(items[row, c]), np.float64(scores[row, c])
            if item < 0:
                continue
            for place in range(_first_at(keys, own, count, score - reach), count):
                own_place = key_item(keys[place])
                gap = abs(score - np.float64(own[own_place]))
                if np.float64(own[own_place]) > score + reach:
                    break
                if _same(flat, item * width, mine[own_place] * width, width):
                    flags[row, c] = SAME_VECTOR
                    break
                if constant[row] or flags[row, c] == SAME_SCORE:
                    continue
                if lengths[own_place] < 0.0:
                    lengths[own_place] = _length(flat, mine[own_place] * width, width)
                if gap <= share * lengths[own_place]:
                    flags[row, c] = SAME_SCORE
