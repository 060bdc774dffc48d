from __future__ import annotations

import numpy as np
import pytest

from fastneg.errors import FastnegError
from fastneg.positives import build_positives, transpose


@pytest.mark.parametrize("sort", [False, True])
def test_sorted_rows_take_the_short_way_to_the_same_place(sort: bool) -> None:
    generator = np.random.default_rng(5)
    cells = generator.permutation(40 * 30)[:300]
    cells = np.sort(cells) if sort else cells
    users, items = cells // 30, cells % 30
    times, weights = cells * 2, np.ones(300, np.float32)
    made = build_positives(users, items, weights, times, num_users=40, num_items=30)
    assert np.array_equal(made.indptr, np.searchsorted(np.sort(cells) // 30, np.arange(41)))
    assert np.array_equal(made.items, np.sort(cells) % 30)
    assert made.times is not None
    assert np.array_equal(made.times, np.sort(cells) * 2)
    assert made.weights.tolist() == [1] * 300
    indptr, rows = transpose(made.indptr, made.items, 30)
    order = np.lexsort((users, items))
    assert np.array_equal(rows, users[order])
    assert np.array_equal(indptr, np.searchsorted(items[order], np.arange(31)))


def test_weights_add_in_float64() -> None:
    rows = np.zeros(2**20 + 1, np.int64)
    weights = np.full(rows.size, 1e-3, np.float32)
    weights[0] = 2.0**24
    made = build_positives(rows, rows, weights, None, num_users=1, num_items=1)
    exact = np.float32(2.0**24 + 2**20 * float(np.float32(1e-3)))
    assert made.weights.tolist() == [exact]
    with pytest.raises(FastnegError, match=r"weights of a pair's rows add up to 6.*e\+38"):
        build_positives(
            rows[:2], rows[:2], np.full(2, 3e38, np.float32), None, num_users=1, num_items=1
        )


def test_nothing_at_all() -> None:
    none = np.zeros(0, np.int64)
    made = build_positives(none, none, None, none, num_users=2, num_items=3)
    assert made.indptr.tolist() == [0, 0, 0]
    assert transpose(made.indptr, made.items, 3)[0].tolist() == [0, 0, 0, 0]
