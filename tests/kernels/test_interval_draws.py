"""What is there at a time, in which order, and draws by every word, as the slow twin has them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg.checks import frozen
from fastneg.kernels import interval_draws as draws
from fastneg.kernels import intervals as kernels
from fastneg.samplers.available import AvailableSampler
from tests.naive import available as naive

KEY = 77
NO_SOURCE = np.zeros((0, 0), dtype=np.int8)
SOME_DRAWS = [0, 1, 63, 64, 66]  # draws are made in blocks of 64


def _ranks(sampler: AvailableSampler, times: list[int]) -> tuple[np.ndarray, np.ndarray]:
    started = np.searchsorted(sampler._first_times, times, side="right").astype(np.int64)
    ended = np.searchsorted(sampler._last_times, times, side="left").astype(np.int64)
    return frozen(started), frozen(ended)


def _lists(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    indptr = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    items = np.array([i for ids in lists for i in ids], dtype=np.int64)
    return frozen(indptr), frozen(items), frozen(np.arange(len(lists), dtype=np.int64))


worlds = st.integers(1, 25).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 12), min_size=n, max_size=n),
        st.lists(st.integers(0, 9), min_size=n, max_size=n),
        st.lists(st.integers(1, 50), min_size=n, max_size=n),
        st.lists(st.sets(st.integers(0, n - 1)), min_size=23, max_size=23),
        st.integers(0, 16),
        st.booleans(),
    )
)


@settings(max_examples=60)
@given(worlds)
def test_draws_are_those_of_the_twin(
    world: tuple[list[int], list[int], list[int], list[set[int]], int, bool],
) -> None:
    first, lengths, weights, excluded, attempts, small = world
    last = [a + b for a, b in zip(first, lengths, strict=True)]
    sampler = AvailableSampler(weights, first, last, exponent=1.0)
    if small:  # points of the mass fall on the borders between items
        sampler._masses = np.array(weights, dtype=np.uint64)
        sampler._build(np.array(first), np.array(last))
    masses = sampler._masses.tolist()
    times = list(range(-1, 22))
    started, ended = _ranks(sampler, times)
    lists = _lists([sorted(ids) for ids in excluded])
    rows = frozen(np.arange(23, dtype=np.int64) * 3 + 2**40)
    tries = frozen(np.full(23, attempts, dtype=np.int8))
    mass, count = np.zeros(23, dtype=np.uint64), np.zeros(23, dtype=np.int64)
    kernels.count_excluded(sampler._facts, *lists, started, ended, mass, count)
    items = np.full((23, 67), -7, dtype=np.int64)
    arguments = (
        started, ended, *lists, tries, np.uint64(KEY), rows, 3, NO_SOURCE, 0, items,
    )  # fmt: skip
    left = draws.draw_present(sampler._tree, *arguments)
    assert left == (items == -1).sum()
    draws.finish_present(sampler._tree, sampler._facts, *arguments)
    for b, time in enumerate(times):
        order = naive.in_order(first, last, time)
        gone = [item for item in order if item in excluded[b]]
        assert int(mass[b]) == sum(masses[item] for item in gone)
        assert int(count[b]) == len(gone)
        if not order:
            assert (items[b] == -7).all()  # left alone
            continue
        if len(gone) == len(order):
            assert (items[b] == -1).all()
            continue
        wanted = [
            naive.draw(masses, order, excluded[b], KEY, int(rows[b]), 3 + d, attempts)
            for d in SOME_DRAWS
        ]
        assert items[b, SOME_DRAWS].tolist() == wanted


def test_only_the_cells_of_a_part_are_drawn() -> None:
    sampler = AvailableSampler(np.ones(6), [0, 0, 1, 1, 2, 2], exponent=0.0)
    started, ended = _ranks(sampler, [2] * 4)
    lists = _lists([[0, 1], [2], [], [0, 1, 2, 3, 4]])
    rows = frozen(np.arange(4, dtype=np.int64))
    source = np.array([[0, 3, 0, 3]] * 3 + [[0, 0, 0, 0]], dtype=np.int8)
    for attempts in (0, 16):
        tries = frozen(np.full(4, attempts, dtype=np.int8))
        items = np.full((4, 4), -5, dtype=np.int64)
        arguments = (
            started, ended, *lists, tries, np.uint64(KEY), rows, 0, source, 3, items,
        )  # fmt: skip
        draws.draw_present(sampler._tree, *arguments)
        draws.finish_present(sampler._tree, sampler._facts, *arguments)
        assert (items[source == 0] == -5).all()
        assert (items[source == 3] >= 0).all()
        assert not np.isin(items[0], [0, 1]).any()


def test_log_q_by_hand() -> None:
    sampler = AvailableSampler([1, 2, 3, 4], [0, 1, 2, 3], [5, 1, 5, 5], exponent=1.0)
    started, ended = _ranks(sampler, [1, 2])
    masses = sampler._masses.astype(np.float64)
    allowed = np.log(np.array([masses[:2].sum(), masses[0] + masses[2]]))
    for dtype in (np.float32, np.float64):
        out = np.zeros((2, 4), dtype=dtype)
        items = np.tile(np.arange(4), (2, 1))
        draws.present_log_q(sampler._facts, started, ended, allowed, items, True, out)
        wanted = [[1 / 3, 2 / 3, 0, 0], [1 / 4, 0, 3 / 4, 0]]
        np.testing.assert_allclose(np.exp(out), wanted, rtol=1e-6)
