"""Draws from alias tables in integers."""

from __future__ import annotations

import numpy as np

from fastneg.kernels import alias
from tests.naive import samplers as naive
from tests.naive.statistics import LEVEL, assert_follows, chi_square
from tests.naive.tables import CELL, masses_of, table_of


def _draws(cells: np.ndarray, count: int, *, row: int = 3, first: int = 0) -> np.ndarray:
    out = np.empty(count, dtype=np.int64)
    alias.draw_plain(cells, np.uint64(77), row, first, out)
    return out


def test_draws_are_the_words_and_the_table() -> None:
    masses = masses_of([5.0, 0.0, 1.0, 1e-5, 3.0, 3.0, 2.0])
    cells = table_of(masses)
    expected = [naive.pick(cells.tolist(), naive.word(77, 3, draw)) for draw in range(300)]
    assert _draws(cells, 300).tolist() == expected
    assert _draws(cells, 100, first=200).tolist() == expected[200:]


def test_draws_follow_the_masses_and_a_broken_table_does_not() -> None:
    masses = masses_of([5.0, 0.0, 1.0, 0.1, 3.0, 3.0, 2.0])
    q = masses.astype(np.float64) / (len(masses) * CELL)
    cells = table_of(masses)
    assert_follows(_draws(cells, 100_000), q)
    plain = np.arange(len(masses), dtype=np.uint64) | np.uint64(0xFFFFFFFF << 32)
    lost = np.where(np.arange(len(masses)) == 3, plain, cells)  # one cell lost its alias
    assert chi_square(_draws(lost, 100_000), q) < LEVEL


def test_entries_carry_the_logarithms_of_both() -> None:
    masses = masses_of([5.0, 0.0, 1.0, 1e-5, 3.0, 3.0, 2.0])
    cells = table_of(masses)
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
    cells = table_of(masses_of([5.0, 0.0, 1.0]))
    assert alias.all_aliases_below(cells, 3)
    cells[1] |= np.uint64(3)
    assert not alias.all_aliases_below(cells, 3)
