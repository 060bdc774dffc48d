"""Distinct uniform draws from what a sorted list leaves out: frozen candidates for evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.rng import multiply_high, row_key, word


@helper
def _nth_left(known: Any, start: int, stop: int, rank: int) -> int:
    """The item of a rank (from 0) among those not in the sorted ``known[start:stop]``."""
    low, high = start, stop
    while low < high:  # how many known items lie below it
        middle = (low + high) >> 1
        if known[middle] - (middle - start) <= rank:
            low = middle + 1
        else:
            high = middle
    return rank + (low - start)


@kernel
def draw_candidates(
    key: np.uint64,
    users: Any,
    positives: Any,
    known_indptr: Any,
    known_items: Any,
    num_items: int,
    out: Any,
) -> None:
    """Per row, distinct items that the user does not know, ascending, -1 behind the last.

    Floyd's algorithm (Bentley and Floyd 1987) on ranks among the items left: one word a draw, of
    a sequence that the key, the user and the positive decide.

    Args:
        key: of the seed.
        users, positives: int64 [Q].
        known_indptr, known_items: int64 CSR over users, sorted.
        num_items: N.
        out: int64 [Q, n]; all that is left where that is n or less.
    """
    num_draws = out.shape[1]
    for r in range(out.shape[0]):
        start, stop = known_indptr[users[r]], known_indptr[users[r] + 1]
        left = num_items - (stop - start)
        ranks = out[r]
        ranks[:] = -1
        if left <= num_draws:
            for i in range(left):
                ranks[i] = i
        else:
            own = row_key(row_key(key, np.uint64(users[r])), np.uint64(positives[r]))
            for i in range(num_draws):
                last = left - num_draws + i
                drawn = np.int64(
                    multiply_high(word(own, np.uint64(i), np.uint64(0)), np.uint64(last + 1))
                )
                for j in range(i):
                    if ranks[j] == drawn:
                        drawn = last
                        break
                ranks[i] = drawn
            ranks.sort()
        for i in range(min(left, num_draws)):
            ranks[i] = _nth_left(known_items, start, stop, ranks[i])
