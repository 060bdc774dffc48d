"""The nearest lists by tiles are those of float32 products, and of NumPy, for any vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg.mining.packed import HAS_AMX

if not HAS_AMX:
    pytest.skip("this processor has no bfloat16 tiles", allow_module_level=True)

from fastneg.kernels import tile_centroids
from fastneg.kernels.centroids import nearest_list
from fastneg.mining.packed import PackedCentroids, whole_lines
from tests.kernels.test_panels import panels_of

LANES = 16


def _offsets(centroids):
    offsets = np.full(-(-len(centroids) // LANES) * LANES, -np.inf, np.float32)
    with np.errstate(over="ignore"):
        squares = np.einsum("ld,ld->l", centroids, centroids, dtype=np.float64)
        offsets[: len(centroids)] = -0.5 * squares
    return offsets


def _both(vectors, centroids):
    """The lists by tiles, and those by float32 products."""
    count = len(centroids)
    panels, *_ = panels_of(centroids, np.zeros(count, np.int32), 1)
    offsets = _offsets(centroids)
    lists, expected = (np.full(len(vectors) + 3, -7, np.int32) for _ in range(2))
    PackedCentroids.of(centroids, offsets).write_nearest(
        vectors, panels, offsets, lists[: len(vectors)]
    )
    nearest_list(vectors, panels, count, offsets, expected[: len(vectors)])
    assert (lists[len(vectors) :] == -7).all()
    return lists[: len(vectors)], expected[: len(vectors)]


def _naive(vectors, centroids):
    """By distances in float64; integers that small are exact, so that ties are ties."""
    wide = centroids.astype(np.float64)
    return np.array([((x - wide) ** 2).sum(axis=1).argmin() for x in vectors.astype(np.float64)])


@pytest.mark.parametrize("num_lists", [1, 15, 16, 17, 31, 32, 33, 530, 1_100])
@pytest.mark.parametrize("rows", [1, 77, 256, 515])
def test_ties_go_to_the_lower_list(num_lists, rows):
    rng = np.random.default_rng(num_lists + rows)
    centroids = rng.integers(-2, 3, (num_lists, 4)).astype(np.float32)
    vectors = rng.integers(-2, 3, (rows, 4)).astype(np.float32)
    lists, expected = _both(vectors, centroids)
    np.testing.assert_array_equal(lists, _naive(vectors, centroids))
    np.testing.assert_array_equal(lists, expected)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 127, 128, 129, 255, 256, 257, 600])
def test_rows_that_fill_no_panel_and_no_block(rows):
    rng = np.random.default_rng(rows)
    lists, expected = _both(_plain(rng, rows, 33), _plain(rng, 200, 33))
    np.testing.assert_array_equal(lists, expected)


def _plain(rng, rows, width):
    return rng.standard_normal((rows, width)).astype(np.float32)


def _near_ties(rng, rows, centroids):
    """Midway between two centroids, off by a few roundings of float32 or of bfloat16."""
    one, other = (centroids[rng.integers(0, len(centroids), rows)] for _ in range(2))
    off = rng.choice([0.0, 1e-7, -1e-6, 1e-4, 1e-3], (rows, 1))
    return ((one + other) / 2 + off * (one - other)).astype(np.float32)


@pytest.mark.parametrize("width", [1, 2, 3, 31, 32, 33, 64, 65, 100])
def test_widths_and_vectors_between_two_centroids(width):
    rng = np.random.default_rng(width)
    centroids = _plain(rng, 700, width)
    vectors = np.concatenate([_plain(rng, 300, width), _near_ties(rng, 300, centroids)])
    lists, expected = _both(vectors, centroids)
    np.testing.assert_array_equal(lists, expected)


def test_near_ties_are_decided_in_float32_and_not_by_the_tiles():
    """Two centroids apart by less than bfloat16 can tell: rounded, the lower would always win."""
    rng = np.random.default_rng(5)
    lower = _plain(rng, 64, 64)
    upper = lower * np.float32(1 + 2.0**-9)
    centroids = np.concatenate([lower, upper])
    vectors = np.concatenate([lower, upper])
    lists, expected = _both(vectors, centroids)
    np.testing.assert_array_equal(lists, np.arange(128))
    np.testing.assert_array_equal(lists, expected)


def _between(rng, rows, centroids):
    """Midway between two centroids, and a little aside, so that rounding moves each coordinate."""
    one, other = (centroids[rng.integers(0, len(centroids), rows)] for _ in range(2))
    along = (one - other).astype(np.float64)
    aside = rng.standard_normal(one.shape)
    squares = np.maximum((along**2).sum(axis=1, keepdims=True), 1e-9)
    aside -= along * ((aside * along).sum(axis=1, keepdims=True) / squares)
    off = rng.choice([-1e-4, -1e-5, 1e-6, 1e-5, 1e-4], (rows, 1))
    return ((one + other) / 2 + aside + off * along).astype(np.float32)


@pytest.mark.parametrize("rounded", ["centroids", "vectors"])
def test_what_one_side_alone_loses_to_rounding_is_in_the_bound(rounded):
    """The other side is made of numbers that bfloat16 holds."""
    rng = np.random.default_rng(6)
    centroids = rng.integers(-8, 9, (320, 64)).astype(np.float32)
    if rounded == "centroids":
        centroids += (rng.standard_normal(centroids.shape) * 0.01).astype(np.float32)
        vectors = np.round(_between(rng, 2_000, centroids) * 4) / np.float32(4)
    else:
        vectors = _between(rng, 2_000, centroids)
    lists, expected = _both(vectors, centroids)
    np.testing.assert_array_equal(lists, expected)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1e-10, 1e10, 1e17, 1e18, 1e25])
def test_tiny_and_huge_vectors(scale):
    """Products below normal numbers, and beyond the largest."""
    rng = np.random.default_rng(7)
    centroids = _plain(rng, 300, 40)
    vectors = np.concatenate([_plain(rng, 200, 40), _near_ties(rng, 100, centroids)])
    for left, right in ((scale, scale), (scale, 1.0), (1.0, scale)):
        if max(left, right) > 1e18 and left != right:
            continue  # an offset that is not finite, or a product: nothing is nearest
        x, c = (vectors * np.float32(left)), (centroids * np.float32(right))
        if np.isfinite(_offsets(c)[: len(c)]).all():
            lists, expected = _both(x, c)
            np.testing.assert_array_equal(lists, expected)


def test_lengths_of_many_magnitudes_in_one_set():
    rng = np.random.default_rng(8)
    centroids = _plain(rng, 500, 24) * 10.0 ** rng.uniform(-22, 17, (500, 1)).astype(np.float32)
    vectors = _plain(rng, 400, 24) * 10.0 ** rng.uniform(-22, 17, (400, 1)).astype(np.float32)
    lists, expected = _both(vectors, np.ascontiguousarray(centroids))
    np.testing.assert_array_equal(lists, expected)


def test_products_beyond_what_a_bound_can_say_are_all_made_in_float32():
    """A long vector overflows in float32 with some centroids: the first of them wins."""
    rng = np.random.default_rng(9)
    centroids = _plain(rng, 100, 8) * np.float32(1e10)
    vectors = _plain(rng, 50, 8)
    vectors[::3] *= np.float32(1e30)
    lists, expected = _both(vectors, centroids)
    np.testing.assert_array_equal(lists, expected)
    nearest = _naive(vectors[1::3], centroids)
    np.testing.assert_array_equal(lists[1::3], nearest)


def test_zeros_and_centroids_that_are_all_the_same():
    rng = np.random.default_rng(10)
    vectors = _plain(rng, 300, 20)
    vectors[::2] = 0
    same = np.tile(_plain(rng, 1, 20), (200, 1))
    for centroids in (same, np.zeros_like(same)):
        lists, expected = _both(vectors, centroids)
        assert (lists == 0).all()
        np.testing.assert_array_equal(lists, expected)
    mixed = np.concatenate([same[:40], np.zeros((40, 20), np.float32), _plain(rng, 40, 20)])
    mixed = np.concatenate([mixed, mixed])  # each once more, higher
    lists, expected = _both(vectors, mixed)
    assert (lists < 120).all()
    np.testing.assert_array_equal(lists, expected)
    np.testing.assert_array_equal(lists[::2], 40)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 300),
    num_lists=st.integers(1, 90),
    width=st.integers(1, 100),
    spread=st.sampled_from([0.0, 1.0, 4.0]),
    centre=st.sampled_from([0.0, 1.0, 300.0]),
    grid=st.booleans(),
)
def test_any_vectors(seed, rows, num_lists, width, spread, centre, grid):
    rng = np.random.default_rng(seed)

    def some(count):
        values = rng.standard_normal((count, width)) + centre
        values *= 10.0 ** rng.uniform(-spread, spread, (count, 1))
        return (np.round(values) if grid else values).astype(np.float32)

    centroids = some(num_lists)
    vectors = np.concatenate([some(rows), _near_ties(rng, rows, centroids)])
    lists, expected = _both(vectors, centroids)
    np.testing.assert_array_equal(lists, expected)


def _float32_and_tiles(vectors, centroids, monkeypatch):
    """Of each vector: the largest product by tiles of each group, and the bound's three parts."""
    seen = {}

    def keep(*args):
        tile_centroids.nearest_by_tiles(*args)
        seen["tallest"] = args[-2].copy()

    monkeypatch.setattr("fastneg.mining.packed.nearest_by_tiles", keep)
    offsets = _offsets(centroids)
    panels, *_ = panels_of(centroids, np.zeros(len(centroids), np.int32), 1)
    packed = PackedCentroids.of(centroids, offsets)
    packed.write_nearest(vectors, panels, offsets, np.empty(len(vectors), np.int32))
    groups = len(packed.lengths)
    return seen["tallest"].reshape(-1, tile_centroids.BLOCK)[:groups, : len(vectors)], packed


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e10])
def test_what_a_tile_is_off_stays_within_the_bound_and_the_bound_is_not_idle(scale, monkeypatch):
    rng = np.random.default_rng(11)
    centroids = _plain(rng, 320, 64) * np.float32(scale)
    vectors = _plain(rng, 256, 64) * np.float32(scale)
    tallest, packed = _float32_and_tiles(vectors, centroids, monkeypatch)
    wide, wide_centroids = vectors.astype(np.float64), centroids.astype(np.float64)
    exact = wide @ wide_centroids.T + _offsets(centroids).astype(np.float64)
    best = exact.reshape(256, -1, LANES).max(axis=2).T
    bits = vectors.view(np.uint32).astype(np.uint64)
    even = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    rounded = (even << 16).astype(np.uint32).view(np.float32).astype(np.float64)
    lost = np.sqrt(((wide - rounded) ** 2).sum(axis=1))
    size = np.sqrt((rounded**2).sum(axis=1))
    lengths, residuals = (part.astype(np.float64)[:, None] for part in packed[2:4])
    share = (2 * 64 + 32) * 2.0**-23
    bound = lost * lengths + size * residuals + share * (size + lost) * lengths
    bound += packed.extras[:, None]
    off = np.abs(tallest - best)
    assert (off <= bound).all()
    if scale >= 1:
        assert off.max() > 0.02 * bound.max()  # else a search would look at everything


def test_arrays_for_tiles_start_where_a_cache_line_starts():
    for size in (1, 33, 10_000):
        for dtype in (np.uint16, np.uint32, np.float32):
            room = whole_lines(size, dtype)
            assert room.ctypes.data % 64 == 0
            assert room.shape == (size,)
            assert not room.any()
