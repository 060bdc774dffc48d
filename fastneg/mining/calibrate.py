"""How much effort an approximate search needs: found by trying it on a sample searched exactly."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from fastneg.checks import Float32Array
from fastneg.mining.search import PositiveLists, RankWindow, Search, empty_window


def find_all(
    search: Search, queries: Float32Array, positives: PositiveLists, window: tuple[int, int]
) -> RankWindow:
    """``search.find`` over any number of queries, in its blocks."""
    out = empty_window(len(queries), window)
    for start in range(0, len(queries), search.block_rows):
        stop = min(start + search.block_rows, len(queries))
        part = search.find(queries[start:stop], positives.rows(start, stop), window)
        out.items[start:stop], out.scores[start:stop] = part.items, part.scores
    return out


def measure_recall(found: RankWindow, true: RankWindow) -> float:
    """The share of the true windows' members that are found; 1 if there are none.

    Members are compared by score. An item that scores more than the last true member stands in the
    window or above it; an item with the very score of the last one may take the place of any true
    member with that score, since ids alone decide which of them the window holds. No item found
    scores more than the first true member (an index finds a part of the items, ranked as all are).
    """
    there = true.items >= 0
    members = int(np.count_nonzero(there))
    lowest = np.where(there, true.scores, np.inf).min(axis=1, initial=np.inf)[:, None]
    inside = found.items >= 0
    tied = (inside & (found.scores == lowest)).sum(axis=1)
    above = (inside & (found.scores > lowest)).sum(axis=1)
    hits = int((above + np.minimum(tied, (there & (true.scores == lowest)).sum(axis=1))).sum())
    return hits / members if members else 1.0


class Tunable(Search, Protocol):
    """A search with an effort to calibrate.

    Attributes:
        effort: the name of what ``set_effort`` sets, or None where there is nothing to set.
        most_effort: its largest useful value.
    """

    effort: str | None
    most_effort: int

    def set_effort(self, value: int) -> None:
        """Search with so much effort from now on."""
        ...


def calibrate(
    search: Tunable,
    queries: Float32Array,
    positives: PositiveLists,
    window: tuple[int, int],
    true: RankWindow,
    recall: float,
) -> tuple[int, float]:
    """Set the least effort that reaches ``recall`` on a sample; doubling, then bisection.

    Args:
        search: the index; its effort is left at what is returned.
        queries: float32 [S, d], the sample.
        positives: the sample's positives.
        window: the ranks asked.
        true: the same windows by exact search.
        recall: the share of true window members asked for.

    Returns:
        The effort (0 where the index has none) and the recall measured with it. Where no effort
        reaches ``recall``, the one that came closest.
    """

    def reach(effort: int) -> float:
        search.set_effort(effort)
        return measure_recall(find_all(search, queries, positives, window), true)

    if search.effort is None:
        return 0, reach(0)
    measured = {}
    low, high = 0, 1
    while True:
        high = min(high, search.most_effort)
        measured[high] = reach(high)
        if measured[high] >= recall or high == search.most_effort:
            break
        low, high = high, high * 2
    if measured[high] >= recall:
        while high - low > max(1, high // 64):
            middle = (low + high) // 2
            measured[middle] = reach(middle)
            low, high = (low, middle) if measured[middle] >= recall else (middle, high)
    best = high if measured[high] >= recall else max(measured, key=lambda e: (measured[e], -e))
    search.set_effort(best)
    return best, measured[best]
