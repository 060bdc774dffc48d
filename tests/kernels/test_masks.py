from __future__ import annotations

import numpy as np

from fastneg.kernels import masks


def test_a_full_table_with_clashing_codes() -> None:
    # all in few places: linear probing has to go around
    codes = np.array([3, -1, 900_000_000_007, 3, 12, 10**15, 3], np.int64)
    for places in (8, 16):
        entries, following = np.full(2 * places, -1, np.int64), np.empty(codes.size, np.int64)
        bits, shift = np.zeros(1, np.uint64), np.uint64(58)
        masks.fill_table(codes, bits, shift, entries, following)
        assert sorted(code for code in entries[::2] if code >= 0) == sorted(set(codes) - {-1})
        indptr, members = np.array([0, 3, 3, 5]), np.array([3, 5, 10**15, 3, 4])
        assert masks.list_lengths(indptr, np.array([0, -1, 2, 0])) == 8
        for start, stop in ((0, 4), (1, 3)):
            mask = np.zeros(4 * codes.size, np.uint8)
            walked = np.array([0, -1, 2, 0])
            masks.walk_lists(
                indptr,
                members,
                walked,
                start,
                stop,
                bits,
                shift,
                entries,
                following,
                mask,
                codes.size,
                1,
            )
            expected = np.zeros((4, codes.size), np.uint8)
            for row in range(start, stop):
                if walked[row] >= 0:
                    own = members[indptr[walked[row]] : indptr[walked[row] + 1]]
                    expected[row] = np.isin(codes, own)
            assert np.array_equal(mask.reshape(4, -1), expected)


def test_a_crowded_table_finds_every_code() -> None:
    generator = np.random.default_rng(2)
    for size in (60, 63):  # of 64 places
        codes = generator.permutation(10_000)[:size]
        entries, following = np.full(128, -1, np.int64), np.empty(size, np.int64)
        bits, shift = np.zeros(1024, np.uint64), np.uint64(48)
        masks.fill_table(codes, bits, shift, entries, following)
        mask = np.zeros(size, np.uint8)
        members = np.arange(10_000)
        for part in (members[::2], members[1::2]):
            masks.walk_lists(
                np.array([0, part.size]),
                part,
                np.array([0]),
                0,
                1,
                bits,
                shift,
                entries,
                following,
                mask,
                size,
                1,
            )
            assert np.array_equal(mask > 0, np.isin(codes, part))
            mask[:] = 0


def test_strides_transpose_the_mask() -> None:
    entries, following = np.full(32, -1, np.int64), np.empty(2, np.int64)
    bits, shift = np.zeros(4, np.uint64), np.uint64(56)
    masks.fill_table(np.array([7, 9]), bits, shift, entries, following)
    mask = np.zeros((2, 3), np.uint8)
    masks.walk_lists(
        np.array([0, 1, 2]),
        np.array([9, 7]),
        np.array([0, 1, 0]),
        0,
        3,
        bits,
        shift,
        entries,
        following,
        mask.reshape(-1),
        1,
        3,
    )
    assert mask.tolist() == [[0, 1, 0], [1, 0, 1]]


def test_cells_one_after_the_other_and_by_row() -> None:
    codes = np.array([9, 7, 9], np.int64)  # of the columns
    entries, following = np.full(32, -1, np.int64), np.empty(3, np.int64)
    bits, shift = np.zeros(4, np.uint64), np.uint64(56)
    masks.fill_table(codes, bits, shift, entries, following)
    indptr, members = np.array([0, 2, 2, 3]), np.array([7, 9, 9])
    walked = np.array([2, -1, 0, 1])
    tables = (bits, shift, entries, following)
    for room in (5, 2):
        own, other = np.full(room, -1), np.full(room, -1)
        assert masks.find_cells(indptr, members, walked, 0, 4, *tables, own, other) == 5
        assert own.tolist() == [0, 0, 2, 2, 2][:room]
        if room == 5:
            assert [sorted(other[:2]), other[2], sorted(other[3:])] == [[0, 2], 1, [0, 2]]
    assert masks.find_cells(indptr, members, walked, 1, 2, *tables, own, other) == 0
    rows, columns = np.array([2, 0, 2]), np.array([1, 2, 0])
    starts, cells = np.zeros(4, np.int64), np.empty(3, np.int64)
    masks.count_cells(rows, starts)
    assert starts.tolist() == [0, 1, 0, 2]
    masks.order_cells(rows, columns, 3, np.array([0, 1, 1]), cells)
    assert cells.tolist() == [2, 7, 6]
