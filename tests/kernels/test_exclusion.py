"""Sorted lists of excluded ids against Python's sets."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastneg.checks import frozen
from fastneg.kernels import exclusion as kernels

N = 14
IDS = st.sets(st.integers(0, N - 1), max_size=N)


@numba.njit
def _lower_bound(values, low, high, wanted):
    return kernels.lower_bound(values, low, high, wanted)


@numba.njit
def _contains(values, low, high, wanted):
    return kernels.contains(values, low, high, wanted)


@numba.njit
def _skip(values, low, high, rank):
    return kernels.skip_excluded(values, low, high, rank)


def _csr(lists: list[set[int]]) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.cumsum([0, *map(len, lists)])
    members = np.array([i for ids in lists for i in sorted(ids)], dtype=np.int64)
    return frozen(indptr), frozen(members)


@given(st.lists(IDS, min_size=1, max_size=3), st.data())
def test_search(lists: list[set[int]], data: st.DataObject) -> None:
    indptr, values = _csr(lists)
    row = data.draw(st.integers(0, len(lists) - 1))
    low, high = indptr[row], indptr[row + 1]
    for wanted in range(-1, N + 1):
        below = sum(value < wanted for value in lists[row])
        assert _lower_bound(values, low, high, wanted) == low + below
        assert _contains(values, low, high, wanted) == (wanted in lists[row])
    for rank, item in enumerate(sorted(set(range(N)) - lists[row])):
        assert _skip(values, low, high, rank) == item


ROWS = st.lists(st.tuples(st.integers(-1, 2), IDS), min_size=1, max_size=6)
THREE = st.lists(IDS, min_size=3, max_size=3)


def _of(lists: list[set[int]], owner: int) -> set[int]:
    return lists[owner] if owner >= 0 else set()


@given(THREE, ROWS)
def test_merge(lists: list[set[int]], rows: list[tuple[int, set[int]]]) -> None:
    indptr, values = _csr(lists)
    owner = frozen(np.array([o for o, _ in rows]))
    extra_indptr, extra = _csr([ids for _, ids in rows])
    sizes = np.empty(len(rows), dtype=np.int64)
    kernels.merged_sizes(indptr, values, owner, extra_indptr, extra, sizes)
    expected = [sorted(_of(lists, o) | ids) for o, ids in rows]
    assert sizes.tolist() == [len(ids) for ids in expected]
    out_indptr = np.concatenate([[0], np.cumsum(sizes)])
    out = np.full(out_indptr[-1], -1)
    kernels.merge_lists(indptr, values, owner, extra_indptr, extra, out_indptr, out)
    assert out.tolist() == [i for ids in expected for i in ids]


@given(THREE, ROWS)
def test_filter(lists: list[set[int]], rows: list[tuple[int, set[int]]]) -> None:
    indptr, values = _csr(lists)
    masses = frozen((values * 10 + 1).astype(np.uint64))
    owner = frozen(np.array([o for o, _ in rows]))
    row_indptr, excluded = _csr([ids for _, ids in rows])
    sizes = np.empty(len(rows), dtype=np.int64)
    kernels.lists_lengths(indptr, values, owner, row_indptr, excluded, sizes)
    expected = [sorted(_of(lists, o) - ids) for o, ids in rows]
    assert sizes.tolist() == [len(ids) for ids in expected]
    out_indptr = np.concatenate([[0], np.cumsum(sizes)])
    out, out_masses = np.full(out_indptr[-1], -1), np.zeros(out_indptr[-1], dtype=np.uint64)
    kernels.filter_lists(
        indptr, values, masses, owner, row_indptr, excluded, out_indptr, out, out_masses
    )
    assert out.tolist() == [i for ids in expected for i in ids]
    assert out_masses.tolist() == [i * 10 + 1 for ids in expected for i in ids]


@given(THREE, st.lists(st.integers(-1, 2), min_size=1, max_size=5), st.data())
def test_marks_masses_and_containment(
    lists: list[set[int]], owners: list[int], data: st.DataObject
) -> None:
    indptr, values = _csr(lists)
    owner = frozen(np.array(owners))
    items = np.tile(np.arange(N), (len(owners), 1))
    log_q = np.zeros(items.shape)
    kernels.mark_excluded(indptr, values, owner, items, log_q)
    expected = [[i in _of(lists, o) for i in range(N)] for o in owners]
    np.testing.assert_array_equal(np.isneginf(log_q), expected)
    assert ((log_q == 0) | np.isneginf(log_q)).all()

    masses = frozen(np.arange(N, dtype=np.uint64) // np.uint64(3))
    total, support = np.zeros(3, dtype=np.uint64), np.zeros(3, dtype=np.int64)
    kernels.excluded_masses(indptr, values, masses, total, support)
    assert total.tolist() == [sum(i // 3 for i in ids) for ids in lists]
    assert support.tolist() == [sum(i >= 3 for i in ids) for ids in lists]

    codes = data.draw(st.lists(st.integers(0, N - 1), min_size=len(owners), max_size=len(owners)))
    inside = all(code in _of(lists, o) for code, o in zip(codes, owners, strict=True))
    assert kernels.all_contained(indptr, values, owner, np.array(codes)) == inside


@numba.njit
def _allowed(excluded, low, high, num_items):
    return kernels.allowed_ids(excluded, low, high, num_items)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("size", [1, 9, 10, 300])
def test_allowed_ids_are_the_others(share: float, size: int) -> None:
    rng = np.random.default_rng(size)
    known = np.sort(rng.choice(size, round(share * size), replace=False)).astype(np.int64)
    excluded = np.concatenate([[3], known, [0]])
    got = _allowed(excluded, 1, 1 + len(known), size)
    assert got.tolist() == sorted(set(range(size)) - set(known.tolist()))
