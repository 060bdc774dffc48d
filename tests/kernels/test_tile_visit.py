"""Visits by tiles and what they leave, against sets; buffers that nothing is written beyond."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.kernels.panels import LANES
from fastneg.kernels.visit import pair_by_list, write_ranks
from fastneg.mining import packed as packing
from tests.naive import mining as naive

if not packing.HAS_AMX:
    pytest.skip("this processor has no matrix tiles, or may not use them", allow_module_level=True)

from fastneg.kernels.tile_visit import ROOM, visit_by_tiles


def run(items, lists, num_lists, queries, wanted, sets, window, capacity, *, turns=1, shrink=1.0):
    """Windows over the lists ``wanted`` [B, n], visited in so many turns; nothing else is written.

    ``shrink`` makes the bounds of rounding too small.
    """
    rows = len(queries)
    laid = packing.PackedLists(items, lists, num_lists)
    packed = packing.PackedQueries.of(queries, laid)
    positives = np.array([i for s in sets for i in sorted(s)], np.int64)
    stops = np.cumsum([len(s) for s in sets])
    starts = stops - [len(s) for s in sets]
    counts, edges = np.zeros(rows, np.int64), np.full(rows, -np.inf, np.float32)
    codes = np.full((rows + 2, capacity), -5, np.int32)
    scores = np.full((rows + 2, capacity), 5.0, np.float32)
    width = 32 * laid.steps
    gathered = packing.whole_lines(ROOM * width, np.uint16)
    gathered[:] = 0x7FC0  # NaN: rows of a tile that no query stands in
    products = packing.whole_lines(4_096, np.float32)
    for part in np.array_split(wanted, turns, axis=1):
        pairs = np.empty(num_lists + 1, np.int64), np.empty(part.size, np.int32)
        pair_by_list(np.ascontiguousarray(part), *pairs)
        visit_by_tiles(
            packing.TILES, *pairs, packed.packed, laid.steps, laid.panels, laid.borders, laid.sizes,
            laid.ids, laid.norms * shrink, laid.residuals * shrink, packed.norms * shrink,
            packed.residuals * shrink, packed.slack * shrink, window[1], queries, items, starts,
            stops, positives, edges, counts, codes[1:-1], scores[1:-1], gathered, products,
            packing.whole_lines(512, np.float32),
        )  # fmt: skip
        assert counts.max() <= capacity - LANES
    out = np.full((rows, window[1] - window[0] + 1), -9, np.int32)
    out_scores = np.empty(out.shape, np.float32)
    write_ranks(
        queries, items, window[1], packed.slack * shrink, starts, stops, positives, counts,
        codes[1:-1], scores[1:-1], window[0], np.arange(rows)[::-1].copy(), out, out_scores,
    )  # fmt: skip
    assert (codes[[0, -1]] == -5).all()
    assert (scores[[0, -1]] == 5).all()
    return out[::-1], out_scores[::-1]


def check(found, items, lists, queries, wanted, sets, window):
    ids, scores = found
    for q in range(len(queries)):
        held = np.isin(lists, wanted[q])
        all_scores = naive.scores_of(queries[q], items)
        order = [i for i in naive.ranking(all_scores, sets[q]) if held[i]]
        part = order[window[0] - 1 : window[1]]
        assert ids[q].tolist() == part + [-1] * (ids.shape[1] - len(part))
        np.testing.assert_array_equal(scores[q, : len(part)], all_scores[part])
        assert (scores[q, len(part) :] == -np.inf).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("turns", [1, 2, 4])
def test_the_best_of_the_lists_asked_for(seed, turns):
    rng = np.random.default_rng(seed)
    width = (5, 32, 33, 64, 70, 100)[seed]
    if seed % 2:  # products that are exact, and ties everywhere
        items = rng.integers(-3, 4, (3_000, width)).astype(np.float32)
        queries = rng.integers(-3, 4, (70, width)).astype(np.float32)
    else:
        items = rng.standard_normal((3_000, width)).astype(np.float32)
        queries = rng.standard_normal((70, width)).astype(np.float32)
    lists = rng.integers(0, 9, 3_000).astype(np.int32)
    lists[lists == 4] = 5  # an empty list
    wanted = np.argsort(rng.random((70, 9)), axis=1)[:, :4].astype(np.int32)
    sets = [set(rng.permutation(3_000)[: (0, 40, 2_900)[q % 3]].tolist()) for q in range(70)]
    depth = int(rng.integers(1, 120))
    window = (int(rng.integers(1, depth + 1)), depth)
    found = run(items, lists, 9, queries, wanted, sets, window, 2 * depth + 384, turns=turns)
    check(found, items, lists, queries, wanted, sets, window)


@pytest.mark.parametrize("scale", [1e-20, 1e-12, 1e18])
def test_vectors_of_any_length(scale):
    rng = np.random.default_rng(7)
    items = rng.standard_normal((2_000, 20)).astype(np.float32)
    items[::7] *= np.float32(scale)
    items[3] = 0
    queries = rng.standard_normal((40, 20)).astype(np.float32)
    queries[5] = 0
    queries[::3] *= np.float32(scale)
    lists = rng.integers(0, 5, 2_000).astype(np.int32)
    wanted = np.argsort(rng.random((40, 5)), axis=1)[:, :3].astype(np.int32)
    sets = [set() for _ in range(40)]
    found = run(items, lists, 5, queries, wanted, sets, (11, 60), 504)
    check(found, items, lists, queries, wanted, sets, (11, 60))


def test_more_queries_of_a_list_than_are_multiplied_together():
    rng = np.random.default_rng(8)
    items = rng.standard_normal((700, 16)).astype(np.float32)
    queries = rng.standard_normal((ROOM + 77, 16)).astype(np.float32)
    lists = (np.arange(700) % 2).astype(np.int32)
    wanted = np.zeros((len(queries), 1), np.int32)
    sets = [{0, 2, q % 700} for q in range(len(queries))]
    found = run(items, lists, 2, queries, wanted, sets, (2, 30), 444)
    check(found, items, lists, queries, wanted, sets, (2, 30))


def test_bounds_that_are_too_small_would_be_seen():
    # bfloat16 keeps 8 bits: items that differ in the others fall together
    rng = np.random.default_rng(3)
    base = rng.standard_normal(48).astype(np.float32)
    items = np.repeat(base[None], 4_000, axis=0)
    items *= 1 + rng.integers(-99, 100, items.shape).astype(np.float32) * np.float32(2.0**-16)
    queries = rng.standard_normal((8, 48)).astype(np.float32)
    lists, wanted = np.zeros(4_000, np.int32), np.zeros((8, 1), np.int32)
    arguments = (items, lists, 1, queries, wanted, [set()] * 8, (11, 100), 584)
    check(run(*arguments), items, lists, queries, wanted, [set()] * 8, (11, 100))
    true = [naive.ranking(naive.scores_of(q, items), set())[10:100] for q in queries]
    assert run(*arguments, shrink=0.0)[0].tolist() != true
