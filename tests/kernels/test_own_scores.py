"""Scores of queries with items of their own, and their gradients, beside slow twins."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.kernels.own_scores import own_gradients, score_own
from fastneg.kernels.selection import exact_score


@pytest.mark.parametrize("width", [1, 17, 64])
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_queries_with_items_of_their_own(width, kind):
    rng = np.random.default_rng(width)
    queries = rng.standard_normal((9, width)).astype(np.float32)
    items = rng.standard_normal((31, width)).astype(np.float32)
    codes = rng.integers(0, 31, (9, 20)).astype(kind)
    scores = np.full((9, 20), 7.0, np.float32)
    score_own(queries, items, codes, scores, 2, 8)
    assert (scores[[0, 1, 8]] == 7).all()
    wanted = [[exact_score(queries, b, items, c) for c in codes[b]] for b in range(2, 8)]
    np.testing.assert_array_equal(scores[2:8], np.array(wanted, np.float32))


@pytest.mark.parametrize("width", [1, 17, 64])
def test_gradients_of_some_rows(width):
    rng = np.random.default_rng(width)
    given = rng.standard_normal((9, 5)).astype(np.float32)
    queries = rng.standard_normal((9, width)).astype(np.float32)
    items = rng.standard_normal((9, 5, width)).astype(np.float32)
    of_queries, of_items = np.full_like(queries, 7.0), np.full_like(items, 7.0)
    own_gradients(given, queries, items, of_queries, of_items, 2, 8)
    for rest in ([0, 1], [8]):
        assert (of_queries[rest] == 7).all()
        assert (of_items[rest] == 7).all()
    for b in range(2, 8):
        wanted = sum(float(given[b, c]) * items[b, c].astype(np.float64) for c in range(5))
        np.testing.assert_allclose(of_queries[b], wanted, rtol=1e-5, atol=1e-6)
        for c in range(5):
            np.testing.assert_array_equal(of_items[b, c], given[b, c] * queries[b])
