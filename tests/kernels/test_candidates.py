"""Draws from what a list leaves out, against the list of what is left."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.kernels.candidates import draw_candidates


@pytest.mark.parametrize("num_items", [1, 7, 40])
@pytest.mark.parametrize("num_draws", [1, 5, 39])
def test_rows_hold_distinct_items_left(num_items: int, num_draws: int) -> None:
    rng = np.random.default_rng(num_items)
    known = [np.flatnonzero(rng.random(num_items) < share) for share in (0.0, 0.3, 0.8, 1.1)]
    indptr = np.cumsum([0, *(len(row) for row in known)])
    users = np.tile(np.arange(4), 50)
    out = np.empty((200, num_draws), dtype=np.int64)
    draw_candidates(
        np.uint64(9), users, np.arange(200), indptr, np.concatenate(known), num_items, out
    )
    seen: list[set[int]] = [set() for _ in range(4)]
    for user, row in zip(users, out, strict=True):
        left = sorted(set(range(num_items)) - set(known[user].tolist()))
        drawn = row[row >= 0].tolist()
        assert len(drawn) == min(len(left), num_draws)
        assert drawn == sorted(set(drawn))
        assert set(drawn) <= set(left)
        assert (row[len(drawn) :] == -1).all()
        seen[user] |= set(drawn)
    for user in range(4):  # 50 rows reach nearly all of it
        missed = set(range(num_items)) - set(known[user].tolist()) - seen[user]
        assert len(missed) <= 0.5 * num_items
