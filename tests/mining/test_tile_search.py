"""Exact search by matrix tiles gives what the naive twin and the search by products give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg import set_num_threads
from fastneg.mining.packed import HAS_AMX

if not HAS_AMX:
    pytest.skip("this processor has no bfloat16 tiles", allow_module_level=True)

from fastneg.kernels import fused_scan
from fastneg.mining import tile_search
from fastneg.mining.exact import ExactSearch, plan_blocks
from fastneg.mining.packed import PackedItems, PackedQueries
from fastneg.mining.search import no_positives
from fastneg.mining.tile_search import TilePlan, TileSearch, plan_tiles
from tests.mining.helpers import KINDS, integers, lists_of, positives_for, vectors_of
from tests.naive import mining as naive


def _plan(items, depth, capacity=None, rows=64):
    room = max(depth + 1, 4 * depth + 256) if capacity is None else capacity
    return TilePlan(rows, room, 0)


def _check(queries, items, positives, window, **options):
    search = TileSearch(items, _plan(items, window[1], **options))
    found = search.find(queries, positives, window)
    blocks = plan_blocks(len(queries), len(items), items.shape[1], window[1], 1 << 30, call="x")
    expected = ExactSearch(items, blocks, torch.device("cpu")).find(queries, positives, window)
    np.testing.assert_array_equal(found.items, expected.items)
    np.testing.assert_array_equal(found.scores, expected.scores)
    return search


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 31, 64, 100])
def test_windows_are_those_of_the_search_by_products(kind, width):
    rng = np.random.default_rng(width)
    items, queries = vectors_of(kind, rng, 3_000, width), vectors_of(kind, rng, 70, width)
    lists = lists_of(positives_for(rng, 70, 3_000, 40))
    _check(queries, items, lists, (5, 40))
    _check(queries, items, lists, (1, 3), capacity=8)  # cut back again and again


@pytest.mark.parametrize("num_items", [1, 7, 32, 1_023, 1_025])
def test_few_items_and_windows_beyond_them(num_items):
    rng = np.random.default_rng(num_items)
    items, queries = integers(rng, num_items, 9), integers(rng, 5, 9)
    lists = lists_of(positives_for(rng, 5, num_items, num_items))
    _check(queries, items, lists, (1, num_items))
    found = TileSearch(items, _plan(items, num_items)).find(queries, lists, (1, num_items))
    for q in range(5):
        known = set(lists.items[lists.starts[q] : lists.stops[q]].tolist())
        scores = naive.scores_of(queries[q], items, "ip")
        left = sorted(set(range(num_items)) - known, key=lambda i: (-scores[i], i))
        assert found.items[q, : len(left)].tolist() == left
        assert (found.items[q, len(left) :] == -1).all()


@pytest.mark.parametrize("kind", ["plain", "spread", "integers"])
def test_samples_guess_and_a_query_with_thousands_of_positives(kind):
    rng = np.random.default_rng(1)
    items, queries = vectors_of(kind, rng, 70_000, 16), vectors_of(kind, rng, 100, 16)
    best = np.argsort(-(items @ queries[3]))[:3_000]  # all that a guess would go by
    sets = [set() for _ in range(100)]
    sets[3] = set(best.tolist())
    search = _check(queries, items, lists_of(sets), (101, 300))
    assert len(search._samples) == 2


def test_a_guess_too_high_is_noticed(monkeypatch):
    rng = np.random.default_rng(2)
    items, queries = vectors_of("plain", rng, 70_000, 16), vectors_of("plain", rng, 40, 16)
    plain = TileSearch._guess
    scans = []
    scan = tile_search._scan

    def high(self, *arguments):
        edges, part = plain(self, *arguments), arguments[1]
        edges[::2] = np.sort(part[::2] @ items.T, axis=1)[:, -20]
        return edges

    monkeypatch.setattr(TileSearch, "_guess", high)
    monkeypatch.setattr(tile_search, "_scan", lambda *a: (scans.append(len(a[2])), scan(*a))[1])
    set_num_threads(1)
    try:
        _check(queries, items, no_positives(40), (51, 100))
    finally:
        set_num_threads(None)
    assert 20 in scans  # the second pass, of the misled rows alone


def test_threads_and_blocks_do_not_matter():
    rng = np.random.default_rng(3)
    items, queries = vectors_of("spread", rng, 5_000, 20), vectors_of("spread", rng, 333, 20)
    lists, results = lists_of(positives_for(rng, 333, 5_000, 9)), []
    for threads, rows in ((1, 512), (2, 32), (3, 64), (7, 96)):
        set_num_threads(threads)
        try:
            found = TileSearch(items, _plan(items, 60, rows=rows)).find(queries, lists, (11, 60))
        finally:
            set_num_threads(None)
        results.append(found)
    for other in results[1:]:
        np.testing.assert_array_equal(other.items, results[0].items)
        np.testing.assert_array_equal(other.scores, results[0].scores)


def test_rounding_is_that_of_bfloat16():
    rng = np.random.default_rng(4)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    values = np.concatenate([values, [0.0, -0.0, 1.0, 1.00390625, 3.4e38, -3.4e38, 1e-39]])
    values = values.astype(np.float32)
    items = PackedItems(values[:, None].copy(), np.arange(len(values), dtype=np.int32))
    packed = PackedQueries.of(values[:, None].copy(), items).packed.reshape(-1, 32)[: len(values)]
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    normal = (np.abs(values) >= 2.0**-126) & np.isfinite(
        torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    )
    np.testing.assert_array_equal(packed[normal, 0], expected[normal])
    assert (packed[np.abs(values) < 2.0**-126, 0] & 0x7FFF == 0).all()
    assert (packed[:, 0] & 0x7F80 != 0x7F80).all()  # nothing becomes infinite
    assert (packed[:, 1:] == 0).all()


@pytest.mark.parametrize("kind", ["plain", "spread", "tiny"])
def test_products_are_off_by_less_than_is_said(kind):
    rng = np.random.default_rng(5)
    items, queries = vectors_of(kind, rng, 1_024, 50), vectors_of(kind, rng, 32, 50)
    packed_items = PackedItems(items, np.arange(1_024, dtype=np.int32))
    packed = PackedQueries.of(queries, packed_items)
    edges, counts = np.full(32, -np.inf, np.float32), np.zeros(32, np.int64)
    none = no_positives(32)
    ids, scores = np.empty((32, 1_025), np.int32), np.empty((32, 1_025), np.float32)
    fused_scan.scan_panels(
        tile_search.TILES, packed.packed, 2, packed_items.panels, packed_items.ids,
        packed_items.norms, packed_items.residuals, packed.norms, packed.residuals, packed.slack,
        1_000, queries, items, none.starts, none.stops, none.items, edges, counts, ids, scores,
        np.empty(32, np.float32), np.empty(512, np.float32), np.empty(4_096, np.float32),
    )  # fmt: skip
    assert (counts == 1_024).all()  # nothing is left out while nothing is known
    exact = queries.astype(np.float64) @ items.astype(np.float64).T
    off = np.abs(np.take_along_axis(exact, ids[:, :1_024].astype(np.int64), 1) - scores[:, :1_024])
    assert (off <= packed.slack[:, None]).all()
    if kind == "plain":
        assert off.max() > packed.slack.max() * 0.02  # and the bound is no idle one


@pytest.mark.parametrize("memory", [1 << 20, 64 << 20, 1 << 30])
def test_plans_stay_within_the_memory(memory):
    plan = plan_tiles(200_000, 64, 500, memory)
    if memory < 40 << 20:
        assert plan is None
    else:
        assert plan.bytes <= memory
        assert plan.rows % 32 == 0
