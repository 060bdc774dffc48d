"""Nearest lists and sums, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.kernels.centroids import add_to_lists, nearest_list
from fastneg.kernels.panels import LANES
from tests.kernels.test_panels import panels_of


@pytest.mark.parametrize("num_lists", [1, 15, 16, 17, 530, 1_100])
def test_nearest_list_with_ties_to_the_lower(num_lists):
    rng = np.random.default_rng(num_lists)
    centroids = rng.integers(-2, 3, (num_lists, 4)).astype(np.float32)
    vectors = rng.integers(-2, 3, (77, 4)).astype(np.float32)
    panels, *_ = panels_of(centroids, np.zeros(num_lists, np.int32), 1)
    offsets = np.full(-(-num_lists // LANES) * LANES, -np.inf, np.float32)
    offsets[:num_lists] = -0.5 * (centroids**2).sum(axis=1)
    lists = np.full(80, -7, np.int32)
    nearest_list(vectors, panels, num_lists, offsets, lists[:77])
    distance = ((vectors[:, None] - centroids[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(lists[:77], distance.argmin(axis=1))
    assert (lists[77:] == -7).all()


def test_sums_and_sizes():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 3)).astype(np.float32)
    lists = rng.integers(0, 4, 50).astype(np.int32)
    sums, sizes = np.zeros((5, 3)), np.zeros(5, np.int64)
    add_to_lists(vectors, lists, sums, sizes)
    np.testing.assert_array_equal(sizes, np.bincount(lists, minlength=5))
    for one in range(5):
        np.testing.assert_allclose(sums[one], vectors[lists == one].sum(axis=0), atol=1e-5)
