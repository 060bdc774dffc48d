"""Kernels on a team of threads: each row once, by whoever comes first."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from fastneg.kernels.jit import INTERPRETED, PLAIN, kernel  # noqa: E402
from fastneg.kernels.team import team_kernel  # noqa: E402
from fastneg.training import team  # noqa: E402

ENTRY = team._entry()
pytestmark = [
    pytest.mark.skipif(not ENTRY, reason="torch has no OpenMP runtime of GNU's interface"),
    pytest.mark.skipif(INTERPRETED or PLAIN, reason="there is no team without Numba's internals"),
]


@kernel
def mark(seen, calls, add, flag, start, stop):
    calls[start] = stop
    for row in range(start, stop):
        seen[row] += add if flag else 0


@kernel
def need(cells, sizes, out, start, stop):
    for row in range(start, stop):
        own = np.empty(sizes[row], np.uint8)
        out[row] = own.size + cells[row]


@kernel
def need_less(cells, sizes, out, start, stop):
    for row in range(start, stop):
        out[row] = cells[row] - sizes[row]


mark_on_team, need_on_team = team_kernel(mark), team_kernel(need)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 20), st.integers(0, 40), st.integers(0, 60))
def test_each_row_once_in_chunks_from_the_first(threads, chunk, start, rows):
    stop = start + rows
    seen, calls = np.zeros(120, np.int32), np.zeros(120, np.int64)
    assert mark_on_team(ENTRY, threads, chunk, (seen, calls, np.int32(3), True), start, stop)
    assert (np.flatnonzero(seen) == np.arange(start, stop)).all()
    assert (seen[start:stop] == 3).all()
    expected = np.zeros(120, np.int64)
    for first in range(start, stop, chunk):
        expected[first] = min(first + chunk, stop)
    assert np.array_equal(calls, expected)


def test_arguments_of_every_kind_arrive():
    seen, calls = np.zeros(9, np.int32), np.zeros(9, np.int64)
    assert mark_on_team(ENTRY, 2, 2, (seen, calls, np.int32(3), False), 0, 9)
    assert not seen.any()


def test_memory_that_runs_out_is_told_and_the_other_chunks_are_done():
    sizes = np.ones(8, np.int64)
    sizes[3] = 1 << 60
    cells, out = np.arange(8), np.zeros(8, np.int64)
    assert not need_on_team(ENTRY, 2, 1, (cells, sizes, out), 0, 8)
    assert out.tolist() == [1, 2, 3, 0, 5, 6, 7, 8]
    sizes[3] = 1
    assert need_on_team(ENTRY, 2, 1, (cells, sizes, out), 0, 8)
    assert out.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_kernels_of_the_same_arguments_are_not_mistaken_for_each_other():
    cells, sizes = np.arange(8), np.ones(8, np.int64)
    for work, sign in ((need, 1), (need_less, -1)) * 2:
        out = np.zeros(8, np.int64)
        assert team_kernel(work)(ENTRY, 2, 3, (cells, sizes, out), 0, 8)
        assert out.tolist() == (cells + sign * sizes).tolist()


def test_arrays_are_held_no_longer_than_the_call():
    cells, sizes, out = np.arange(8), np.ones(8, np.int64), np.zeros(8, np.int64)
    before = [sys.getrefcount(one) for one in (cells, sizes, out)]
    for _ in range(20):
        need_on_team(ENTRY, 2, 1, (cells, sizes, out), 0, 8)
    assert [sys.getrefcount(one) for one in (cells, sizes, out)] == before
