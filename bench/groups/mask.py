"""The mask of known positives, against a binary search per cell."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.floor import floor_kernel
from bench.report import Group, compared
from bench.rounds import Side, measure
from bench.worlds import Scale, gowalla

TITLE = "positive_mask: 2,048 users x 4,096 items of gowalla, one thread"
USERS, ITEMS = 2_048, 4_096
_TIMES, _MS = 50.0, 1.5


@floor_kernel
def search_cells(indptr: Any, positives: Any, users: Any, items: Any, mask: Any) -> None:
    """The twin: mask[b, c] = whether items[c] is found in the user's sorted list by bisection."""
    for b in range(users.shape[0]):
        first, last = indptr[users[b]], indptr[users[b] + 1]
        for c in range(items.shape[0]):
            low, high = first, last
            while low < high:
                middle = (low + high) >> 1
                if positives[middle] < items[c]:
                    low = middle + 1
                else:
                    high = middle
            mask[b, c] = low < last and positives[low] == items[c]


def run(scale: Scale, group: Group) -> None:
    known = gowalla(stand_in=scale.quick and scale.largest <= 10_000)
    pairs = known.interactions
    users = known.rows(USERS)
    rng = np.random.default_rng(5)
    in_batch = pairs.row_items[rng.integers(0, pairs.num_rows, ITEMS // 2)]
    items = np.concatenate([in_batch, rng.integers(0, pairs.num_items, ITEMS // 2)])
    mask = np.zeros((USERS, ITEMS), dtype=np.bool_)

    def twin() -> None:
        search_cells(pairs.positive_indptr, pairs.positive_items, users, items, mask)

    twin()
    ours = pairs.positive_mask(users, items)
    assert np.array_equal(np.asarray(ours), mask)
    assert mask.any()
    timing = measure(
        [
            Side("ours", lambda: pairs.positive_mask(users, items)),
            Side("twin", twin, calls=1),
        ],
        rounds=scale.few(0.7),
    )
    row = compared(
        "positive_mask",
        f"{USERS:,} x {ITEMS:,}",
        1,
        timing.figure("ours"),
        timing.figure("twin"),
        timing.ratio("twin", "ours"),
        against="binary search per cell",
        unit="ms",
        scale=1e-6,
    )
    assert row.ratio is not None
    assert row.ours is not None
    row.goal = f"≥ {_TIMES:g}x or ≤ {_MS:g} ms"
    row.reached = row.ratio[0] >= _TIMES or row.ours <= _MS
    group.add(row)
    group.note(
        f"Data: {known.name}. Half of the items as a batch has them (by popularity, with repeats), "
        f"half uniform; {int(mask.sum()):,} cells are known positives. The masks are equal."
    )
