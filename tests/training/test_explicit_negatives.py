"""Explicit negatives: rows of weight 0, lists by user, what training draws of them."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.data.events import read_events, read_shown
from fastneg.data.splits import hold_out_validation
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.training.explicit_negatives import explicit_lists, with_explicit_negatives
from fastneg.training.negatives import Objective
from fastneg.training.settings import Settings


def interactions(times: bool = False) -> Interactions:
    return Interactions.from_pairs(
        ["a", "a", "b", "c", "b"],
        [1, 2, 1, 3, 4],
        times=[5, 6, 7, 8, 9] if times else None,
    )


def shown(pairs: list[tuple[str, int]], first: Interactions) -> Interactions:
    users, items = zip(*pairs, strict=True)
    return Interactions.from_pairs(users, items, user_ids=first.user_ids, item_ids=first.item_ids)


@pytest.mark.parametrize("times", [False, True])
def test_they_are_rows_of_weight_0_by_user(times):
    first = interactions(times)
    pairs = [("b", 2), ("a", 4), ("b", 3), ("a", 1)]
    train = with_explicit_negatives(first, shown(pairs, first))
    assert train.num_rows == 9
    np.testing.assert_array_equal(train.positive_items, first.positive_items)
    np.testing.assert_array_equal(train.item_user_counts, first.item_user_counts)
    np.testing.assert_array_equal(train.positive_rows, first.positive_rows)
    indptr, items = explicit_lists(train)
    lists = {
        user: train.decode_items(items[indptr[k] : indptr[k + 1]]).tolist()
        for k, user in enumerate(train.user_ids)
    }
    assert lists == {"a": [4, 1], "b": [2, 3], "c": []}


def test_unknown_users_and_items_are_left_out_and_counted():
    first = interactions()
    pairs = [("b", 2), ("zoe", 2), ("a", 99)]
    with pytest.warns(UserWarning, match="2 of 3 negatives are left out: train does not know"):
        train = with_explicit_negatives(first, shown(pairs, first))
    assert (train.num_rows, train.num_users, train.num_items) == (6, 3, 4)
    with pytest.raises(FastnegError, match="none of the 1 negatives is of a user and an item"):
        with_explicit_negatives(first, shown([("zoe", 2)], first))
    with pytest.raises(FastnegError, match="'explicit' draws from rows with weight 0 or less, and"):
        explicit_lists(first)


def test_rows_without_a_user_are_found_by_event_or_left_out_and_said():
    rows = {"user": ["a", None, "b"], "item": [1, 2, 3], "hour": ["x", "y", "x"]}
    train = read_events(rows, context=["hour"])
    negatives = read_shown({"user": ["a", None, "zoe"], "item": [2, 3, 1]}, like=train)
    assert negatives.num_known_users == train.num_users + 1  # zoe; then the row without a user
    with pytest.warns(UserWarning, match="2 of 3 negatives .* 1 have no user, and the sources"):
        found = with_explicit_negatives(train, negatives)
    assert (found.num_rows, found.num_users) == (4, train.num_users)
    assert found.row_weights.tolist() == [1, 1, 1, 0]
    with pytest.warns(UserWarning, match="1 of 2 negatives are left out: .* the item$"):
        assert with_explicit_negatives(train, negatives, by_event=True).num_rows == 4
    nobody = read_shown({"item": [2, 3]}, like=train)
    assert with_explicit_negatives(train, nobody, by_event=True) is train
    with pytest.raises(FastnegError, match=r"none of the 2 negatives .*; 2 have no user"):
        with_explicit_negatives(train, nobody)


def test_training_draws_them_never_a_positive_and_falls_back():
    rng = np.random.default_rng(1)
    users, items = np.divmod(rng.permutation(40 * 50)[:600], 50)
    weights = (rng.random(600) < 0.6).astype(np.float32)
    weights[users < 10] = 1  # users without explicit negatives
    every = Interactions.from_codes(users, items, weights=weights, num_users=40, num_items=50)
    train, _ = hold_out_validation(every)
    settings = Settings(negatives=[{"source": "explicit", "num_negatives": 4}], batch_size=64)
    indptr, listed = explicit_lists(train)
    assert len(listed) == (weights == 0).sum()
    seen: set[tuple[int, int]] = set()
    for batch in Objective(train, settings).batches:
        for user, drawn in zip(batch.users.tolist(), batch.drawn[0].items.tolist(), strict=True):
            known = set(train.positives_of(user).tolist())
            mine = set(listed[indptr[user] : indptr[user + 1]].tolist()) - known
            assert not known & set(drawn)
            assert not mine or set(drawn) <= mine
            seen |= {(user, item) for item in drawn if mine}
    assert len(seen) > 100
