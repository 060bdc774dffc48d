"""Copies of positives under other ids: counted, and left out where that is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.errors import FastnegError
from fastneg.kernels.twins import NO_TWIN, SAME_SCORE, SAME_VECTOR
from fastneg.mining import twins as twins_page
from fastneg.mining.diagnose import diagnose_window
from fastneg.mining.miner import mine_hard_negatives
from fastneg.mining.search import norms
from fastneg.mining.shards import mine_to_folder
from fastneg.mining.twins import find_twins
from tests.mining.helpers import csr, expect, integers, lists_of, positives_for, vectors_of
from tests.naive import mining as naive

KINDS = {None: NO_TWIN, "score": SAME_SCORE, "vector": SAME_VECTOR}


def catalog(seed, kind="spread", num_items=200, num_queries=15, width=6):
    """Every third item is a copy of an earlier one; -0.0 in place of 0.0 is the same."""
    rng = np.random.default_rng(seed)
    items = vectors_of(kind, rng, num_items, width)
    originals = rng.integers(0, num_items // 2, num_items // 3)
    items[num_items - len(originals) :] = items[originals]
    items[items == 0] *= rng.choice([-1.0, 1.0], int((items == 0).sum())).astype(np.float32)
    queries = vectors_of(kind, rng, num_queries, width)
    return queries, items, positives_for(rng, num_queries, num_items, 12)


@pytest.mark.parametrize("kind", ["plain", "integers", "zeros and duplicates", "tiny", "huge"])
@pytest.mark.parametrize("width", [1, 6, 33])
def test_twins_are_those_of_the_definition(kind, width):
    if kind == "huge" and width == 33:
        return
    queries, items, sets = catalog(width, kind, width=width)
    queries[4] = 0.0
    for q, query in enumerate(queries):
        scores = naive.scores_of(query, items)[None]
        every = np.arange(len(items), dtype=np.int32)[None]
        constant = np.array([len(set(scores[0].tolist())) == 1])
        found = find_twins(
            query[None], items, float(norms(items).max()), lists_of([sets[q]]), constant, every,
            scores,
        )[0]  # fmt: skip
        wanted = naive.twins_of(query, items, sets[q])
        assert found.tolist() == [KINDS[wanted.get(i)] for i in range(len(items))]


def test_rows_threads_and_absent_items(monkeypatch):
    queries, items, sets = catalog(7)
    sets[2] = set()
    window = np.random.default_rng(0).integers(-1, len(items), (15, 40)).astype(np.int32)
    scores = np.stack([naive.scores_of(q, items) for q in queries])
    scores = np.where(window >= 0, np.take_along_axis(scores, np.maximum(window, 0), 1), -np.inf)
    monkeypatch.setattr(twins_page, "SMALLEST_CHUNK", 1)
    found = find_twins(
        queries, items, float(norms(items).max()), lists_of(sets), np.zeros(15, bool), window,
        scores.astype(np.float32),
    )  # fmt: skip
    for q in range(15):
        wanted = naive.twins_of(queries[q], items, sets[q])
        assert found[q].tolist() == [KINDS[wanted.get(i)] for i in window[q].tolist()]


@pytest.mark.parametrize("metric", ["ip", "cosine"])
@pytest.mark.parametrize("strategy", ["top", "uniform"])
@pytest.mark.parametrize("rules", [{}, {"min_score": 0.2}, {"max_per_item": 3}])
def test_twins_are_not_drawn_and_the_window_stays(metric, strategy, rules):
    queries, items, sets = catalog(11, "plain")
    asked = {"window": (3, 40), "strategy": strategy, "metric": metric, "seed": 2}
    given = {**asked, "positives": csr([sorted(s) for s in sets]), "num_negatives": 12}
    plain = mine_hard_negatives(queries, items, progress=False, **given, **rules)
    mined = mine_hard_negatives(
        queries, items, drop_duplicates=True, progress=False, **given, **rules
    )
    wanted, ranks = expect(
        queries, items, sets, (3, 40), 12, seed=2, strategy=strategy, metric=metric,
        drop_duplicates=True, **rules,
    )  # fmt: skip
    np.testing.assert_array_equal(mined.items, wanted)
    np.testing.assert_array_equal(mined.ranks, ranks)
    assert mined.report.duplicates_mined == mined.report.copies_mined == 0
    assert mined.report.rejected_by_duplicate > 0
    twins = [naive.twins_of(q, items, s, metric) for q, s in zip(queries, sets, strict=True)]
    drawn = [twins[q].get(i) for q, row in enumerate(plain.items.tolist()) for i in row if i >= 0]
    assert plain.report.duplicates_mined == sum(one is not None for one in drawn) > 0
    assert plain.report.copies_mined == drawn.count("vector")
    assert plain.report.rejected_by_duplicate == 0
    assert plain.report.window_members == mined.report.window_members


def test_copies_of_another_length_are_twins_under_cosine():
    rng = np.random.default_rng(5)
    items = rng.standard_normal((400, 48)).astype(np.float32)
    items[200:] = items[:200] * rng.uniform(0.1, 30.0, (200, 1)).astype(np.float32)
    queries = items[:200] + np.float32(0.05) * rng.standard_normal((200, 48)).astype(np.float32)
    given = {
        "positives": (np.arange(201), np.arange(200)), "window": (1, 5), "num_negatives": 3,
        "strategy": "top", "metric": "cosine", "progress": False,
    }  # fmt: skip
    plain = mine_hard_negatives(queries, items, **given)
    assert plain.report.duplicates_mined == (plain.items == 200 + np.arange(200)[:, None]).sum()
    assert plain.report.duplicates_mined > 190
    assert plain.report.copies_mined < 190  # their vectors were rounded apart
    mined = mine_hard_negatives(queries, items, drop_duplicates=True, **given)
    assert not (mined.items == 200 + np.arange(200)[:, None]).any()


def test_zero_queries_drop_copies_and_nothing_else():
    queries, items, sets = catalog(13, "integers")
    queries[:] = 0.0
    given = {"window": (1, 60), "strategy": "top", "num_negatives": 60}
    mined = mine_hard_negatives(
        queries, items, positives=csr([sorted(s) for s in sets]), drop_duplicates=True,
        progress=False, **given,
    )  # fmt: skip
    wanted, _ = expect(queries, items, sets, (1, 60), 60, strategy="top", drop_duplicates=True)
    np.testing.assert_array_equal(mined.items, wanted)
    assert mined.report.full_rows < 15 < (mined.items >= 0).sum() / 30


def test_a_folder_counts_and_drops_the_same(tmp_path):
    queries, items, sets = catalog(17)
    given = {
        "positives": csr([sorted(s) for s in sets]), "window": (1, 30), "num_negatives": 8,
        "seed": 3, "progress": False,
    }  # fmt: skip
    for drop in (False, True):
        alone = mine_hard_negatives(queries, items, drop_duplicates=drop, **given)
        folder = mine_to_folder(
            queries, items, tmp_path / str(drop), drop_duplicates=drop, shard_queries=4, **given
        )
        np.testing.assert_array_equal(folder.read().items, alone.items)
        for name in ("rejected_by_duplicate", "duplicates_mined", "copies_mined"):
            assert getattr(folder.report, name) == getattr(alone.report, name)
    assert "drawn equal a positive" in str(alone.report)
    with pytest.raises(FastnegError, match="drop_duplicates is False, was True"):
        mine_to_folder(queries, items, tmp_path / "True", shard_queries=4, **given)


def test_it_takes_true_or_false_and_positives():
    items = integers(np.random.default_rng(0), 50, 3)
    with pytest.raises(FastnegError, match="drop_duplicates = 'yes' is not True or False"):
        mine_hard_negatives(items, items, window=(1, 20), drop_duplicates="yes")
    with pytest.raises(FastnegError, match="positives is None; give positives"):
        mine_hard_negatives(items, items, window=(1, 20), drop_duplicates=True)


@pytest.mark.parametrize("kind", ["plain", "integers"])
@pytest.mark.parametrize("metric", ["ip", "cosine"])
def test_a_diagnosis_counts_the_windows_twins(kind, metric):
    queries, items, sets = catalog(19, kind)
    queries[3] = 0.0
    lists = csr([sorted(s) for s in sets])
    window = (2, 50)
    found = diagnose_window(queries, items, lists, None, window=window, metric=metric)
    count = 0
    for query, known in zip(queries, sets, strict=True):
        order = naive.ranking(naive.scores_of(query, items, metric), known)
        twins = naive.twins_of(query, items, known, metric)
        count += sum(item in twins for item in order[window[0] - 1 : window[1]])
    assert found.duplicates == count > 0
    assert f"{count:,} of {found.window.members:,} members equal a positive" in str(found)
    assert diagnose_window(queries, items, None, lists, window=window).duplicates == 0
