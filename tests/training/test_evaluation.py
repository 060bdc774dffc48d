"""The full ranking against the definitions, and against published MostPop figures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg import threads
from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.interactions import Interactions
from fastneg.training.evaluation import evaluate, evaluate_scores, most_popular_scores
from tests.naive import evaluation as naive

Pairs = set[tuple[int, int]]


def interactions(pairs: Pairs, num_users: int, num_items: int) -> Interactions:
    users, items = [u for u, _ in sorted(pairs)], [i for _, i in sorted(pairs)]
    return Interactions.from_codes(users, items, num_users=num_users, num_items=num_items)


def random_pairs(rng: np.random.Generator, num_users: int, num_items: int, share: float) -> Pairs:
    chosen = rng.random((num_users, num_items)) < share * rng.random(num_items) * 2
    return {(int(u), int(i)) for u, i in np.argwhere(chosen)}


def assert_same(metrics: dict[str, float], expected: dict[str, float]) -> None:
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.filterwarnings("ignore:evaluate_scores. in .* has collapsed")
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_users=st.integers(1, 9),
    num_items=st.integers(1, 150),
    levels=st.sampled_from([1, 3, 1000]),
    block=st.integers(1, 5),
    cold=st.booleans(),
    ks=st.sampled_from([[1], [3, 5], [2, 200]]),
)
def test_scores_with_ties_against_the_definitions(
    seed: int, num_users: int, num_items: int, levels: int, block: int, cold: bool, ks: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (num_users, num_items)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    train, validation, test = (
        random_pairs(rng, num_users, num_items, share) for share in (0.3, 0.1, 0.2)
    )
    train = {(u, i) for u, i in train if u % 4 != 3}
    test.add((0, 0))
    train -= {(0, 0)}
    validation -= {(0, 0)}
    cold = cold or (0 not in {u for u, _ in train})  # so that user 0 is there to evaluate
    result = evaluate_scores(
        lambda users: scores[users],
        train=interactions(train, num_users, num_items),
        validation=interactions(validation, num_users, num_items),
        test=interactions(test, num_users, num_items),
        k=ks,
        block=block,
        scores_cold_users=cold,
        bands=[1, 2],
    )
    expected = naive.evaluate(
        scores.tolist(), train, validation, test, ks, scores_cold_users=cold, edges=[1, 2]
    )
    assert_same(result.metrics, expected)
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.filterwarnings("ignore:evaluate_scores. in .* has collapsed")
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_items=st.integers(1, 6),
    levels=st.integers(1, 4),
    ks=st.sampled_from([[1], [2, 3], [1, 5, 9]]),
)
def test_ties_against_every_order(seed: int, num_items: int, levels: int, ks: list[int]) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (3, num_items)).astype(np.float32)
    train = random_pairs(rng, 3, num_items, 0.15) - {(0, 0)}
    test = random_pairs(rng, 3, num_items, 0.5) | {(0, 0)}
    arguments = [scores.tolist(), train, set(), test, ks]
    common = {"scores_cold_users": True, "edges": [1, 2]}
    expected = naive.evaluate(*arguments, **common, means=naive.Enumerated)
    counted = naive.evaluate(*arguments, **common, means=naive.Expected)
    assert_same(counted, expected)
    result = evaluate_scores(
        lambda users: scores[users], train=interactions(train, 3, num_items),
        test=interactions(test, 3, num_items), k=ks, scores_cold_users=True, bands=[1, 2],
    )  # fmt: skip
    assert_same(result.metrics, expected)


def test_the_order_of_the_codes_is_worth_nothing() -> None:
    """A collapsed model is worth a random order, however the catalog is listed; and it is named."""
    users, items, train, validation, test = example()
    by_code = list(range(130))
    popular = sorted(by_code, key=lambda i: -sum(item == i for _, item in train))
    found = []
    for order in (by_code, popular):
        renamed = [
            {(u, order.index(i)) for u, i in pairs} for pairs in (train, validation, test)
        ]  # fmt: skip
        with pytest.warns(UserWarning, match="evaluate: in 37 of 37 lists .* has collapsed"):
            found.append(
                evaluate(
                    users,
                    np.tile(items[:1], (130, 1)),
                    train=interactions(renamed[0], 40, 130),
                    validation=interactions(renamed[1], 40, 130),
                    test=interactions(renamed[2], 40, 130),
                    k=(5, 20),
                    bands=None,
                )
            )
    one, other = found
    assert one.metrics == pytest.approx(other.metrics, rel=1e-12)
    assert one.counts["tied_lists"] == one.counts["collapsed_lists"] == one.counts["users"] == 37
    shares = [
        20 / (130 - sum(pair[0] == u for pair in train | validation))
        for u in range(3, 40) if any(pair[0] == u for pair in test - train - validation)
    ]  # fmt: skip
    assert one.metrics["recall@20"] == pytest.approx(np.mean(shares), rel=1e-12)


def test_zero_users_collapse_their_own_lists_alone() -> None:
    users, items, train, _, test = example()
    users[10:20] = 0.0
    result = evaluate(
        users, items, train=interactions(train, 40, 130), test=interactions(test, 40, 130)
    )
    assert result.counts["tied_lists"] == result.counts["collapsed_lists"] == 10


def example(seed: int = 0) -> tuple[np.ndarray, np.ndarray, Pairs, Pairs, Pairs]:
    rng = np.random.default_rng(seed)
    users, items = rng.normal(size=(40, 8)), rng.normal(size=(130, 8))
    train, validation, test = (random_pairs(rng, 40, 130, share) for share in (0.1, 0.02, 0.05))
    train = {(u, i) for u, i in train if u >= 3}
    return users.astype(np.float32), items.astype(np.float32), train, validation, test


def test_vectors_against_the_definitions() -> None:
    users, items, train, validation, test = example()
    common = {
        "train": interactions(train, 40, 130),
        "validation": interactions(validation, 40, 130),
        "test": interactions(test, 40, 130),
        "k": (5, 20),
        "bands": [2, 5],
    }
    expected = naive.evaluate((users @ items.T).tolist(), train, validation, test, [5, 20],
                              edges=[2, 5])  # fmt: skip
    result = evaluate(users, items, **common)
    assert_same(result.metrics, expected)
    for block in (1, 7, 39, 1000):
        assert evaluate(users, items, block=block, **common) == result
    assert evaluate(torch.from_numpy(users), torch.from_numpy(items), **common) == result
    frozen = users.copy()
    frozen.setflags(write=False)
    assert evaluate(frozen, items.astype(np.float64), **common) == result
    without = evaluate(users, items, **{**common, "validation": None})
    assert without.metrics["recall@20"] != result.metrics["recall@20"]


def test_the_number_of_threads_changes_nothing() -> None:
    users, items, train, _, test = example(1)
    scores = (users @ items.T).astype(np.float32)
    seen, wanted = interactions(train, 40, 130), interactions(test, 40, 130)
    results = []
    try:
        for num_threads in (1, 2, 3, 7):
            threads.set_num_threads(num_threads)
            results.append(evaluate_scores(lambda u: scores[u], train=seen, test=wanted, k=(1, 9)))
    finally:
        threads.set_num_threads(None)
    assert all(result == results[0] for result in results)


def test_what_is_counted() -> None:
    """Six users, four scored items: each kind of dropped pair and user once."""
    train = interactions({(0, 0), (1, 1), (2, 0), (5, 0)}, 6, 4)
    validation = interactions({(1, 2)}, 6, 4)
    test = interactions(
        {
            (0, 0), (0, 1), (0, 3),  # the first is in train
            (1, 2),  # in validation: nothing left
            (2, 6),  # an unknown item, and nothing else
            (3, 1), (3, 2),  # a user without training rows
            (5, 1), (5, 5),
            (7, 1),  # a user beyond the scored ones
        },
        8, 7,
    )  # fmt: skip
    scores = np.tile(np.array([9, 8, 7, 6], dtype=np.float32), (6, 1))
    result = evaluate_scores(
        lambda users: scores[users], train=train, validation=validation, test=test, k=2, bands=None
    )
    assert result.counts == {
        "test_pairs_in_train": 1,
        "test_pairs_in_validation": 1,
        "users": 3,
        "users_cold": 1,
        "users_cold_left_out": 1,
        "users_unknown_left_out": 1,
        "test_pairs": 5,
        "test_pairs_left_out": 3,
        "unknown_test_items": 2,
        "items": 4,
        "rarest_half_items": 2,
        "rarest_half_pairs": 1,
        "tied_lists": 0,
        "collapsed_lists": 0,
    }
    # user 0: 1 of 2 at rank 1; user 2: 0 of 1; user 5: 1 of 2 at rank 1
    discount = 1 / math.log2(3)
    assert result.metrics["recall@2"] == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert result.metrics["ndcg@2"] == pytest.approx(2 / (1 + discount) / 3)
    assert result.metrics["mrr"] == pytest.approx(2 / 3)
    assert result.metrics["coverage@2"] == 0.5  # items 1 and 2, since all know item 0
    assert result.bands == ()


def test_cold_users_count_if_they_can_be_scored() -> None:
    train, test = interactions({(0, 0)}, 2, 3), interactions({(0, 1), (1, 0)}, 2, 3)
    scores = np.tile(np.array([3, 2, 1], dtype=np.float32), (2, 1))
    cold = evaluate_scores(
        lambda users: scores[users], train=train, test=test, k=1, scores_cold_users=True
    )
    warm = evaluate_scores(lambda users: scores[users], train=train, test=test, k=1)
    assert (cold.counts["users"], warm.counts["users"]) == (2, 1)
    assert (cold.counts["users_cold_left_out"], warm.counts["users_cold_left_out"]) == (0, 1)
    assert cold.counts["users_cold"] == warm.counts["users_cold"] == 1


def test_unknown_items_given_as_numbers_are_misses() -> None:
    train, test = interactions({(0, 0), (1, 0)}, 2, 3), interactions({(0, 1)}, 2, 3)
    scores = np.tile(np.array([3, 2, 1], dtype=np.float32), (2, 1))
    result = evaluate_scores(
        lambda users: scores[users], train=train, test=test, k=(1, 3), unknown_test_items=[3, 2]
    )
    assert result.counts["unknown_test_items"] == 5
    assert result.counts["test_pairs"] == 6
    assert result.metrics["recall@3"] == pytest.approx((1 / 4 + 0) / 2)
    expected = naive.evaluate(
        scores.tolist(), {(0, 0), (1, 0)}, set(), {(0, 1)}, [1, 3], extra_misses={0: 3, 1: 2}
    )
    assert result.metrics["ndcg@3"] == pytest.approx(expected["ndcg@3"])
    assert result.metrics["ndcg@1"] == pytest.approx(expected["ndcg@1"])


def test_the_rarest_half_when_most_items_tie_at_nothing() -> None:
    train, test = interactions({(0, 0)}, 1, 5), interactions({(0, 1), (0, 2)}, 1, 5)
    scores = np.array([[0, 5, 1, 3, 2]], dtype=np.float32)
    result = evaluate_scores(lambda users: scores[users], train=train, test=test, k=1)
    assert result.counts["rarest_half_items"] == 4
    assert result.metrics["recall_rarest_half@1"] == 0.5


def test_bands_share_the_training_positives() -> None:
    counts = [1, 1, 2, 2, 3, 3, 6, 6, 12, 12]
    pairs = {(u, i) for i, count in enumerate(counts) for u in range(count)}
    train = interactions(pairs, 13, 11)
    test = interactions({(12, i) for i in range(11)} | {(11, 0)}, 13, 11)
    scores = np.tile(np.arange(11, dtype=np.float32), (13, 1))
    bands = evaluate_scores(
        lambda u: scores[u], train=train, test=test, bands=4, scores_cold_users=True
    ).bands
    assert [(b.minimum, b.maximum, b.num_items, b.test_pairs) for b in bands] == [
        (0, 5, 7, 8), (6, 11, 2, 2), (12, 12, 2, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "recall", "ndcg"),
    [
        ("gowalla", 0.0416, 0.0317),
        ("yelp2018", 0.012451, 0.0101),
        ("ml-1m", 0.1161, 0.1176),
    ],
)
def test_most_popular_on_real_interactions(
    shared_data: Path, name: str, recall: float, ndcg: float
) -> None:
    train = Interactions.from_csr(shared_data / name / "train.npz")
    test = Interactions.from_csr(shared_data / name / "test.npz")
    result = evaluate_scores(most_popular_scores(train), train=train, test=test, bands=None)
    assert abs(result.metrics["recall@20"] - recall) < 6e-5
    assert abs(result.metrics["ndcg@20"] - ndcg) < 6e-5
    assert result.counts["users"] == train.num_users
    # the published program ranks equal counts by code, the lower one first
    counts = train.item_user_counts
    order = np.lexsort((-np.arange(counts.size), counts)).argsort().astype(np.float32)
    by_code = evaluate_scores(
        lambda users: np.broadcast_to(order, (users.size, order.size)), train=train, test=test,
        bands=None,
    )  # fmt: skip
    assert by_code.counts["tied_lists"] == 0
    for metrics, name_of, published in (
        (by_code.metrics, "recall@20", recall), (by_code.metrics, "ndcg@20", ndcg)
    ):  # fmt: skip
        digits = len(str(published).split(".")[1])
        assert round(metrics[name_of], digits) == published


def test_most_popular_ties_equal_counts() -> None:
    train = interactions({(0, 2), (1, 2), (0, 1), (1, 3)}, 3, 5)
    scores = most_popular_scores(train)(np.array([0, 2]))
    assert scores.shape == (2, 5)
    assert naive.tied_groups(scores[0].tolist(), set()) == [[2], [1, 3], [0, 4]]


# -------------------------------------------------------------------------------- borders


def good() -> dict:
    users, items, train, _, test = example()
    return {
        "user_vectors": users,
        "item_vectors": items,
        "train": interactions(train, 40, 130),
        "test": interactions(test, 40, 130),
    }


def spoiled(value: float) -> np.ndarray:
    vectors = good()["item_vectors"]
    vectors[4, 2] = value
    return vectors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_vectors": np.zeros((40, 9))}, "user_vectors have width 9, item_vectors 8"),
        ({"item_vectors": spoiled(math.nan)}, r"item_vectors\[4, 2\] = nan is not a finite"),
        ({"item_vectors": spoiled(math.inf)}, r"item_vectors\[4, 2\] = inf"),
        ({"user_vectors": np.zeros(8)}, r"user_vectors .* has 1 dimensions; 2 expected"),
        ({"user_vectors": np.zeros((41, 8))}, "41 users are scored, but train has 40 users"),
        ({"user_vectors": np.zeros((9, 8))}, "9 users are scored, but train has 40 users"),
        ({"item_vectors": np.zeros((131, 8))}, "131 items are scored, but train has 130 items"),
        ({"k": 0}, "k = 0 is too small"),
        ({"k": ()}, "k is empty"),
        ({"bands": 0}, "bands = 0 is too small"),
        ({"bands": [3, 3]}, r"bands = \[3, 3\] do not ascend"),
        ({"block": 0}, "block = 0 is too small"),
        ({"unknown_test_items": [1]}, r"unknown_test_items .* shape \(40,\)"),
        ({"unknown_test_items": [-1] + [0] * 39}, r"unknown_test_items\[0\] = -1 is negative"),
    ],
)
def test_bad_arguments(changes: dict, message: str) -> None:
    arguments = good() | changes
    with pytest.raises(FastnegError, match=message):
        evaluate(arguments.pop("user_vectors"), arguments.pop("item_vectors"), **arguments)


def test_nothing_to_evaluate() -> None:
    train = interactions({(0, 0), (1, 1)}, 3, 2)
    users, items = np.zeros((3, 2)), np.zeros((2, 2))
    negatives_only = Interactions.from_codes([0], [1], num_users=3, num_items=2, weights=[0.0])
    with pytest.raises(FastnegError, match=r"test holds no positive pairs \(1 rows\)"):
        evaluate(users, items, train=train, test=negatives_only)
    with pytest.raises(FastnegError, match=r"nothing to evaluate: test_pairs_in_train = 2"):
        evaluate(users, items, train=train, test=train)
    with pytest.raises(FastnegError, match=r"nothing to evaluate: .* users_cold_left_out = 1"):
        evaluate(users, items, train=train, test=interactions({(2, 0)}, 3, 2))


def test_bad_scores() -> None:
    train, test = interactions({(0, 0), (1, 1)}, 2, 3), interactions({(0, 1), (1, 2)}, 2, 3)
    scores = np.ones((2, 3), dtype=np.float32)
    scores[1, 0] = math.nan
    with pytest.raises(FastnegError, match="the score of user 1 and item 0 is NaN"):
        evaluate_scores(lambda users: scores[users], train=train, test=test)
    with pytest.raises(FastnegError, match=r"score_block gave scores .* give shape \(2, 3\)"):
        evaluate_scores(lambda users: scores[users, :2], train=train, test=test)
    with pytest.raises(FastnegTypeError, match="Python objects"):
        evaluate_scores(lambda users: [["a", None, 1]] * 2, train=train, test=test)
    big = np.full((2, 1), 3e38, dtype=np.float32)
    with pytest.raises(FastnegError, match=r"the score of user 0 and item .* is NaN"):
        evaluate(
            np.hstack([big, big]), np.array([[1.0, 2.0], [3e38, -3e38], [-3e38, 3e38]]),
            train=train, test=test,
        )  # fmt: skip
