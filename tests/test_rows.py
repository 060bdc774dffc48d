from __future__ import annotations

import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastneg import positives, threads
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.positives import CodeMarks, cells_at_once, find_positives, mark_positives
from fastneg.vocabulary import Vocabulary
from tests.naive import interactions as naive

pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), min_size=1, max_size=80)


def make(rows: list[tuple[int, int]]) -> tuple[Interactions, list[int], list[int]]:
    users, items = [user for user, _ in rows], [item for _, item in rows]
    return Interactions.from_codes(users, items, num_users=10, num_items=13), users, items


@given(pairs, st.lists(st.integers(-1, 9), max_size=20), st.lists(st.integers(0, 12), max_size=20))
def test_mask_equals_the_naive_twin(
    rows: list[tuple[int, int]], users: list[int], items: list[int]
) -> None:
    made, all_users, all_items = make(rows)
    expected = naive.mask(naive.positives(all_users, all_items), users, items)
    mask = made.positive_mask(torch.tensor(users, dtype=torch.int64), items)
    assert mask.dtype == torch.bool
    assert mask.shape == (len(users), len(items))
    assert mask.tolist() == expected
    flat, starts = made.positive_cells(torch.tensor(users, dtype=torch.int64), items)
    by_row = [sorted((row * len(items) + np.flatnonzero(cells)).tolist())
              for row, cells in enumerate(expected)]  # fmt: skip
    pieces = zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    assert [sorted(flat[a:b].tolist()) for a, b in pieces] == by_row
    assert len(flat) == mask.sum()
    # which side is walked decides the speed alone
    for columns in (False, True):
        cells = np.zeros((len(users), len(items)), np.uint8)
        if not cells.size:
            continue
        by_item = (made.item_indptr, made.item_users)
        lists = by_item if columns else (made.positive_indptr, made.positive_items)
        walked, looked_up = np.array(users), np.array(items)
        if columns:
            walked, looked_up = looked_up, walked
        marks = CodeMarks(10 if columns else 13)
        mark_positives(lists, walked, looked_up, marks, cells, columns=columns)
        assert (cells > 0).tolist() == expected
        for find in (find_positives, cells_at_once):
            found, bounds = find(lists, walked, looked_up, marks, columns=columns)
            pieces = itertools.pairwise(bounds.tolist())
            assert [sorted(found[a:b].tolist()) for a, b in pieces] == by_row


@pytest.mark.parametrize("num_threads", [1, 2, 3, 7])
def test_masks_of_long_lists_at_any_number_of_threads(
    num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positives, "_FIND", 1_000)
    generator = np.random.default_rng(1)
    users, items = generator.integers(0, 70, 90_000), generator.integers(0, 5_000, 90_000)
    made = Interactions.from_codes(users, items, num_users=70, num_items=5_000)
    dense = np.zeros((71, 5_000), bool)
    dense[users, items] = True
    rows, columns = generator.integers(-1, 70, 301), generator.integers(0, 5_000, 1_003)
    every = generator.integers(0, 5_000, 20_000)
    by_rows = np.zeros((rows.size, columns.size), np.uint8)
    by_columns = np.zeros_like(by_rows)
    try:
        threads.set_num_threads(num_threads)
        mask = made.positive_mask(rows, columns)
        few = made.positive_mask(rows[:2], columns)
        flat, starts = made.positive_cells(rows, columns)  # more than there is room for at first
        by_item, by_user = made._transposed, (made.positive_indptr, made.positive_items)
        marks = CodeMarks(70)
        other, _ = find_positives(by_item, columns, rows, marks, columns=True)
        pieces, _ = find_positives(by_user, rows, columns, CodeMarks(5_000))
        at_once, bounds = cells_at_once(by_user, rows, columns, CodeMarks(5_000))
        from_columns, others = cells_at_once(by_item, columns, rows, marks, columns=True)
        monkeypatch.setattr("fastneg.rows._ONE_CALL", 1)
        long, _ = made.positive_cells(rows, columns)  # too long for one call, by items
        wide, _ = made.positive_cells(rows, every)  # by users
        mark_positives(by_user, rows, columns, CodeMarks(5_000), by_rows)
        mark_positives(by_item, columns, rows, marks, by_columns, columns=True)
    finally:
        threads.set_num_threads(None)
    expected = dense[rows][:, columns]
    for found in (flat.numpy(), pieces, long.numpy(), at_once):
        assert np.array_equal(np.sort(found), np.flatnonzero(expected))
    assert np.array_equal(np.sort(wide), np.flatnonzero(dense[rows][:, every]))
    for found in (other, from_columns):  # columns ascend, whatever the threads
        assert np.array_equal(found, np.flatnonzero(expected))
    for ends in (starts.numpy(), bounds, others):
        assert np.array_equal(np.diff(ends), expected.sum(1))
    assert np.array_equal(mask.numpy(), expected)
    assert np.array_equal(few.numpy(), expected[:2])
    assert np.array_equal(by_rows, expected)
    assert np.array_equal(by_columns, expected)


def test_marks_are_clean_again_and_one_for_each_caller_at_once() -> None:
    marks, codes = CodeMarks(200), np.array([3, 199, -1, 3, 64])
    with marks.of(codes) as (bits, slots, following):
        assert following.tolist() == [-1, -1, -1, 0, -1]
        assert np.flatnonzero(slots >= 0).tolist() == [3, 64, 199]
        assert [slots[code] for code in (3, 64, 199)] == [3, 4, 1]
        assert bits.tolist() == [1 << 3, 1, 0, 1 << 7]
        with marks.of(np.array([5])) as (others, _, _):  # another caller, before the first is done
            assert others is not bits
            assert others.tolist() == [1 << 5, 0, 0, 0]
    assert not bits.any()
    assert (slots == -1).all()
    with pytest.raises(RuntimeError), marks.of(codes):
        raise RuntimeError
    for _ in range(3):  # what a failure left marked is not used again
        with marks.of(np.array([7])) as (bits, slots, _):
            assert np.flatnonzero(slots >= 0).tolist() == [7]


def test_a_copy_makes_its_marks_anew() -> None:
    made, _, _ = make([(0, 1), (2, 5), (0, 3)])
    made.positive_cells(np.array([0, 2]), np.array([3, 5, 5]))
    copy = pickle.loads(pickle.dumps(made))  # noqa: S301
    made_anew = {"_item_marks", "_user_marks", "_narrow_items", "_narrow_users", "_transposed"}
    assert not made_anew & set(vars(copy))
    flat, starts = copy.positive_cells(np.array([0, 2]), np.array([3, 5, 5]))
    assert (sorted(flat.tolist()), starts.tolist()) == ([0, 4, 5], [0, 1, 3])


def test_two_python_threads_ask_for_masks_at_once() -> None:
    generator = np.random.default_rng(3)
    users, items = generator.integers(0, 300, 20_000), generator.integers(0, 900, 20_000)
    made = Interactions.from_codes(users, items, num_users=300, num_items=900)
    asked = [(generator.integers(0, 300, 64), generator.integers(0, 900, 128)) for _ in range(40)]
    dense = np.zeros((300, 900), bool)
    dense[users, items] = True
    with ThreadPoolExecutor(4) as pool:
        masks = list(pool.map(lambda one: made.positive_mask(*one), asked))
        cells = list(pool.map(lambda one: made.positive_cells(*one)[0], asked))
    for (rows, columns), mask, flat in zip(asked, masks, cells, strict=True):
        expected = dense[rows][:, columns]
        assert np.array_equal(mask.numpy(), expected)
        assert np.array_equal(np.sort(flat.numpy()), np.flatnonzero(expected))


def test_codes_out_of_range_are_refused_before_any_kernel() -> None:
    made, _, _ = make([(0, 0)])
    with pytest.raises(FastnegError, match=r"mask: users\[1\] = 10 is not a code in -1..9"):
        made.positive_mask([0, 10], [0])
    with pytest.raises(FastnegError, match=r"mask: items\[0\] = -1 is not a code in 0..12"):
        made.positive_mask([0], [-1])
    with pytest.raises(FastnegError, match=r"cells: users\[0\] = -2 is not a code in -1..9"):
        made.positive_cells([-2], [0])


def test_what_is_derived_is_derived_once() -> None:
    made, _, _ = make([(0, 0), (3, 4), (0, 0)])
    assert made.positive_items is made.positive_items
    assert made.item_users is made.item_users
    assert made.user_positive_counts.sum() == made.num_positives == 2
    assert made.num_positive_rows == 3
    assert made.item_event_counts.tolist()[:5] == [2, 0, 0, 0, 1]
    assert made.positive_weights.tolist() == [2, 1]
    assert made.positive_times is None
    assert repr(made) == "Interactions(10 users, 13 items, 3 rows)"


def test_saved_positives_are_looked_at_before_they_are_taken() -> None:
    made, _, _ = make([(0, 0), (0, 1), (3, 4)])
    indptr, items, weights = made.positive_indptr, made.positive_items, made.positive_weights
    assert made.adopt(indptr, items, weights, None) is None
    assert made.adopt(None, items, weights, None) == ("positives", "they are missing")
    for bad in (indptr[:-1], indptr.astype(np.int32), indptr + 1, indptr[::-1].copy()):
        assert made.adopt(bad, items, weights, None) is not None
    for bad in (items[:-1], items[::-1].copy(), items + 100, items - 1):
        assert made.adopt(indptr, bad, weights, None) is not None
    assert made.adopt(indptr, items, weights[:-1], None) is not None
    assert made.adopt(indptr, items, weights, weights) is not None


@pytest.mark.parametrize(("users", "items", "message"), [
    ([0, 1], [0, 1], "row_users: a list, not an array"),
    (np.array([0, 10**9]), np.array([0, 1]), "row_users: codes beyond 0..1"),
    (np.array([0, -1]), np.array([0, 1]), "row_users: codes beyond 0..1"),
    (np.array([0, 1]), np.array([0, 2**62]), "row_items: codes beyond 0..2"),
    (np.array([0, 1]), np.array([0, 1, 2]), r"row_items: int64, shape \(3,\)"),
    (np.array([0, 1], np.int32), np.array([0, 1]), r"row_users: int32, shape \(2,\)"),
    (np.array([[0, 1]]), np.array([0, 1]), r"row_users: int64, shape \(1, 2\)"),
])  # fmt: skip
def test_codes_that_reach_no_kernel(users: Any, items: Any, message: str) -> None:
    with pytest.raises(FastnegError, match=f"Interactions: {message}"):
        Interactions(Vocabulary(2), Vocabulary(3), users, items)
