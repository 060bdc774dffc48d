"""Alias tables in integers: what a table gives is what its masses say, to the last unit."""

from __future__ import annotations

import itertools

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
    st.sampled_from([1.0, 0.25]),
)
def test_floor_masses(weights: list[float], scale: float, factor: float) -> None:
    # a block and a bit, so that the second block is not whole
    weights = [*([0.0] * alias.BLOCK), *weights]
    masses = np.empty(len(weights), dtype=np.uint64)
    sums, counts = np.empty(2, dtype=np.uint64), np.empty(2, dtype=np.int64)
    for b in (0, 1):
        alias.floor_masses(
            np.array(weights), factor, scale, b, masses, sums[b : b + 1], counts[b : b + 1]
        )
    expected = [0 if w == 0 else max(1, int(w * factor * scale)) for w in weights]
    assert masses.tolist() == expected
    assert sums.tolist() == [0, sum(expected)]
    assert counts.tolist() == [0, sum(mass > 0 for mass in expected)]


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 2**34), min_size=1, max_size=40).filter(any),
    st.integers(0, 500),
    st.booleans(),
)
def test_the_rest_is_spread_evenly(masses: list[int], rest: int, second: bool) -> None:
    masses = [*([1] * (alias.BLOCK * second)), *masses]
    rest *= 1 + 40 * second
    spread = np.array(masses, dtype=np.uint64)
    weights = np.array(masses, dtype=np.float64)
    positive = sum(mass > 0 for mass in masses)
    each, left = divmod(rest, positive)
    blocks = 1 + second
    surplus, deficit = np.zeros(blocks, dtype=np.uint64), np.zeros(blocks, dtype=np.uint64)
    relative, total = np.zeros(blocks), np.zeros(blocks)
    for b in range(blocks):  # a block goes on where the one before ended
        error = sum(mass > 0 for mass in masses[: b * alias.BLOCK]) * left % positive
        part = slice(b, b + 1)
        alias.spread_rest(
            weights, 1.0, 1.0, each, left, positive, b, np.array([error]), spread, surplus[part],
            deficit[part], relative[part], total[part],
        )  # fmt: skip
    added = spread.astype(int) - np.array(masses)
    assert added.sum() == rest
    assert (added[np.array(masses) == 0] == 0).all()
    share = added[np.array(masses) > 0]
    assert share.max() - share.min() <= 1
    # evenly along the way too: no prefix is off by a unit
    places = np.arange(1, positive + 1)
    assert (np.abs(np.cumsum(share) - places * rest / positive) < 1).all()
    for b in range(blocks):
        part = slice(b * alias.BLOCK, (b + 1) * alias.BLOCK)
        assert surplus[b] == sum(max(0, int(mass) - CELL) for mass in spread[part])
        assert deficit[b] == sum(max(0, CELL - int(mass)) for mass in spread[part])
        assert total[b] == added[part].sum()
        some = weights[part] > 0
        worst = (added[part][some] / weights[part][some]).max(initial=0.0)
        assert relative[b] == pytest.approx(worst, rel=1e-12)


@given(st.integers(1, 3 * alias.BLOCK), st.floats(0, 1))
@settings(max_examples=15)
def test_block_sums(size: int, limit: float) -> None:
    weights = np.random.default_rng(size).random(size)
    weights[::7] = 0.0
    blocks = -(-size // alias.BLOCK)
    sums, small = np.zeros(blocks), np.zeros(blocks, dtype=np.int64)
    half = blocks // 2
    whole = np.array(weights)
    alias.block_sums(whole, 0.5, limit, sums[:half], small[:half], 0)
    alias.block_sums(whole, 0.5, limit, sums[half:], small[half:], half)
    for block in range(blocks):
        part = weights[block * alias.BLOCK : (block + 1) * alias.BLOCK] * 0.5
        lanes = [0.0] * 8
        for i, weight in enumerate(part):  # in order: the very same bits
            lanes[i % 8] += weight if weight >= limit else 0.0
        total = 0.0
        for lane in lanes:
            total += lane
        assert sums[block] == total
        assert small[block] == np.count_nonzero((part > 0) & (part < limit))


@given(
    st.lists(PART, min_size=2, max_size=60).filter(any),
    st.lists(st.integers(0, 60), min_size=1, max_size=4),
)
def test_parts_of_the_sweep_fill_the_table_of_the_whole(
    parts: list[float], cuts: list[int]
) -> None:
    masses = _masses(parts)
    cells = np.zeros(len(masses), dtype=np.uint64)
    borders = sorted({0, *[min(cut, len(masses)) for cut in cuts]} - {len(masses)})
    borders.append(len(masses))
    for start, stop in itertools.pairwise(borders):
        given = sum(max(0, CELL - int(mass)) for mass in masses[:start])
        if start == 0:
            heavy = int(np.argmax(masses >= CELL))
            held = int(masses[heavy])
        else:
            heavy, held = alias.find_heavy(masses, 0, np.uint64(0), np.uint64(given))
        alias.fill_part(masses, start, stop, heavy, np.uint64(held), 32, cells)
    np.testing.assert_array_equal(cells, _table(masses))


def test_entries_carry_the_logarithms_of_both() -> None:
    masses = _masses([5.0, 0.0, 1.0, 1e-5, 3.0, 3.0, 2.0])
    cells = _table(masses)
    with np.errstate(divide="ignore"):
        log_q = np.log(masses.astype(float) / (len(masses) * CELL)).astype(np.float32)
    entries = np.zeros(2 * len(masses), dtype=np.uint64)
    half = 3
    alias.fill_entries(cells, log_q.view(np.uint32), 0, entries[: 2 * half])
    alias.fill_entries(cells, log_q.view(np.uint32), half, entries[2 * half :])
    items, bits = np.empty(1000, dtype=np.int64), np.empty(1000, dtype=np.uint32)
    alias.draw_entries(entries, np.uint64(77), 3, 0, items, bits)
    assert items.tolist() == _draws(cells, 1000).tolist()
    np.testing.assert_array_equal(bits.view(np.float32), log_q[items])
    assert len(np.unique(items)) > 4


def test_aliases_out_of_range_are_seen() -> None:
    cells = _table(_masses([5.0, 0.0, 1.0]))
    assert alias.all_aliases_below(cells, 3)
    cells[1] |= np.uint64(3)
    assert not alias.all_aliases_below(cells, 3)
