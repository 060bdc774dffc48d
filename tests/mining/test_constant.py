"""Queries to which all items score the same: the windows of the naive twin, without a search."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.mining.constant import constant_rows, ids_in_order
from fastneg.mining.diagnose import diagnose_window
from fastneg.mining.exact import ExactSearch
from fastneg.mining.miner import mine_hard_negatives
from fastneg.mining.search import norms
from fastneg.mining.shards import mine_to_folder
from fastneg.mining.tile_search import TileSearch
from tests.mining.helpers import csr, expect, integers, lists_of, positives_for
from tests.naive import mining as naive


@pytest.mark.parametrize("window", [(1, 5), (4, 9), (20, 60), (61, 70)])
def test_ids_in_order_are_the_naive_ranking_of_zeros(window):
    rng = np.random.default_rng(window[0])
    sets = [*positives_for(rng, 30, 60, 60), set(), set(range(60)), {0, 1, 2}, {59}]
    queries, items = np.zeros((34, 3), np.float32), integers(rng, 60, 3)
    found = ids_in_order(queries, items, lists_of(sets), window)
    for row, known in enumerate(sets):
        wanted = naive.ranking(np.zeros(60), known)[window[0] - 1 : window[1]]
        width = window[1] - window[0] + 1
        assert found.items[row].tolist() == wanted + [-1] * (width - len(wanted))
        assert found.scores[row].tolist() == [0.0] * len(wanted) + [-np.inf] * (width - len(wanted))


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-23, 1e-22, 1e-20])
def test_rows_are_constant_only_where_every_score_is_zero(scale):
    rng = np.random.default_rng(0)
    items = (rng.standard_normal((300, 6)) * scale).astype(np.float32)
    queries = (rng.standard_normal((40, 6)) * 10.0 ** rng.uniform(-26, -20, (40, 1))).astype(
        np.float32
    )
    marks = constant_rows(norms(queries), items, float(norms(items).max()))
    scores = np.array([naive.scores_of(q, items) for q in queries])
    assert not scores[marks].any()
    # all of them but those near the smallest number
    sure = norms(queries) * norms(items).max() <= 2.0**-152
    assert marks[sure].all()


@pytest.mark.parametrize("metric", ["ip", "cosine"])
@pytest.mark.parametrize("search", ["exact", "ivf", "faiss:IVF4,Flat"])
def test_zero_queries_get_ids_in_order_from_every_engine(search, metric, tmp_path):
    rng = np.random.default_rng(1)
    items, queries = integers(rng, 400, 5), integers(rng, 24, 5)
    queries[::3] = 0.0
    sets = positives_for(rng, 24, 400, 50)
    asked = {
        "positives": csr([sorted(s) for s in sets]), "window": (3, 30), "num_negatives": 28,
        "strategy": "top", "metric": metric, "search": search, "recall": 1.0, "progress": False,
    }  # fmt: skip
    wanted, ranks = expect(
        queries[::3], items, sets[::3], (3, 30), 28, strategy="top", metric=metric
    )
    mined = mine_hard_negatives(queries, items, **asked)
    folder = mine_to_folder(queries, items, tmp_path / "job", shard_queries=7, **asked).read()
    for one in (mined, folder):
        np.testing.assert_array_equal(one.items[::3], wanted)
        np.testing.assert_array_equal(one.ranks[::3], ranks)
        assert (one.scores[::3] == 0).all()


@pytest.mark.parametrize("rule", [{}, {"max_per_item": 2}, {"min_score": 0.5}])
def test_rules_act_on_windows_that_are_known(rule):
    rng = np.random.default_rng(2)
    items, queries = integers(rng, 90, 4), integers(rng, 20, 4)
    queries[4:] = 0.0
    sets = positives_for(rng, 20, 90, 20)
    mined = mine_hard_negatives(
        queries, items, positives=csr([sorted(s) for s in sets]), window=(2, 25), num_negatives=6,
        seed=5, progress=False, **rule,
    )  # fmt: skip
    wanted, _ = expect(queries, items, sets, (2, 25), 6, seed=5, **rule)
    np.testing.assert_array_equal(mined.items, wanted)


def test_they_are_not_searched(monkeypatch):
    rng = np.random.default_rng(3)
    items, queries = integers(rng, 90, 4), integers(rng, 20, 4)
    queries[5] = 1.0
    queries[[2, 3, 11]] = 0.0
    asked = []
    for engine in (ExactSearch, TileSearch):
        find = engine.find

        def counted(self, part, *rest, find=find):
            asked.append(len(part))
            return find(self, part, *rest)

        monkeypatch.setattr(engine, "find", counted)
    mine_hard_negatives(queries, items, window=(1, 9), num_negatives=2, progress=False)
    assert sum(asked) == int(queries.any(axis=1).sum()) < 20
    asked.clear()
    mine_hard_negatives(np.zeros((5, 4)), items, window=(1, 9), num_negatives=2, progress=False)
    assert asked == []
    asked.clear()
    diagnose_window(queries, items, None, csr([[1]] * 20), window=(1, 9), depth=20, num_queries=20)
    assert sum(asked) == int(queries.any(axis=1).sum())


@pytest.mark.parametrize("search", ["exact", "ivf"])
@pytest.mark.parametrize("metric", ["ip", "cosine"])
def test_items_that_are_all_one_vector(search, metric):
    rng = np.random.default_rng(4)
    items = np.repeat(rng.standard_normal((1, 7)).astype(np.float32), 300, axis=0)
    queries = rng.standard_normal((9, 7)).astype(np.float32)
    sets = positives_for(rng, 9, 300, 20)
    mined = mine_hard_negatives(
        queries, items, positives=csr([sorted(s) for s in sets]), window=(5, 24), strategy="top",
        num_negatives=20, metric=metric, search=search, progress=False,
    )  # fmt: skip
    for q, known in enumerate(sets):
        assert mined.items[q].tolist() == [i for i in range(300) if i not in known][4:24]
        exact = naive.scores_of(queries[q], items, metric)[0]
        np.testing.assert_allclose(mined.scores[q], exact, rtol=1e-6)
    assert mined.report.recall == 1.0
