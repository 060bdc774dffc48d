from __future__ import annotations

import numpy as np

from fastneg.kernels import masks


def marked(codes, num_codes):
    bits, slots = np.zeros(num_codes // 64 + 1, np.uint64), np.full(num_codes, -1, np.int32)
    following = np.empty(codes.size, np.int32)
    masks.mark_codes(codes, bits, slots, following)
    return bits, slots, following


def test_marks_and_the_walk_over_repeated_codes() -> None:
    codes = np.array([3, -1, 900, 3, 12, 1_000, 3], np.int64)
    bits, slots, following = marked(codes, 1_001)
    present = np.unpackbits(bits.view(np.uint8), bitorder="little")
    assert np.flatnonzero(present).tolist() == [3, 12, 900, 1_000]
    assert [slots[code] for code in (3, 12, 900, 1_000)] == [6, 4, 2, 5]
    assert following.tolist() == [-1, -1, -1, 0, -1, -1, 3]
    indptr, members = np.array([0, 3, 3, 5]), np.array([3, 5, 1_000, 3, 4])
    users, others = np.array([0, -1, 2, 0]), np.array([1, 1])
    assert masks.list_lengths(indptr, users) == 8
    for most in (4, 100):
        guessed = masks.guess_lengths(indptr, users, indptr, others, most)
        assert guessed == (8, masks.list_lengths(indptr, others))
    assert masks.guess_lengths(indptr, users, indptr, others[:0], 2) == (2 * (3 + 2), 0)
    for start, stop in ((0, 4), (1, 3)):
        mask = np.zeros(4 * codes.size, np.uint8)
        walked = np.array([0, -1, 2, 0])
        masks.walk_lists(
            indptr, members, walked, start, stop, bits, slots, following, mask, codes.size, 1
        )
        expected = np.zeros((4, codes.size), np.uint8)
        for row in range(start, stop):
            if walked[row] >= 0:
                own = members[indptr[walked[row]] : indptr[walked[row] + 1]]
                expected[row] = np.isin(codes, own)
        assert np.array_equal(mask.reshape(4, -1), expected)
    masks.unmark_codes(codes, bits, slots)
    assert not bits.any()
    assert (slots == -1).all()


def test_lists_longer_than_a_block() -> None:
    generator = np.random.default_rng(2)
    codes = generator.permutation(10_000)[:700]
    tables = marked(codes, 10_000)
    members = np.arange(10_000)
    for part in (members, members[::2], members[1::2], members[:512], members[:513]):
        mask = np.zeros(codes.size, np.uint8)
        indptr, walked = np.array([0, part.size]), np.array([0])
        masks.walk_lists(indptr, part, walked, 0, 1, *tables, mask, codes.size, 1)
        assert np.array_equal(mask > 0, np.isin(codes, part))
        own, other = np.empty(700, np.int64), np.empty(700, np.int64)
        found = masks.find_cells(indptr, part, walked, 0, 1, *tables, own, other)
        assert np.array_equal(np.sort(other[:found]), np.flatnonzero(np.isin(codes, part)))


def test_strides_transpose_the_mask() -> None:
    tables = marked(np.array([7, 9]), 10)
    mask = np.zeros((2, 3), np.uint8)
    lists = np.array([0, 1, 2]), np.array([9, 7])
    masks.walk_lists(*lists, np.array([0, 1, 0]), 0, 3, *tables, mask.reshape(-1), 1, 3)
    assert mask.tolist() == [[0, 1, 0], [1, 0, 1]]


def test_cells_one_after_the_other_and_by_row() -> None:
    tables = marked(np.array([9, 7, 9], np.int64), 10)  # of the columns
    indptr, members = np.array([0, 2, 2, 3]), np.array([7, 9, 9])
    walked = np.array([2, -1, 0, 1])
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


def test_cells_at_once_from_either_side_and_with_too_little_room() -> None:
    generator = np.random.default_rng(4)
    dense = generator.random((40, 60)) < 0.2
    rows, columns = generator.integers(-1, 40, 30), generator.integers(-1, 60, 50)
    expected = dense[rows][:, columns] & (rows >= 0)[:, None] & (columns >= 0)
    for transposed in (False, True):
        table = dense.T if transposed else dense
        indptr = np.concatenate([[0], table.sum(1).cumsum()])
        walked, looked_up = (columns, rows) if transposed else (rows, columns)
        bits, slots, following = marked(looked_up[:0], table.shape[1])
        following = np.empty(looked_up.size, np.int32)
        for dtype in (np.int32, np.int64):
            members = np.nonzero(table)[1].astype(dtype)
            for room in (expected.sum(), *range(1, expected.sum(), 5)):
                own, other = (np.full(room if transposed else 0, -1) for _ in range(2))
                guarded = np.full(expected.sum() + 1, -7)
                cells = guarded[:room]
                starts = np.full(rows.size + 1, -1)
                found = masks.cells_at_once(
                    indptr, members, walked, looked_up, transposed,
                    bits, slots, following, own, other, cells, starts,
                )  # fmt: skip
                assert found == expected.sum()
                assert (guarded[room:] == -7).all()
                assert not bits.any()
                assert (slots == -1).all()
                if room == found:
                    assert np.array_equal(np.diff(starts), expected.sum(1))
                    assert np.array_equal(np.sort(cells), np.flatnonzero(expected))
                    assert (np.diff(cells // columns.size) >= 0).all()  # by row
