"""Where given items stand among all others, counted from products that may be a little off.

An item stands before another when its exact score is higher, or equal and its id lower. A product
that is off by at most ``slack`` decides that wherever the two scores are farther apart; only where
it does not are scores computed exactly (``selection.exact_score``). The counts are therefore those
of exact scores, whatever made the products.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastneg.kernels.jit import helper, kernel
from fastneg.kernels.selection import exact_score

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_GROUP = 128  # products that are looked at one by one where a score is too near to one of them
_ROUNDING = 2.0**-23  # more than a bound loses where it is rounded to float32


@kernel
def score_lists(
    queries: Floats, vectors: Floats, starts: Ints, stops: Ints, items: Ints, scores: Floats
) -> None:
    """Exact scores of each row's items.

    Args:
        queries: float32 [B, d].
        vectors: float32 [N, d].
        starts: int64 [B], where a row's items start.
        stops: int64 [B], where they end.
        items: int64 [P].
        scores: float32 [P], out.
    """
    for row in range(queries.shape[0]):
        for place in range(starts[row], stops[row]):
            scores[place] = exact_score(queries, row, vectors, items[place])


@helper
def _count_between(line: Floats, low: np.float32, high: np.float32) -> tuple[int, int]:
    """How many products are above ``high``, and how many at ``low`` or above: no branches."""
    above = np.uint32(0)
    candidates = np.uint32(0)
    for c in range(line.size):
        above = np.uint32(above + np.uint32(line[c] > high))
        candidates = np.uint32(candidates + np.uint32(line[c] >= low))
    return int(above), int(candidates)


@kernel
def count_before_in_tile(
    products: Floats,
    first_item: int,
    queries: Floats,
    vectors: Floats,
    slack: Doubles,
    starts: Ints,
    stops: Ints,
    wanted: Ints,
    wanted_scores: Floats,
    before: Ints,
) -> None:
    """Add up how many of a tile's items stand before each wanted item of their row.

    Args:
        products: float32 [B, T], with items ``first_item`` .. ``first_item + T - 1``.
        first_item: of the tile.
        queries: float32 [B, d].
        vectors: float32 [N, d], all items.
        slack: float64 [B], the most that a product of this tile may be off.
        starts: int64 [B], where the row's wanted items start.
        stops: int64 [B], where they end.
        wanted: int64 [P].
        wanted_scores: float32 [P], exact.
        before: int64 [P], added to.
    """
    for row in range(products.shape[0]):
        line = products[row]
        for place in range(starts[row], stops[row]):
            score, item = wanted_scores[place], wanted[place]
            centre = np.float64(score)
            reach = slack[row] + _ROUNDING * (abs(centre) + slack[row])
            low, high = np.float32(centre - reach), np.float32(centre + reach)
            count, candidates = _count_between(line, low, high)
            if candidates > count:
                for start in range(0, line.size, _GROUP):
                    stop = min(start + _GROUP, line.size)
                    above, near = _count_between(line[start:stop], low, high)
                    if near == above:
                        continue
                    for c in range(start, stop):
                        if line[c] >= low and not line[c] > high:
                            other = exact_score(queries, row, vectors, first_item + c)
                            count += other > score or (other == score and first_item + c < item)
            before[place] += count


@kernel
def count_before_in_lists(
    starts: Ints,
    stops: Ints,
    wanted: Ints,
    wanted_scores: Floats,
    list_starts: Ints,
    list_stops: Ints,
    items: Ints,
    scores: Floats,
    before: Ints,
) -> None:
    """How many of a row's listed items stand before each wanted item of the row.

    Args:
        starts: int64 [B], where the row's wanted items start.
        stops: int64 [B], where they end.
        wanted: int64 [P].
        wanted_scores: float32 [P], exact.
        list_starts: int64 [B], where the row's list starts.
        list_stops: int64 [B], where it ends.
        items: int64 [L].
        scores: float32 [L], exact.
        before: int64 [P], out.
    """
    for row in range(starts.size):
        for place in range(starts[row], stops[row]):
            score, item = wanted_scores[place], wanted[place]
            count = 0
            for j in range(list_starts[row], list_stops[row]):
                count += scores[j] > score or (scores[j] == score and items[j] < item)
            before[place] = count
