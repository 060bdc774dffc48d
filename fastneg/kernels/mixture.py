"""Which part of a mixture each slot of a row is drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastneg.kernels.jit import kernel
from fastneg.kernels.rng import row_key, unit_interval, word

_ZERO = np.uint64(0)


@kernel
def choose_per_draw(
    shares: Any,
    tags: Any,
    key: np.uint64,
    rows: Any,
    first_draw: int,
    source: Any,
    base: int,
) -> None:
    """Each slot by a word of its own: part k with probability shares[b, k].

    Args:
        shares: float64 [B, parts], each row sums to 1 (or is all 0: the row is left alone).
        tags: int8 [parts], what is written for each part.
        source: int8 [B, K]; slots that hold ``base`` are chosen, others left.
    """
    parts = shares.shape[1]
    for b in range(rows.shape[0]):
        start = row_key(key, np.uint64(rows[b]))
        for d in range(source.shape[1]):
            if source[b, d] != base:
                continue
            u = unit_interval(word(start, np.uint64(first_draw + d), _ZERO))
            chosen = -1
            total = 0.0
            for k in range(parts):
                if shares[b, k] > 0.0:
                    chosen = k
                    total += shares[b, k]
                    if u < total:
                        break
            if chosen >= 0:
                source[b, d] = tags[chosen]


@kernel
def expected_slots(shares: Any, num_slots: int, expected: Any) -> None:
    """expected[b, k] = shares[b, k] num_slots, whole where it is within 1e-9 of a whole number."""
    for b in range(shares.shape[0]):
        for k in range(shares.shape[1]):
            exact = shares[b, k] * num_slots
            whole = np.floor(exact + 0.5)
            expected[b, k] = whole if abs(exact - whole) < 1e-9 * max(1.0, whole) else exact


@kernel
def choose_quota(
    expected: Any, tags: Any, key: np.uint64, rows: Any, source: Any, base: int
) -> None:
    """floor(expected) slots for each part, in the order of the parts, the rest by chance.

    The remaining slots are given by systematic sampling over the fractions with one word a row, so
    that part k has expected[b, k] slots in expectation. All slots of a row that hold ``base``
    belong to the quota.
    """
    parts = expected.shape[1]
    for b in range(rows.shape[0]):
        d = 0
        width = source.shape[1]
        fractions = 0.0
        for k in range(parts):
            whole = np.int64(np.floor(expected[b, k]))
            fractions += expected[b, k] - whole
            while whole > 0 and d < width:
                if source[b, d] == base:
                    source[b, d] = tags[k]
                    whole -= 1
                d += 1
        left = 0
        for e in range(d, width):
            if source[b, e] == base:
                left += 1
        if left == 0 or fractions <= 0.0:
            continue
        u = unit_interval(word(row_key(key, np.uint64(rows[b])), _ZERO, _ZERO))
        scale = left / fractions
        k = -1
        total = 0.0
        last = 0
        for j in range(left):
            while total <= u + j and k + 1 < parts:
                k += 1
                fraction = expected[b, k] - np.floor(expected[b, k])
                if fraction > 0.0:
                    last = k
                    total += fraction * scale
            while source[b, d] != base:
                d += 1
            source[b, d] = tags[last]
            d += 1


@kernel
def add_part(shares: Any, part: int, log_q: Any, total: Any) -> None:
    """total[b, d] += shares[b, part] exp(log_q[b, d]); float64 [B, K]."""
    for b in range(total.shape[0]):
        share = shares[b, part]
        if share > 0.0:
            for d in range(total.shape[1]):
                total[b, d] += share * np.exp(log_q[b, d])
