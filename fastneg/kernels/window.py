"""Inside a rank window: who is eligible, how often each item is expected, who is drawn.

A window is int32 [B, W] item ids and float32 [B, W] scores, best first, -1 where a row has fewer.
Draws are a race: every eligible item gets a key made of one random word of (seed, row, item) and
of its weight, and the largest keys win (Efraimidis and Spirakis 2006; Gumbel's form). That is a
draw without replacement, one after the other, in proportion to the weights; nothing of it depends
on the order in which rows or items are visited.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.rng import row_key, unit_interval, word

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Reasons = npt.NDArray[np.uint8]

ELIGIBLE, BY_SCORE, BY_MARGIN, BY_GROUP, BY_TWIN, ABSENT = 0, 1, 2, 3, 4, 5  # see ``REASONS``
NO_RULE, SAME_GROUP, OTHER_GROUP = 0, 1, 2
UNIFORM, TOP, SOFTMAX = 0, 1, 2
ONE = 1 << 32  # expected counts are sums of integers, so that their order cannot matter
_FAR = 1.0e12  # pushes an item behind every rank


@kernel
def mark_window(
    items: Codes,
    scores: Floats,
    low: float,
    high: float,
    ceilings: Doubles,
    query_groups: Ints,
    item_groups: Ints,
    rule: int,
    reasons: Reasons,
) -> None:
    """Write why each member of the window may not be drawn (its first reason), or ELIGIBLE.

    Args:
        items: int32 [B, W].
        scores: float32 [B, W].
        low: the lowest score allowed.
        high: the highest score allowed.
        ceilings: float64 [B], the highest score that the row's margin allows; +inf without one.
        query_groups: int64 [B], or empty with NO_RULE; -1: the rule does not apply to the row.
        item_groups: int64 [N], or empty with NO_RULE; -1: the item is in no group.
        rule: NO_RULE, SAME_GROUP or OTHER_GROUP.
        reasons: uint8 [B, W], written.
    """
    rows, width = items.shape
    for row in range(rows):
        ceiling = ceilings[row]
        group = query_groups[row] if rule != NO_RULE else -1
        for c in range(width):
            item = items[row, c]
            score = np.float64(scores[row, c])
            if item < 0:
                reasons[row, c] = ABSENT
            elif score < low or score > high:
                reasons[row, c] = BY_SCORE
            elif score > ceiling:
                reasons[row, c] = BY_MARGIN
            elif group >= 0 and (item_groups[item] == group) != (rule == SAME_GROUP):
                reasons[row, c] = BY_GROUP
            else:
                reasons[row, c] = ELIGIBLE


@helper
def _highest(scores: Floats, reasons: Reasons) -> float:
    for c in range(scores.size):  # best first
        if reasons[c] == ELIGIBLE:
            return np.float64(scores[c])
    return 0.0


@kernel
def add_expected(
    items: Codes,
    scores: Floats,
    reasons: Reasons,
    num_negatives: int,
    strategy: int,
    temperature: float,
    expected: npt.NDArray[np.int64],
) -> None:
    """Add each eligible item's chance of being drawn for each row to ``expected``, times ONE.

    The chance is min(1, n / eligible) for UNIFORM, 1 for the first n of TOP, and min(1, n p) with
    p the softmax over the eligible for SOFTMAX. One thread only.
    """
    rows, width = items.shape
    for row in range(rows):
        eligible = 0
        total = 0.0
        highest = _highest(scores[row], reasons[row])
        for c in range(width):
            if reasons[row, c] == ELIGIBLE:
                eligible += 1
                if strategy == SOFTMAX:
                    total += np.exp((np.float64(scores[row, c]) - highest) / temperature)
        seen = 0
        for c in range(width):
            if reasons[row, c] != ELIGIBLE:
                continue
            if strategy == UNIFORM:
                chance = num_negatives / eligible
            elif strategy == TOP:
                chance = 1.0 if seen < num_negatives else 0.0
            else:
                share = np.exp((np.float64(scores[row, c]) - highest) / temperature) / total
                chance = num_negatives * share
            seen += 1
            expected[items[row, c]] += np.int64(min(1.0, chance) * ONE)


@kernel
def draw_window(
    items: Codes,
    scores: Floats,
    reasons: Reasons,
    first_rank: int,
    key: np.uint64,
    first_row: int,
    strategy: int,
    temperature: float,
    log_weights: Doubles,
    out_items: Ints,
    out_scores: Floats,
    out_ranks: Codes,
) -> None:
    """Draw n eligible members of each row's window, without replacement.

    Args:
        items: int32 [B, W].
        scores: float32 [B, W].
        reasons: uint8 [B, W] from ``mark_window``.
        first_rank: the rank of column 0.
        key: of the seed and the stream.
        first_row: the row number of row 0 in the whole job.
        strategy: UNIFORM or SOFTMAX (in the order drawn), or TOP (in the order of ranks).
        temperature: of SOFTMAX.
        log_weights: float64 [N], the log of each item's weight; empty: all weights are 1.
        out_items: int64 [B, n], written; -1 where fewer than n are eligible.
        out_scores: float32 [B, n], written; -inf there.
        out_ranks: int32 [B, n], written; 0 there.
    """
    rows, width = items.shape
    num = out_items.shape[1]
    best = np.empty(num, np.float64)
    place = np.empty(num, np.int64)
    weighted = log_weights.size > 0
    for row in range(rows):
        start = row_key(np.uint64(key), np.uint64(first_row + row))
        highest = _highest(scores[row], reasons[row])
        filled = 0
        for c in range(width):
            if reasons[row, c] != ELIGIBLE:
                continue
            item = items[row, c]
            u = unit_interval(word(start, np.uint64(item), np.uint64(0)))
            weight = log_weights[item] if weighted else 0.0
            if strategy == TOP:  # thinned by a coin: who loses it comes after all who did not
                race = -float(c)
                if weight < 0.0 and u >= np.exp(weight):
                    race -= _FAR
            elif strategy == UNIFORM and not weighted:
                race = u  # the same winners as with Gumbel's transform, which ascends in u
            else:
                race = weight - np.log(-np.log(u))
                if strategy == SOFTMAX:
                    race += (np.float64(scores[row, c]) - highest) / temperature
            if filled == num and not race > best[num - 1]:
                continue
            slot = filled if filled < num else num - 1
            while slot > 0 and race > best[slot - 1]:
                best[slot], place[slot] = best[slot - 1], place[slot - 1]
                slot -= 1
            best[slot], place[slot] = race, c
            filled = min(filled + 1, num)
        for k in range(num):
            if k < filled:
                c = place[k]
                out_items[row, k] = items[row, c]
                out_scores[row, k] = scores[row, c]
                out_ranks[row, k] = first_rank + c
            else:
                out_items[row, k] = -1
                out_scores[row, k] = -np.inf
                out_ranks[row, k] = 0
