"""Given candidates: the metrics over them against the definition, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastneg
from fastneg.errors import FastnegError
from fastneg.training.given_candidates import given_candidates
from tests.naive import evaluation as naive

SEEN = fastneg.Interactions.from_codes([0, 0, 1, 2, 3], [0, 1, 2, 3, 4], num_users=5, num_items=12)


def test_ranks_are_among_the_given_items() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(-2, 3, (5, 3)), rng.integers(-2, 3, (12, 3))  # with ties
    owners, positives = [3, 0, 1, 2], [5, 6, 7, 8]
    negatives = [[1, 9, 10], [11, 2], [4, 3, 9, 10, 11], [0]]
    candidates = given_candidates(SEEN, owners, positives, negatives)
    assert candidates.users.tolist() == [0, 1, 2, 3]
    assert candidates.negatives[0].tolist() == [2, 11, -1, -1, -1]
    result = fastneg.evaluate_sampled(users, items, candidates=candidates, k=(1, 2))
    scores = (users @ items.T).astype(float)
    for k in (1, 2):
        each = [
            naive.sampled_row(scores[u, p], scores[u, row].tolist(), k)
            for u, p, row in zip(owners, positives, negatives, strict=True)
        ]
        assert result.metrics[f"hr@{k}"] == pytest.approx(np.mean([hit for hit, _ in each]))
        assert result.metrics[f"ndcg@{k}"] == pytest.approx(np.mean([gain for _, gain in each]))


def test_unknown_users_items_and_negatives() -> None:
    with pytest.warns(UserWarning, match="given_candidates: 2 negatives are items that train does"):
        candidates = given_candidates(
            SEEN, [-1, 0, 4, 1], [5, -1, 6, 7], [[1], [2, -1], [3], [-1, 4]]
        )
    users, items = np.ones((5, 1)), np.arange(12.0)[:, None]
    result = fastneg.evaluate_sampled(users, items, candidates, k=1)
    assert result.counts["users_unknown_left_out"] == 1
    assert result.counts["unknown_test_items"] == 1
    assert result.counts["rows_cold_left_out"] == 1  # user 4 has no training row
    assert result.metrics["hr@1"] == 0.5
    matrix = given_candidates(SEEN, [0], [5], np.array([[3, -1, 2]]))  # -1 is padding
    assert matrix.negatives.tolist() == [[2, 3, -1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"negatives": [[1, 5], [2]]}, r"negatives\[0\]: item 5 is the row's positive"),
        ({"negatives": [[1], [2, 3, 2]]}, r"negatives\[1\]: item 2 stands twice in its row"),
        ({"negatives": [[1]]}, "lengths differ: users has 2, positives has 2, negatives has 1"),
        ({"negatives": [[1], [12]]}, r"negatives\[1\]\[0\] = 12 is not a code in -1..11"),
        ({"negatives": [[-1], []]}, "negatives .* name no item of train"),
        ({"negatives": []}, "negatives .* name no item of train"),
        ({"negatives": 5}, "negatives .* has 0 dimensions; 2 expected"),
        ({"negatives": [["a"], [1]]}, r"negatives\[0\] .* is not of an integer dtype"),
        ({"users": [-1, -1]}, "none of the 2 rows is of a user of train"),
        ({"users": [0, 5]}, r"users\[1\] = 5 is not a code"),
        ({"positives": [0.5, 1]}, "positives .* is not of an integer dtype"),
        ({"train": 5}, "train is a int"),
    ],
)
def test_bad_candidates(changes: dict, message: str) -> None:
    given = {"train": SEEN, "users": [0, 1], "positives": [5, 6], "negatives": [[1, 2], [3]]}
    with pytest.raises(FastnegError, match=f"given_candidates: {message}"):
        given_candidates(**{**given, **changes})


def test_the_definition_of_ndcg() -> None:
    candidates = given_candidates(SEEN, [0], [5], [[6, 7, 8]])
    users, items = np.ones((5, 1)), -np.arange(12.0)[:, None]
    items[6] = 1.0
    result = fastneg.evaluate_sampled(users, items, candidates, k=3)
    assert result.metrics["ndcg@3"] == pytest.approx(1 / math.log2(3))
