"""Recall: an item that ties with a member of the true window is a hit; effort is no more than that
takes."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.mining.calibrate import calibrate, measure_recall
from fastneg.mining.miner import mine_hard_negatives
from fastneg.mining.search import RankWindow, no_positives
from tests.mining.helpers import integers
from tests.naive import mining as naive

NONE = -np.inf


def window_of(items, scores):
    return RankWindow(np.array(items, np.int32), np.array(scores, np.float32), 1)


def test_recall_counts_members_of_the_true_window():
    true = window_of([[1, 2, 3, -1], [4, 5, 6, 7]], [[9, 8, 7, NONE], [9, 8, 7, 6]])
    found = window_of([[2, 3, 9, -1], [4, -1, -1, -1]], [[8, 7, 6, NONE], [9, NONE, NONE, NONE]])
    assert measure_recall(found, true) == 3 / 7
    nothing = window_of([[-1] * 4], [[NONE] * 4])
    assert measure_recall(nothing, nothing) == 1.0
    assert measure_recall(window_of([[3]], [[1]]), window_of([[-1]], [[NONE]])) == 1.0


def test_an_item_that_ties_with_the_last_member_is_a_hit():
    true = window_of([[1, 2, 3, 4]], [[9, 7, 7, 7]])
    assert measure_recall(window_of([[1, 8, 9, 10]], [[9, 7, 7, 7]]), true) == 1.0
    assert measure_recall(window_of([[1, 8, 9, 10]], [[9, 7, 7, 6]]), true) == 0.75
    assert measure_recall(window_of([[8, 9, 10, 11]], [[7, 7, 7, 7]]), true) == 0.75
    # the first rank's ties stand in the window or above it by their ids alone
    true = window_of([[5, 6, 7]], [[7, 7, 3]])
    assert measure_recall(window_of([[1, 2, 7]], [[7, 7, 3]]), true) == 1.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("window", [(1, 12), (8, 30), (50, 100)])
def test_recall_is_that_of_counted_scores(seed, window):
    """Integers tie everywhere; what a part of the items gives is measured by scores alone."""
    rng = np.random.default_rng(seed)
    items, queries = integers(rng, 90, 3), integers(rng, 7, 3)
    part = set(rng.permutation(90)[:60].tolist())
    places = slice(window[0] - 1, window[1])
    hits = members = 0
    rows = {"true": [], "found": []}
    for query in queries:
        scores = naive.scores_of(query, items)
        order = naive.ranking(scores, set())
        true, found = order[places], [i for i in order if i in part][places]
        left = sorted((scores[i] for i in true), reverse=True)
        members += len(left)
        for item in found:  # each takes the place of a member with its score
            if scores[item] in left:
                left.remove(scores[item])
                hits += 1
        for name, chosen in (("true", true), ("found", found)):
            width = window[1] - window[0] + 1 - len(chosen)
            rows[name].append((chosen + [-1] * width, [*scores[chosen], *[NONE] * width]))
    true, found = (window_of(*zip(*rows[name], strict=True)) for name in ("true", "found"))
    assert measure_recall(found, true) == hits / members


class Half:
    """Finds the first ``effort`` tenths of the catalog."""

    name, effort, most_effort, block_rows = "half", "tenths", 10, 1_000

    def __init__(self, items):
        self.items, self.tenths = items, 10

    def set_effort(self, value):
        self.tenths = value

    def find(self, queries, positives, window):
        count = len(self.items) * self.tenths // 10
        out = []
        for query in queries:
            scores = naive.scores_of(query, self.items[:count])
            order = naive.ranking(scores, set())[window[0] - 1 : window[1]]
            order += [-1] * (window[1] - window[0] + 1 - len(order))
            out.append((order, [scores[i] if i >= 0 else NONE for i in order]))
        return window_of(*zip(*out, strict=True))


def test_constant_scores_need_no_effort():
    items = np.ones((200, 4), np.float32)
    queries = integers(np.random.default_rng(0), 30, 4)
    search = Half(items)
    true = search.find(queries, no_positives(30), (1, 20))
    assert calibrate(search, queries, no_positives(30), (1, 20), true, 0.95) == (1, 1.0)


@pytest.mark.parametrize("search", ["ivf", "faiss:IVF32,Flat"])
def test_zero_queries_and_zero_items_cost_no_effort(search, recwarn):
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((40, 16))
    items, queries = (
        (centres[rng.integers(0, 40, n)] + 0.6 * rng.standard_normal((n, 16))).astype(np.float32)
        for n in (6_000, 400)
    )
    asked = {"window": (11, 100), "num_negatives": 10, "search": search, "progress": False}
    plain = mine_hard_negatives(queries, items, **asked)
    queries[rng.random(400) < 0.4] = 0.0
    cold = mine_hard_negatives(queries, items, **asked)
    assert cold.report.recall >= 0.95
    assert cold.report.recall_queries == int(queries.any(axis=1).sum())
    effort, before = (next(iter(one.report.effort.values())) for one in (cold, plain))
    assert effort <= 1.5 * before
    same = mine_hard_negatives(queries, np.ones((6_000, 16), np.float32), **asked)
    assert same.report.recall == 1.0
    assert same.report.recall_queries == 0
    assert same.report.effort == {"nprobe": 1}
    assert not [w for w in recwarn if "of the true" in str(w.message)]


def test_a_job_of_zero_queries_alone_is_measured_on_none():
    items = np.random.default_rng(0).standard_normal((3_000, 8)).astype(np.float32)
    mined = mine_hard_negatives(
        np.zeros((50, 8)), items, window=(1, 20), strategy="top", search="ivf", progress=False
    )
    assert mined.report.recall_queries == 0
    assert mined.report.recall == 1.0
    assert (mined.items == np.arange(10)).all()
