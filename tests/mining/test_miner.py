"""``mine_hard_negatives`` against the definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg import threads
from fastneg.mining.miner import mine_hard_negatives
from tests.mining.helpers import csr, expect, integers, positives_for
from tests.naive import mining as naive

SHAPES = [  # queries, items, width, window, negatives, most positives
    (1, 1, 1, (1, 1), 1, 0),
    (3, 7, 2, (1, 3), 2, 7),
    (17, 300, 5, (11, 50), 10, 20),
    (33, 257, 16, (1, 257), 7, 100),
    (9, 1000, 33, (101, 500), 10, 400),
    (5, 4097, 20, (3, 9), 7, 2),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strategy", ["uniform", "top", "softmax"])
def test_ids_ranks_and_scores_equal_the_definition_with_ties_everywhere(shape, strategy):
    num_queries, num_items, width, window, n, most = shape
    rng = np.random.default_rng(num_items)
    queries, items = integers(rng, num_queries, width), integers(rng, num_items, width)
    sets = positives_for(rng, num_queries, num_items, most)
    mined = mine_hard_negatives(
        queries,
        items,
        positives=csr(sets),
        window=window,
        num_negatives=n,
        strategy=strategy,
        temperature=3.0,
        seed=5,
        progress=False,
    )
    options = {"seed": 5, "strategy": strategy, "temperature": 3.0}
    want, ranks = expect(queries, items, sets, window, n, **options)
    np.testing.assert_array_equal(mined.items, want)
    np.testing.assert_array_equal(mined.ranks, ranks)
    assert mined.items.dtype == np.int64
    assert mined.scores.dtype == np.float32
    assert mined.ranks.dtype == np.int32
    for q in range(num_queries):
        got = mined.items[q] >= 0
        scores = naive.scores_of(queries[q], items)
        np.testing.assert_array_equal(mined.scores[q, got], scores[mined.items[q, got]])
        assert (mined.scores[q, ~got] == -np.inf).all()


@pytest.mark.parametrize("metric", ["ip", "cosine"])
def test_real_vectors_equal_float64_brute_force_but_for_near_ties(metric):
    rng = np.random.default_rng(3)
    queries = rng.standard_normal((60, 24)).astype(np.float32)
    items = rng.standard_normal((3000, 24)).astype(np.float32) * rng.gamma(2.0, size=(3000, 1))
    items[17] = 0.0
    mined = mine_hard_negatives(
        queries,
        items,
        window=(101, 500),
        num_negatives=400,
        metric=metric,
        strategy="top",
        progress=False,
    )
    q64, x64 = queries.astype(np.float64), items.astype(np.float32).astype(np.float64)
    if metric == "cosine":
        q64 /= np.linalg.norm(q64, axis=1, keepdims=True)
        lengths = np.linalg.norm(x64, axis=1, keepdims=True)
        x64 /= np.where(lengths == 0, 1.0, lengths)
    scores = q64 @ x64.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, 100:500]
    bound = 1e-5 * np.linalg.norm(q64, axis=1)[:, None] * np.linalg.norm(x64, axis=1).max()
    theirs = np.take_along_axis(scores, order, axis=1)
    ours = np.take_along_axis(scores, mined.items, axis=1)
    assert ((mined.items == order) | (np.abs(ours - theirs) <= bound)).all()
    assert (mined.items == order).mean() > 0.999
    np.testing.assert_allclose(mined.scores, ours, atol=1e-6 * float(bound.max()) * 1e5)
    np.testing.assert_array_equal(mined.ranks, np.broadcast_to(np.arange(101, 501), (60, 400)))


def test_removing_positives_after_counting_ranks_would_give_other_items():
    # The mistake this guards against: ranks among all items, positives filtered afterwards.
    rng = np.random.default_rng(0)
    queries, items = integers(rng, 20, 8), integers(rng, 200, 8)
    tops = [set(naive.ranking(naive.scores_of(q, items), set())[:5]) for q in queries]
    mined = mine_hard_negatives(
        queries,
        items,
        positives=csr(tops),
        window=(1, 5),
        num_negatives=5,
        strategy="top",
        progress=False,
    )
    for q in range(20):
        order = naive.ranking(naive.scores_of(queries[q], items), set())
        assert mined.items[q].tolist() == order[5:10]
        assert mined.ranks[q].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strategy": "softmax", "temperature": 0.1},
        {"max_per_item": 2},
        {"search": "faiss:Flat"},
        {"absolute_margin": 0.1},
        {"query_groups": np.arange(90) % 5 - 1, "item_groups": np.arange(2500) % 4},
    ],
)
def test_threads_and_memory_change_nothing(options):
    rng = np.random.default_rng(4)
    queries = rng.standard_normal((90, 12)).astype(np.float32)
    items = rng.standard_normal((2500, 12)).astype(np.float32)
    items[1000:1300] = items[:300]  # duplicates: ties at every depth
    sets = positives_for(rng, 90, 2500, 30)
    seen = []
    try:
        for count in (1, 2, 3, 7):
            threads.set_num_threads(count)
            for memory in (1 << 30, 300_000, 100_000):
                mined = mine_hard_negatives(
                    queries,
                    items,
                    positives=csr(sets),
                    window=(21, 90),
                    memory=memory,
                    seed=9,
                    progress=False,
                    **options,
                )
                seen.append(mined)
    finally:
        threads.set_num_threads(None)
    for mined in seen[1:]:
        for name in ("items", "scores", "ranks"):
            np.testing.assert_array_equal(getattr(mined, name), getattr(seen[0], name))
    assert len({m.report.block_rows for m in seen}) > 1  # the blocks did differ


def test_zero_vectors_and_duplicates_are_ties_to_the_lower_id():
    items = np.zeros((3000, 4), np.float32)
    queries = np.array([[0, 0, 0, 0], [1, 2, 3, 4]], np.float32)
    options = {"window": (11, 20), "strategy": "top", "progress": False}
    for metric in ("ip", "cosine"):
        mined = mine_hard_negatives(queries, items, metric=metric, **options)
        assert mined.items.tolist() == [list(range(10, 20))] * 2
        assert (mined.scores == 0).all()
        assert not np.signbit(mined.scores).any()
    same = np.ones((3000, 4), np.float32) * 0.1
    mined = mine_hard_negatives(queries, same, positives=([0, 1, 3], [12, 0, 5]), **options)
    assert mined.items[0].tolist() == [10, 11, 13, 14, 15, 16, 17, 18, 19, 20]
    assert mined.items[1].tolist() == list(range(12, 22))


def test_fewer_items_than_the_window_and_windows_beyond_the_catalog():
    rng = np.random.default_rng(0)
    queries, items = integers(rng, 4, 3), integers(rng, 30, 3)
    mined = mine_hard_negatives(queries, items, window=(26, 500), progress=False)
    assert ((mined.items >= 0).sum(axis=1) == 5).all()
    assert (mined.ranks[:, 5:] == 0).all()
    assert (mined.items[:, 5:] == -1).all()
    assert mined.report.missing_negatives == 20
    assert mined.report.window == (26, 500)
    beyond = mine_hard_negatives(queries, items, window=(31, 500), progress=False)
    assert (beyond.items == -1).all()
    assert beyond.report.empty_rows == 4
    for search in ("ivf", "faiss:Flat"):
        again = mine_hard_negatives(queries, items, window=(26, 500), search=search, progress=False)
        np.testing.assert_array_equal(again.items, mined.items)


def test_a_query_that_has_every_item_and_one_with_thousands():
    rng = np.random.default_rng(0)
    queries, items = integers(rng, 3, 4), integers(rng, 5000, 4)
    many = set(rng.choice(5000, 4000, replace=False).tolist())
    sets = [set(range(5000)), many, set()]
    for search in ("exact", "faiss:Flat"):
        mined = mine_hard_negatives(
            queries,
            items,
            positives=csr(sets),
            window=(1, 50),
            num_negatives=50,
            search=search,
            strategy="top",
            progress=False,
        )
        assert (mined.items[0] == -1).all()
        assert not many & set(mined.items[1].tolist())
        for q in (1, 2):
            order = naive.ranking(naive.scores_of(queries[q], items), sets[q])
            if search == "exact":  # FAISS cuts ties where it likes
                assert mined.items[q].tolist() == order[:50]
            scores = naive.scores_of(queries[q], items)
            np.testing.assert_array_equal(mined.scores[q], scores[order[:50]])
        assert mined.report.positives_removed == 9000
        assert mined.report.queries_without_positives == 1


def test_lowered_matmul_precision_changes_nothing():
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((40, 32)).astype(np.float32)
    items = rng.standard_normal((4000, 32)).astype(np.float32)
    options = {"window": (11, 60), "strategy": "top", "num_negatives": 50, "progress": False}
    want = mine_hard_negatives(queries, items, **options)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        got = mine_hard_negatives(queries, items, **options)
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(got.items, want.items)
    np.testing.assert_array_equal(got.scores, want.scores)
