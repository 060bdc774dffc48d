"""Exact scores of many items: the same bits as one inner product at a time."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.kernels.rescore import exact_scores
from fastneg.kernels.selection import exact_score


@pytest.mark.parametrize("width", [1, 15, 16, 17, 64, 100, 300])
def test_the_same_bits_as_exact_score(width):
    rng = np.random.default_rng(width)
    scale = np.float32(10.0) ** rng.integers(-12, 12, (60, width)).astype(np.float32)
    items = rng.standard_normal((60, width)).astype(np.float32) * scale
    items[5] = 0
    query = rng.standard_normal((1, width)).astype(np.float32)
    codes = rng.integers(0, 60, 200).astype(np.int32)
    codes[0] = 5
    scores = np.full(203, 7.0, np.float32)
    exact_scores(query[0], items.ravel(), codes, 200, np.empty(width), scores)
    wanted = np.array([exact_score(query, 0, items, c) for c in codes], np.float32)
    np.testing.assert_array_equal(scores[:200].view(np.uint32), wanted.view(np.uint32))
    assert (scores[200:] == 7).all()
    assert scores.view(np.uint32)[0] == 0  # 0.0, not -0.0
