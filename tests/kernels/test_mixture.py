"""Slots and parts: by chance, by quota, and what the parts add up to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastneg.checks import frozen
from fastneg.kernels import mixture as kernels
from tests.naive import samplers as naive
from tests.naive.statistics import assert_follows, far_from

KEY = 99
TAGS = np.array([4, 7, 9], dtype=np.int8)


def _source(num_rows: int, width: int) -> np.ndarray:
    source = np.full((num_rows, width), 2, dtype=np.int8)
    source[:, 1::3] = 100  # another sampler's slots
    return source


def test_each_slot_by_a_word_of_its_own() -> None:
    shares = np.array([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0], [0.5, 0.0, 0.5], [0.0, 0.0, 0.0]])
    rows = frozen(np.array([0, 5, 2**41, 3]))
    source = _source(4, 60)
    kernels.choose_per_draw(shares, TAGS, np.uint64(KEY), rows, 10, source, 2)
    for b in range(4):
        for d in range(60):
            if d % 3 == 1:
                assert source[b, d] == 100
            elif b == 3:
                assert source[b, d] == 2  # nothing to choose from
            else:
                u = ((naive.word(KEY, int(rows[b]), 10 + d) >> 11) + 0.5) * 2.0**-53
                part = int(np.searchsorted(np.cumsum(shares[b]), u, side="right"))
                assert source[b, d] == TAGS[part]


def test_parts_come_in_their_shares() -> None:
    shares = np.array([[0.25, 0.7, 0.05]]).repeat(500, axis=0)
    source = np.zeros((500, 100), dtype=np.int8)
    tags = np.array([0, 1, 2], dtype=np.int8)
    kernels.choose_per_draw(shares, tags, np.uint64(5), frozen(np.arange(500)), 0, source, 0)
    drawn = np.where(source == 0, 0, source)
    assert_follows(drawn.astype(np.int64), shares[0])


def test_rounding_never_lets_a_slot_go() -> None:
    shares = np.array([[0.1] * 10])  # adds up to less than 1
    source = np.zeros((1, 5000), dtype=np.int8)
    tags = np.arange(1, 11, dtype=np.int8)
    kernels.choose_per_draw(shares, tags, np.uint64(5), frozen(np.arange(1)), 0, source, 0)
    assert (source > 0).all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any), st.integers(1, 50))
def test_expected_slots_are_whole_where_they_are(weights: list[int], width: int) -> None:
    shares = np.array([weights], dtype=np.float64) / sum(weights)
    expected = np.empty_like(shares)
    kernels.expected_slots(shares, width, expected)
    for weight, slots in zip(weights, expected[0], strict=True):
        whole, rest = divmod(weight * width, sum(weights))
        assert slots == whole if rest == 0 else math.isclose(slots, weight * width / sum(weights))


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=3).filter(any),
    st.integers(1, 30),
    st.integers(0, 2**40),
)
def test_quota_invariants(weights: list[int], width: int, first_row: int) -> None:
    shares = np.array([weights] * 4, dtype=np.float64) / sum(weights)
    expected = np.empty_like(shares)
    source = _source(4, width)
    mine = source == 2
    slots = int(mine[0].sum())
    kernels.expected_slots(shares, slots, expected)
    rows = frozen(first_row + np.arange(4))
    kernels.choose_quota(expected, TAGS[: len(weights)], np.uint64(KEY), rows, source, 2)
    assert (source[~mine] == 100).all()
    for row, due in zip(source, expected, strict=True):
        tags = row[row != 100].tolist()
        assert set(tags) <= set(TAGS.tolist())
        floors = [math.floor(x) for x in due]
        certain = [int(TAGS[k]) for k, count in enumerate(floors) for _ in range(count)]
        assert tags[: len(certain)] == certain  # parts in order, then the rest
        for k, floor in enumerate(floors):
            count = tags.count(TAGS[k])
            assert floor <= count <= floor + 1
            assert count == floor or due[k] > floor


@pytest.mark.parametrize("width", [1, 2, 3, 7, 10])
def test_quota_gives_each_part_its_expectation(width: int) -> None:
    shares = np.array([[0.03, 0.57, 0.4]]).repeat(20_000, axis=0)
    expected = np.empty_like(shares)
    kernels.expected_slots(shares, width, expected)
    source = np.zeros((20_000, width), dtype=np.int8)
    tags = np.array([1, 2, 3], dtype=np.int8)
    kernels.choose_quota(
        expected, tags, np.uint64(3), frozen(np.arange(20_000)), source, 0
    )  # fmt: skip
    for k in range(3):
        counts = (source == k + 1).sum(axis=1)
        assert far_from(counts, shares[0, k] * width) < 5
        rounded = np.rint(shares[0, k] * width)  # what a quota without chance would give
        if abs(rounded - shares[0, k] * width) > 0.01:
            assert far_from(counts, rounded) > 5


def test_add_part_leaves_parts_without_a_share_alone() -> None:
    shares = np.array([[0.25, 0.75], [1.0, 0.0]])
    total = np.zeros((2, 3))
    first = np.log(np.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]))
    kernels.add_part(shares, 0, first, total)
    kernels.add_part(shares, 1, np.array([[-np.inf, 0.0, -np.inf], [np.nan, np.inf, 0.0]]), total)
    np.testing.assert_allclose(total, [[0.025, 0.8, 0.175], [0.3, 0.3, 0.4]])
