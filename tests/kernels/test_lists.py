"""Draws from lists, word for word, and their probabilities."""

from __future__ import annotations

import numpy as np

from fastneg.checks import frozen
from fastneg.kernels import lists as kernels
from tests.kernels.test_draws import EVERYWHERE, KEY, LISTS, N, excluded, indptr
from tests.naive import samplers as naive

WIDTH = 40
OWNER = [-1, 1, 2, 3, 4, 5, 5, -1]
ROWS = [0, 1, 2, 5, 2**40, 2**62, 7, 8]
rows = frozen(np.array(ROWS))


def _empty() -> np.ndarray:
    return np.full((len(OWNER), WIDTH), -9)


def test_lists_and_their_probabilities() -> None:
    weights = [[], [5], [1 << 40], [1, 2, 4], [3, 1, 1, 1, 1 << 35, 9, 9], [2] * 8, [1, 1, 1]]
    cumulative = frozen(
        np.concatenate([np.cumsum(w, dtype=np.uint64) for w in weights]).astype(np.uint64)
    )
    owner = frozen(np.array(OWNER))
    items = _empty()
    kernels.draw_lists(
        indptr, excluded, cumulative, owner, np.uint64(KEY), rows, 4, EVERYWHERE, 0, items
    )
    for b, o in enumerate(owner):
        expected = [-9] * WIDTH
        if o >= 0:
            by_item = dict(zip(LISTS[o], weights[o], strict=True))
            expected = [
                naive.mass_draw(by_item, naive.word(KEY, ROWS[b], 4 + d)) for d in range(WIDTH)
            ]
        assert items[b].tolist() == expected
    log_q = np.empty((len(OWNER), N))
    grid = np.tile(np.arange(N), (len(OWNER), 1))
    kernels.list_log_q(indptr, excluded, cumulative, owner, grid, log_q)
    for b, o in enumerate(owner):
        by_item = dict(zip(LISTS[o], weights[o], strict=True)) if o >= 0 else {}
        total = sum(by_item.values()) or 1
        for item in range(N):
            with np.errstate(divide="ignore"):
                wanted = np.log(by_item.get(item, 0) / total)
            np.testing.assert_allclose(log_q[b, item], wanted, rtol=0, atol=8e-15)
