"""Edges near the k-th largest: always true, and close."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastneg.kernels.edges import edges_around, num_reaching

FLOATS = st.floats(-(2.0**120), 2.0**120, width=32)


@settings(max_examples=200, deadline=None)
@given(arrays(np.float32, st.integers(1, 60), elements=FLOATS), st.data())
def test_edges_are_what_they_promise(scores, data):
    k = data.draw(st.integers(0, scores.size))
    for side in (1, -1):
        low, high = edges_around(scores, scores.size, k, side, 0)
        assert (scores >= low).sum() >= k
        assert (scores >= high).sum() <= k
        assert low <= high


@pytest.mark.parametrize("k", [1, 100, 500, 1_999])
@pytest.mark.parametrize("spare", [0, 31])
@pytest.mark.parametrize("outlier", [None, 1e4])
def test_edges_are_close_where_scores_are_spread(k, spare, outlier):
    scores = np.random.default_rng(k).standard_normal(2_000).astype(np.float32)
    if outlier is not None:
        scores[3] = outlier
    low, _ = edges_around(scores, 2_000, k, 1, spare)
    assert num_reaching(scores, 2_000, low) == (scores >= low).sum()
    assert k <= (scores >= low).sum() <= k + spare + (outlier is not None)
    _, high = edges_around(scores, 2_000, k, -1, spare)
    assert k - spare - (outlier is not None) <= (scores >= high).sum() <= k


def test_equal_scores():
    low, high = edges_around(np.full(50, 2.5, np.float32), 50, 7, 1, 0)
    assert (low, high) == (2.5, np.inf)
