from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastneg.kernels import csr

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=40)


@given(pairs)
def test_sorting_and_numbering_distinct_pairs(rows: list[tuple[int, int]]) -> None:
    majors = np.array([major for major, _ in rows], np.int64)
    minors = np.array([minor for _, minor in rows], np.int64)
    ordered = sorted(range(len(rows)), key=lambda row: rows[row][0])  # stable
    indptr = np.empty(6, np.int64)
    csr.count_starts(majors, indptr)
    assert indptr.tolist() == [sum(major < code for major, _ in rows) for code in range(6)]
    out_minors, out_rows = np.empty_like(minors), np.empty_like(minors)
    numbers = np.arange(len(rows))
    csr.scatter_rows(majors, minors, numbers, indptr.copy(), out_minors, out_rows)
    assert out_rows.tolist() == ordered
    assert out_minors.tolist() == [rows[row][1] for row in ordered]
    values = np.empty_like(minors)
    csr.scatter_values(majors, minors, indptr.copy(), values)
    assert values.tolist() == out_minors.tolist()

    distinct = sorted(set(rows))
    by_pair = sorted(range(len(rows)), key=lambda row: rows[row])
    for size in (0, len(rows)):
        group, distinct_indptr = np.empty(size, np.int64), np.empty(6, np.int64)
        merged, counts = np.empty_like(minors), np.empty(len(rows), np.float32)
        count = csr.merge_equal(indptr, minors[by_pair], merged, counts, distinct_indptr, group)
        assert merged[:count].tolist() == [minor for _, minor in distinct]
        assert counts[:count].tolist() == [rows.count(pair) for pair in distinct]
    assert group.tolist() == [distinct.index(rows[row]) for row in by_pair]
    assert distinct_indptr.tolist() == [sum(m < code for m, _ in distinct) for code in range(6)]
    assert csr.is_sorted_distinct(majors, minors) == (rows == distinct)


@given(pairs, st.tuples(st.integers(0, 4), st.integers(0, 6)))
def test_find_pairs(rows: list[tuple[int, int]], wanted: tuple[int, int]) -> None:
    distinct = sorted(set(rows))
    indptr = np.array([sum(m < code for m, _ in distinct) for code in range(6)], np.int64)
    members = np.array([minor for _, minor in distinct], np.int64)
    out = np.full(3, -7, np.int64)
    major, minor = np.full(3, wanted[0]), np.full(3, wanted[1])
    csr.find_pairs(indptr, members, major, minor, 1, 3, out)
    place = distinct.index(wanted) if wanted in distinct else -1
    assert out.tolist() == [-7, place, place]
    assert csr.lists_are_ascending(indptr, members, 0, 7)
    if len(distinct) > 1 and distinct[0][0] == distinct[1][0]:
        members[1] = members[0]
        assert not csr.lists_are_ascending(indptr, members, 0, 7)
    if distinct:
        assert not csr.lists_are_ascending(indptr, members, 0, int(members.max()))


@given(pairs, st.data())
def test_gathered_pairs(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    table = np.array(rows, np.int64).reshape(-1, 2)
    places = st.lists(st.integers(0, max(0, len(rows) - 1)), max_size=50 if rows else 0)
    wanted = np.array(data.draw(places), np.int64)
    found = np.full((2, len(wanted) + 1), -7, np.int64)
    csr.gather_pairs(table.reshape(-1), wanted, found[0, :-1], found[1, :-1])
    assert np.array_equal(found[:, :-1], table[wanted].T)
    assert found[:, -1].tolist() == [-7, -7]


def test_times_of_places() -> None:
    places, times = np.array([1, -1, 0, 1, 1]), np.array([5, 0, 2, 9, 9])
    first = np.zeros(2, np.int64)
    csr.first_times(places, times, np.zeros(2, np.bool_), first)
    assert first.tolist() == [2, 5]
    last = np.full(2, -1)
    csr.last_rows(places, times, last)
    assert last.tolist() == [2, 4]
