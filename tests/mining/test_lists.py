"""Centroids and lists are the same by tiles and by float32 products, on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg import set_num_threads
from fastneg.mining import lists as lists_of
from fastneg.mining import packed
from fastneg.mining.lists import assign, train_centroids


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    set_num_threads(request.param)
    yield
    set_num_threads(None)


def _by_float32(monkeypatch, function, *args):
    with monkeypatch.context() as patch:
        patch.setattr(packed, "HAS_AMX", False)
        return function(*args)


def _by_tiles(monkeypatch, function, *args):
    """However little there is to do."""
    with monkeypatch.context() as patch:
        patch.setattr(lists_of, "_TILES_PAY", 0)
        return function(*args)


def test_assign_is_the_nearest_of_exact_distances(threads, monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.integers(-3, 4, (901, 5)).astype(np.float32)
    centroids = rng.integers(-3, 4, (37, 5)).astype(np.float32)
    distances = ((vectors[:, None] - centroids[None]) ** 2).sum(axis=2)
    for way in (_by_float32, _by_tiles):
        np.testing.assert_array_equal(
            way(monkeypatch, assign, vectors, centroids), distances.argmin(axis=1)
        )


def test_assign_when_the_work_is_large_enough_by_itself(threads, monkeypatch):
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((5_003, 20)).astype(np.float32)
    centroids = rng.standard_normal((260, 20)).astype(np.float32)
    assert len(vectors) * len(centroids) >= lists_of._TILES_PAY
    found = assign(vectors, centroids)
    np.testing.assert_array_equal(found, _by_float32(monkeypatch, assign, vectors, centroids))
    wide = centroids.astype(np.float64)
    for row in range(0, 5_003, 97):
        distances = ((vectors[row] - wide) ** 2).sum(axis=1)
        assert distances[found[row]] <= distances.min() + 1e-4


@pytest.mark.parametrize("kind", ["plain", "few"])
def test_training_by_tiles_gives_the_same_centroids(kind, threads, monkeypatch):
    """``few``: fewer different items than lists, so that lists are empty in every round."""
    rng = np.random.default_rng(2)
    items = rng.standard_normal((2_600, 12)).astype(np.float32)
    if kind == "few":
        items = np.ascontiguousarray(items[rng.integers(0, 30, len(items))])
    expected = _by_float32(monkeypatch, train_centroids, items, 60, 3)
    found = _by_tiles(monkeypatch, train_centroids, items, 60, 3)
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (60, 12)
    assert np.isfinite(found).all()


def test_no_vectors_have_no_lists():
    assert assign(np.empty((0, 4), np.float32), np.ones((3, 4), np.float32)).shape == (0,)


@pytest.mark.parametrize("exponent", [-140, -100, -41, 41, 60, 100, 120])
def test_very_long_and_very_short_vectors_have_the_lists_of_ordinary_ones(exponent):
    rng = np.random.default_rng(5)
    items = rng.standard_normal((2_000, 12)).astype(np.float32)
    centroids, lists = lists_of.make_lists(items, 30, 1)
    if exponent == -140:  # a part of the digits is lost there
        far = lists_of.make_lists(np.ldexp(items, exponent), 30, 1)
        assert np.bincount(far[1], minlength=30).max() < 300
        return
    far = lists_of.make_lists(np.ldexp(items, exponent), 30, 1)
    np.testing.assert_array_equal(far[1], lists)
    np.testing.assert_array_equal(far[0], np.ldexp(centroids, exponent))


def test_items_that_are_all_zero_are_put_somewhere():
    _, lists = lists_of.make_lists(np.zeros((100, 3), np.float32), 5, 0)
    assert lists.min() >= 0
    assert lists.max() < 5
