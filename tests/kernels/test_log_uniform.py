"""Log-uniform draws: bins that cover every id once, logarithms to the last bits, a slow twin."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg.checks import frozen
from fastneg.kernels.log_uniform import (
    allowed_shares,
    draw_log_uniform,
    finish_log_uniform,
    log_uniform_log_q,
)
from fastneg.samplers.log_uniform import LogUniformBins
from tests.naive import samplers as naive
from tests.naive.statistics import assert_follows

SIZES = [1, 2, 3, 44, 45, 46, 47, 48, 50, 99, 100, 1000, 12_345, 2**20, 2**40 - 5, 2**40]
EVERYWHERE = np.zeros((0, 0), dtype=np.int8)


def _law(bins: LogUniformBins) -> np.ndarray:
    """float64 [N]: what a draw gives, from the table's cells and the coins, id by id."""
    masses = np.array(naive.cell_masses(bins.cells.tolist()), dtype=np.float64)
    law = np.empty(bins.num_items)
    for b in range(len(masses)):
        first, end = int(bins.firsts[b]), int(bins.firsts[b + 1])
        heads = np.log1p(1 / np.arange(first + 1.0, end + 1.0)) / math.log1p(1 / (first + 1))
        law[first:end] = masses[b] / (end - first) * heads
    return law / math.fsum(law)


@pytest.mark.parametrize("num_items", SIZES)
def test_bins(num_items: int) -> None:
    bins = LogUniformBins(num_items)
    widths = np.diff(bins.firsts)
    assert bins.firsts[0] == 0
    assert bins.firsts[-1] == num_items
    assert (widths > 0).all()
    lows, highs = bins.firsts[:-1] + 1.0, bins.firsts[1:] + 0.0  # ranks
    assert (np.log1p(1 / highs) >= 0.95 * np.log1p(1 / lows)).all()
    np.testing.assert_allclose(bins.peaks, np.log1p(1 / lows), rtol=3e-15)
    asked = np.log1p(widths / lows) / math.log(num_items + 1)
    np.testing.assert_allclose(bins.shares, asked, rtol=2e-9)
    assert abs(math.fsum(bins.shares) - 1) < 1e-14
    smallest_coin = (np.log1p(1 / highs) / np.log1p(1 / lows)).min()
    assert 0.95 < int(bins.certain) / 2**64 < smallest_coin


@pytest.mark.parametrize("num_items", [1, 2, 30, 46, 60, 1000, 12_345])
def test_what_is_drawn_is_what_is_announced(num_items: int) -> None:
    bins = LogUniformBins(num_items)
    law = _law(bins)
    out = np.empty((1, num_items))
    log_uniform_log_q(
        bins.lookup, bins.firsts, bins.bases, bins.inverses, np.arange(num_items)[None],
        np.zeros(1), out,
    )  # fmt: skip
    np.testing.assert_allclose(out[0], np.log(law), rtol=1e-14, atol=1e-14)
    asked = np.log1p(1 / np.arange(1.0, num_items + 1)) / math.log(num_items + 1)
    np.testing.assert_allclose(law, asked, rtol=2e-9)


@pytest.mark.parametrize("num_items", SIZES)
def test_log_q_at_every_boundary(num_items: int) -> None:
    bins = LogUniformBins(num_items)
    near = np.concatenate([bins.firsts + shift for shift in (-2, -1, 0, 1)])
    near = np.unique(np.clip(near, 0, num_items - 1))
    for items in (near, np.linspace(0, num_items - 1, 2000).astype(np.int64)):
        out = np.empty((1, len(items)))
        log_uniform_log_q(
            bins.lookup, bins.firsts, bins.bases, bins.inverses, items[None],
            np.array([-0.5]), out,
        )  # fmt: skip
        mine = np.searchsorted(bins.firsts, items, side="right") - 1
        wanted = np.log(bins.gains[mine]) + np.log(np.log1p(1 / (items + 1.0))) + 0.5
        np.testing.assert_allclose(out[0], np.minimum(wanted, 0), rtol=1e-14, atol=1e-14)


def _slow_draw(
    bins: LogUniformBins, excluded: set[int], key: int, place_key: int, row: int, draw: int
) -> int:
    """By the definition: a bin, a place in it, a coin; at most sixteen times."""
    for attempt in range(16):
        b = naive.pick(bins.cells.tolist(), naive.word(key, row, draw, attempt))
        first, end = int(bins.firsts[b]), int(bins.firsts[b + 1])
        product = naive.word(place_key, row, draw, attempt) * (end - first)
        item, coin = first + (product >> 64), (product & naive.WORD) / 2**64
        kept = coin * math.log1p(1 / (first + 1)) < math.log1p(1 / (item + 1))
        if kept and item not in excluded:
            return item
    return -1


@pytest.mark.parametrize("num_items", [2, 60, 3000, 2**40])
def test_draws_are_the_slow_twins(num_items: int) -> None:
    bins = LogUniformBins(num_items)
    lists = [[], [0], list(range(1, min(num_items, 50), 2)), list(range(min(num_items, 300) - 1))]
    indptr = frozen(np.cumsum([0, *map(len, lists)]))
    excluded = frozen(np.array([i for part in lists for i in part], dtype=np.int64))
    owner = frozen(np.array([0, 1, 2, 3, -1, 2]))
    rows = frozen(np.array([3, 2**41, 17, 5, 0, 8]))
    tries = frozen(np.full(6, 16, np.int8))
    items = np.full((6, 40), -9)
    source = np.zeros((6, 40), dtype=np.int8)
    source[:, ::4] = 7
    keys = np.uint64(12345), np.uint64(2**63 + 9)
    for certain in (bins.certain, np.uint64(0)):  # speed only
        for tags in (source, EVERYWHERE):
            unresolved = draw_log_uniform(
                bins.cells, bins.firsts, bins.peaks, certain, indptr, excluded, owner, tries,
                *keys, rows, 2, tags, 0, items,
            )  # fmt: skip
            left = 0
            for b in range(6):
                gone = set(lists[owner[b]]) if owner[b] >= 0 else set()
                for d in range(40):
                    if tags.size and d % 4 == 0:
                        assert items[b, d] == -9
                        continue
                    wanted = _slow_draw(bins, gone, *map(int, keys), int(rows[b]), 2 + d)
                    assert items[b, d] == wanted
                    left += wanted < 0
            assert unresolved == left
            items[:] = -9


def test_finished_draws_follow_the_law_of_what_is_left() -> None:
    num_items = 400
    bins, law = LogUniformBins(num_items), _law(LogUniformBins(num_items))
    gone = np.unique(np.concatenate([np.arange(0, 300), np.arange(302, 399, 3), [399]]))
    items = np.full((1, 60_000), -1)
    finish_log_uniform(
        bins.masses, bins.firsts, bins.peaks, frozen(np.array([0, len(gone)])), frozen(gone),
        frozen(np.zeros(1, np.int64)), frozen(np.zeros(1, np.int8)), np.uint64(5), np.uint64(6),
        frozen(np.zeros(1, np.int64)), 0, EVERYWHERE, 0, items,
    )  # fmt: skip
    law[gone] = 0
    assert_follows(items, law / law.sum())


@settings(max_examples=50)
@given(st.data())
def test_allowed_shares(data: st.DataObject) -> None:
    num_items = data.draw(st.sampled_from([1, 2, 50, 400]))
    bins = LogUniformBins(num_items)
    law = [Fraction(float(x)) for x in _law(bins)]
    gone = sorted(data.draw(st.sets(st.integers(0, num_items - 1))))
    if data.draw(st.booleans()):  # nearly everything
        gone = sorted(set(range(num_items)) - set(gone[:3]))
    out = np.empty(2)
    allowed_shares(
        frozen(np.array([0, 0, len(gone)])), frozen(np.array(gone, dtype=np.int64)), bins.firsts,
        bins.peaks, bins.gains, bins.shares, out,
    )  # fmt: skip
    left = float(1 - sum(law[i] for i in gone) / sum(law))
    assert out[0] == 1.0
    if len(gone) == num_items:
        assert out[1] == 0.0
    else:
        np.testing.assert_allclose(out[1], left, rtol=1e-10)
