"""Alias tables in integers: what a table gives is what its masses say, to the last unit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg.kernels import alias
from tests.naive import samplers as naive
from tests.naive.statistics import LEVEL, assert_follows, chi_square

CELL = 1 << 32


def _masses(parts: list[float]) -> np.ndarray:
    """Whole masses in proportion to ``parts`` that sum to n 2^32; the last takes the rest."""
    target, total = len(parts) * CELL, sum(parts)
    whole = [int(part / total * target) for part in parts]
    whole[int(np.argmax(whole))] += target - sum(whole)
    return np.array(whole, dtype=np.uint64)


def _table(masses: np.ndarray) -> np.ndarray:
    cells = np.empty(len(masses), dtype=np.uint64)
    alias.fill_table(masses, cells)
    return cells


def _check(masses: np.ndarray) -> None:
    cells = _table(masses)
    assert naive.cell_masses(cells.tolist()) == masses.tolist()
    back = np.zeros(len(masses), dtype=np.uint64)
    alias.table_masses(cells, back)
    np.testing.assert_array_equal(back, masses)
    low = cells & np.uint64(0xFFFFFFFF)
    assert (low < len(masses)).all()


PART = st.one_of(st.just(0.0), st.just(1.0), st.floats(1e-9, 1.0), st.floats(1.0, 1e6))


@given(st.lists(PART, min_size=1, max_size=60).filter(any))
def test_a_table_gives_its_masses_exactly(parts: list[float]) -> None:
    _check(_masses(parts))


@pytest.mark.parametrize(
    "masses",
    [
        [CELL],
        [0, 2 * CELL],
        [2 * CELL, 0],
        [1, 2 * CELL - 1],
        [2 * CELL - 1, 1],
        [0, 0, 0, 4 * CELL],
        [4 * CELL, 0, 0, 0],
        [CELL] * 7,
        [CELL - 1, CELL, CELL + 1],
        [CELL + 1, CELL, CELL - 1],
        [CELL + 1] * 3 + [CELL - 1] * 3,
        [1] * 8 + [9 * CELL - 8],
    ],
)
def test_awkward_masses(masses: list[int]) -> None:
    _check(np.array(masses, dtype=np.uint64))


def test_the_check_sees_a_table_that_is_off_by_one() -> None:
    masses = _masses([1.0, 2.0, 3.0, 0.5])
    cells = _table(masses)
    cells[0] += np.uint64(CELL)  # one unit from an alias to its host
    assert naive.cell_masses(cells.tolist()) != masses.tolist()


def _draws(cells: np.ndarray, count: int, *, row: int = 3, first: int = 0) -> np.ndarray:
    out = np.empty(count, dtype=np.int64)
    alias.draw_plain(cells, np.uint64(77), row, first, out)
    return out


def test_draws_are_the_words_and_the_table() -> None:
    masses = _masses([5.0, 0.0, 1.0, 1e-5, 3.0, 3.0, 2.0])
    cells = _table(masses)
    expected = [naive.pick(cells.tolist(), naive.word(77, 3, draw)) for draw in range(300)]
    assert _draws(cells, 300).tolist() == expected
    assert _draws(cells, 100, first=200).tolist() == expected[200:]


def test_draws_follow_the_masses_and_a_broken_table_does_not() -> None:
    masses = _masses([5.0, 0.0, 1.0, 0.1, 3.0, 3.0, 2.0])
    q = masses.astype(np.float64) / (len(masses) * CELL)
    cells = _table(masses)
    assert_follows(_draws(cells, 100_000), q)
    plain = np.arange(len(masses), dtype=np.uint64) | np.uint64(0xFFFFFFFF << 32)
    lost = np.where(np.arange(len(masses)) == 3, plain, cells)  # one cell lost its alias
    assert chi_square(_draws(lost, 100_000), q) < LEVEL


@settings(max_examples=50)
@given(
    st.lists(st.floats(0, 1e9), min_size=1, max_size=50),
    st.floats(1e-3, 1e3),
)
def test_floor_masses(weights: list[float], scale: float) -> None:
    masses = np.empty(len(weights), dtype=np.uint64)
    total = alias.floor_masses(np.array(weights), scale, masses)
    expected = [0 if w == 0 else max(1, int(w * scale)) for w in weights]
    assert masses.tolist() == expected
    assert int(total) == sum(expected)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40).filter(any), st.integers(0, 500))
def test_the_rest_is_spread_evenly(masses: list[int], rest: int) -> None:
    spread = np.array(masses, dtype=np.uint64)
    positive = sum(mass > 0 for mass in masses)
    alias.spread_rest(spread, positive, rest)
    added = spread.astype(int) - np.array(masses)
    assert added.sum() == rest
    assert (added[np.array(masses) == 0] == 0).all()
    share = added[np.array(masses) > 0]
    assert share.max() - share.min() <= 1
    # evenly along the way too: no prefix is off by a unit
    places = np.arange(1, positive + 1)
    assert (np.abs(np.cumsum(share) - places * rest / positive) < 1).all()


@given(st.integers(1, 3 * alias.BLOCK), st.floats(0, 1))
@settings(max_examples=15)
def test_block_sums(size: int, limit: float) -> None:
    weights = np.random.default_rng(size).random(size)
    weights[::7] = 0.0
    blocks = -(-size // alias.BLOCK)
    sums, small = np.zeros(blocks), np.zeros(blocks, dtype=np.int64)
    half = blocks // 2
    whole = np.array(weights)
    alias.block_sums(whole, limit, sums[:half], small[:half], 0)
    alias.block_sums(whole, limit, sums[half:], small[half:], half)
    for block in range(blocks):
        part = weights[block * alias.BLOCK : (block + 1) * alias.BLOCK]
        total = 0.0
        for weight in part[(part > 0) & (part >= limit)]:  # in order: the very same bits
            total += weight
        assert sums[block] == total
        assert small[block] == np.count_nonzero((part > 0) & (part < limit))
