"""Popularity percentiles, heads, Jaccard; the sums themselves are compared in test_diagnose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastneg.mining.members import Popularity, jaccard


@given(st.lists(st.integers(0, 6), min_size=1, max_size=300))
def test_percentiles_are_mid_ranks(counts: list[int]) -> None:
    got = Popularity.of(np.array(counts, np.float64))
    every = np.arange(len(counts))
    wanted = (stats.rankdata(counts) - 0.5) / len(counts)
    np.testing.assert_allclose(got.percentile(every), wanted)
    assert got.percentile(every).mean() == pytest.approx(0.5)


def test_heads_are_whole_items_ties_to_the_lower_id() -> None:
    counts = np.ones(250)
    counts[[7, 9]] = 5
    heads = Popularity.of(counts).heads
    assert np.flatnonzero(heads[0]).tolist() == [0, 7, 9]
    assert heads.sum(axis=1).tolist() == [3, 25]


@given(st.integers(0, 1000), st.integers(1, 12))
def test_jaccard(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)

    def rows() -> np.ndarray:
        out = np.full((6, width), -1, np.int32)
        for row in out:
            size = rng.integers(0, width + 1)
            row[:size] = rng.permutation(2 * width)[:size]
        return out

    left, right = rows(), rows()
    for a, b, got in zip(left, right, jaccard(left, right), strict=True):
        one, two = set(a.tolist()) - {-1}, set(b.tolist()) - {-1}
        wanted = len(one & two) / len(one | two) if one | two else np.nan
        np.testing.assert_equal(got, wanted)
