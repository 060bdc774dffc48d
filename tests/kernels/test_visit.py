"""Visits and what they leave, against sets; buffers that nothing is written beyond."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.kernels.panels import LANES
from fastneg.kernels.visit import pair_by_list, visit_lists, write_ranks
from tests.kernels.test_panels import panels_of
from tests.naive import mining as naive


@pytest.mark.parametrize("num_lists", [1, 5, 40])
@pytest.mark.parametrize("each", [1, 3])
def test_rows_of_each_list(num_lists, each):
    rng = np.random.default_rng(num_lists)
    lists = rng.integers(0, num_lists, (30, each)).astype(np.int32)
    starts, rows = np.full(num_lists + 1, 9), np.full(30 * each, -1, np.int32)
    pair_by_list(lists, starts, rows)
    wanted = [[r for r in range(30) for c in lists[r] if c == one] for one in range(num_lists)]
    got = [rows[starts[one] : starts[one + 1]].tolist() for one in range(num_lists)]
    assert got == wanted
    assert starts[-1] == lists.size


def run(items, lists, num_lists, queries, wanted, sets, window, capacity, slack=0.0):
    """Windows by the kernels over the lists ``wanted`` [B, n], and what lies beyond the buffers."""
    rows = len(queries)
    panels, order, borders, panel_borders = panels_of(items, lists, num_lists)
    pair_starts, pair_rows = np.empty(num_lists + 1, np.int64), np.empty(wanted.size, np.int32)
    pair_by_list(wanted, pair_starts, pair_rows)
    positives = np.array([i for s in sets for i in sorted(s)], np.int64)
    stops = np.cumsum([len(s) for s in sets])
    starts = stops - [len(s) for s in sets]
    counts = np.zeros(rows, np.int64)
    codes = np.full((rows + 2, capacity), -5, np.int32)
    scores = np.full((rows + 2, capacity), 5.0, np.float32)
    slacks = np.full(rows, slack)
    visit_lists(
        pair_starts, pair_rows, queries, panels, panel_borders, borders, order, items, window[1],
        slacks, starts, stops, positives, np.full(rows, -np.inf, np.float32), counts,
        codes[1:-1], scores[1:-1],
    )  # fmt: skip
    assert counts.max() <= capacity - LANES
    out = np.full((rows + 2, window[1] - window[0] + 1), -9, np.int32)
    out_scores = np.empty(out.shape, np.float32)
    write_ranks(
        queries, items, window[1], slacks, starts, stops, positives, counts, codes[1:-1],
        scores[1:-1], window[0], np.arange(rows)[::-1] + 1, out, out_scores,
    )  # fmt: skip
    assert (codes[[0, -1]] == -5).all()
    assert (scores[[0, -1]] == 5).all()
    assert (out[[0, -1]] == -9).all()
    return out[-2:0:-1], out_scores[-2:0:-1]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("slack", [0.0, 0.75])
def test_the_best_of_the_lists_asked_for(seed, slack):
    # Small integers: products are exact, so any slack is true; ties are everywhere.
    rng = np.random.default_rng(seed)
    items = rng.integers(-3, 4, (3_000, 5)).astype(np.float32)
    queries = rng.integers(-3, 4, (19, 5)).astype(np.float32)
    lists = rng.integers(0, 9, 3_000).astype(np.int32)
    lists[lists == 4] = 5  # an empty list
    wanted = np.argsort(rng.random((19, 9)), axis=1)[:, :4].astype(np.int32)
    sets = [set(rng.permutation(3_000)[: (0, 40, 2_900)[q % 3]].tolist()) for q in range(19)]
    depth = int(rng.integers(1, 120))
    window = (int(rng.integers(1, depth + 1)), depth)
    ids, scores = run(items, lists, 9, queries, wanted, sets, window, 2 * depth + 256, slack)
    for q in range(19):
        held = np.isin(lists, wanted[q])
        all_scores = naive.scores_of(queries[q], items)
        order = [i for i in naive.ranking(all_scores, sets[q]) if held[i]]
        part = order[window[0] - 1 : window[1]]
        assert ids[q].tolist() == part + [-1] * (ids.shape[1] - len(part))
        np.testing.assert_array_equal(scores[q, : len(part)], all_scores[part])
        assert (scores[q, len(part) :] == -np.inf).all()


def test_a_slack_that_is_too_small_would_be_seen():
    # Products of these items differ from their exact scores; without slack some are lost.
    rng = np.random.default_rng(3)
    base = rng.standard_normal(48).astype(np.float32)
    items = np.repeat(base[None], 4_000, axis=0)
    items *= 1 + rng.integers(-4, 5, items.shape).astype(np.float32) * np.float32(2.0**-23)
    queries = rng.standard_normal((8, 48)).astype(np.float32)
    lists, wanted = np.zeros(4_000, np.int32), np.zeros((8, 1), np.int32)
    lengths = np.linalg.norm(queries, axis=1).max() * np.linalg.norm(items, axis=1).max()
    true = [naive.ranking(naive.scores_of(q, items), set())[10:100] for q in queries]
    arguments = (items, lists, 1, queries, wanted, [set()] * 8, (11, 100), 456)
    enough, _ = run(*arguments, slack=lengths * 56 * 2.0**-24)
    assert enough.tolist() == true
    none, _ = run(*arguments, slack=0.0)
    assert none.tolist() != true
